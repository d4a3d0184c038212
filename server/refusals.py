"""The reply to a command that failed: Redis' words, or the node's own error for its sidecar. What no client caused is logged."""

from __future__ import annotations

import structlog

from pipeline.format.admin import encode_refusal
from pipeline.format.errors import RedkvError
from server.resp import texts
from server.resp.replies import ReplyError, error
from server.session import Session

_log = structlog.get_logger("server.refusals")


def refusal(session: Session, words: list[bytes], failed: Exception) -> bytes:
    """The error reply."""
    if isinstance(failed, ReplyError):
        return error(failed.text)
    name = words[0].decode(errors="backslashreplace").lower()
    if session.admin and isinstance(failed, RedkvError):
        _log.warning("refused", command=name, error=type(failed).__name__, message=failed.message)
        return error(encode_refusal(failed))
    _log.error("command failed", command=name, client=session.peer, exc_info=failed)
    return error(f"ERR {failed.message}" if isinstance(failed, RedkvError) else texts.INTERNAL)
