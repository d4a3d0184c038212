"""What clients may write: one rule, for every way to write.

Rules:
- Keys under the prefix of a registered dataset are loaded in bulk, and read-only for clients; that a version is active makes no difference.
- Slots with replicas take no writes: nothing carries them to the replicas yet.
- A shard whose write-ahead log failed takes none either.
- The rule is asked when a command comes (executor.py), and again by what writes later: EXEC for all that it has queued, RENAME of a big
  collection before its last step. FLUSHALL names no keys: it is refused while any version is active.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.resp import texts
from server.resp.replies import ReplyError
from server.session import Services


def check_writable(services: Services, keys: Iterable[bytes]) -> None:
    """Whether clients may write these keys, now.

    Raises:
        ReplyError: they may not, and why.
    """
    if services.wal.failure is not None:
        raise ReplyError(texts.write_failed(services.wal.failure))
    for key in keys:
        owner = services.engine.index.owner(key)
        if owner is not None:
            raise ReplyError(texts.read_only(owner.pointer.dataset, owner.pointer.prefix))
    if services.cluster.is_replicated:
        raise ReplyError(texts.replicated(services.cluster.myself.name))
