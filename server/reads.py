"""Pipelines that only read: the values of all their keys at once, then one reply after the other, past the dispatcher.

Rules:
- This is the dispatcher's own way (executor.py) for what most pipelines are: one and the same reading command, of one key each, as often as
  its buffer holds. All that is looked at for each command there is looked at for all of them here; where any of it is otherwise, nothing is
  done, and the dispatcher takes over, at the first command that is left.
- A reply comes from the value of the command's key alone (`registry.Answer`). What declines, and what raises, is the dispatcher's, too.
"""

from __future__ import annotations

from pipeline.format.slots import key_slots
from server.commands.registry import Answer, Command
from server.resp.parser import Command as Words
from server.session import Services, Session

REPLY_BYTES_PER_RUN_MAX = 256 << 10  # handed to the transport at once; beyond it, the peer's pace decides


class Reads:
    """For all connections of one shard; `quick` finds commands by the words that clients send."""

    def __init__(self, quick: dict[bytes, Command], services: Services) -> None:
        self._quick = quick
        self._owned = services.cluster.owned
        self._engine = services.engine
        self._gate = services.gate

    def answer(self, session: Session, commands: list[Words], replies: list[bytes]) -> int:
        """Add the replies of the first commands, as many as go this way; how many bytes they have."""
        found = self._found(session, commands)
        if found is None:
            return 0
        command, answer = found
        keys = [words[1] for words in commands]
        slots = key_slots(keys)
        if not all(map(self._owned.__getitem__, slots)):
            return 0
        values: list[bytes | None] = []
        reply_bytes = 0
        try:
            values = self._engine.values(keys, slots)
            for words, value in zip(commands, values, strict=True):
                reply = answer(session, words, value)
                if not reply:
                    break
                replies.append(reply)
                reply_bytes += len(reply)
                if reply_bytes >= REPLY_BYTES_PER_RUN_MAX:
                    break
        except Exception:  # noqa: BLE001, S110 -- the dispatcher meets it again, at the command that it is of, and says so there
            pass
        done = len(replies)
        if done < len(values):
            self._engine.keep_ahead(keys[done:], values[done:])
        self._engine.count(done, done - sum(map(bool, values[:done])))
        command.calls += done
        session.last_command = command.name
        return reply_bytes

    def _found(self, session: Session, commands: list[Words]) -> tuple[Command, Answer] | None:
        """The command that all of them are, with as many words as it takes; None if they are not, or can't simply be run."""
        command = self._quick.get(commands[0][0])
        if command is None or command.answer is None:
            return None
        if session.queue is not None or self._gate.busy or session.engine is not self._engine:
            return None
        lengths = [len(words) for words in commands]
        fits = command.least <= min(lengths) and max(lengths) <= command.most and len({words[0] for words in commands}) == 1
        return (command, command.answer) if fits else None
