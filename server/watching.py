"""WATCH: which connections want to know of changes to which keys, until their next EXEC.

Rules:
- A key is changed when the engine says so, and when it was there and has expired since.
- While nobody watches, the engine has nobody to tell: a write pays one comparison.
- What changes many keys at once (an activation, FLUSHALL) counts as a change of every watched key: an EXEC that finds its keys as they
  were may be turned down, never the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.storage.engine import Engine

if TYPE_CHECKING:
    from server.session import Session


class Watching:
    """All watched keys of a shard."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._by_key: dict[bytes, set[Session]] = {}

    def watch(self, session: Session, key: bytes, slot: int) -> None:
        """Tell a connection of changes to a key from now on."""
        if key not in session.watched:
            session.watched[key] = (slot, session.engine.read(key, slot) is not None)
            self._by_key.setdefault(key, set()).add(session)
            self._engine.on_change = self._changed

    def unwatch(self, session: Session) -> None:
        """Tell it no more, and forget what was told."""
        session.spoiled = False
        for key in session.watched:
            watchers = self._by_key[key]
            watchers.discard(session)
            if not watchers:
                del self._by_key[key]
        session.watched.clear()
        if not self._by_key:
            self._engine.on_change = None

    @staticmethod
    def as_it_was(session: Session) -> bool:
        """Whether nothing that a connection watches has changed."""
        if session.spoiled:
            return False
        return all(session.engine.read(key, slot) is not None for key, (slot, was_there) in session.watched.items() if was_there)

    def _changed(self, key: bytes | None) -> None:
        keys = tuple(self._by_key) if key is None else (key,)
        for one in keys:
            for session in self._by_key.get(one, ()):
                session.spoiled = True
