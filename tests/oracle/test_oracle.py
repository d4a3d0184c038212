"""Random commands to a real redis-server and to a shard, some in one buffer, over two connections each: every reply is compared, and at
the end every key.

Collections become big after a few elements here (both servers are told so), so that both of our forms are met.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.oracle.exceptions import same
from tests.oracle.grammar import COMMANDS, LEX_KEY, Command
from tests.oracle.resp import elements
from tests.support.oracle import Ports, both_servers
from tests.support.resp import RawClient, encode_command

COMMANDS_PER_RULE = 8
STEPS = 40
EXAMPLES = 34  # about 5,000 commands
EXAMPLES_FULL = 1_400  # about 200,000
LIMITS = {"hash-max-listpack-entries": 4, "hash-max-listpack-value": 20, "zset-max-listpack-entries": 4, "zset-max-listpack-value": 20}
ENDS_OF_TRANSACTIONS = {b"exec", b"discard"}
KEYS = [b"{t}a", b"{t}b", b"{t}c", b"{t}d", b"{t}e", LEX_KEY]
LOOKS = {b"+string\r\n": [b"GET"], b"+hash\r\n": [b"HGETALL"], b"+zset\r\n": [b"ZRANGE", b"0", b"-1", b"WITHSCORES"]}


class Oracle(RuleBasedStateMachine):
    """One example: two connections to each server, in RESP2 and in RESP3."""

    ports: Ports
    commands = 0

    def __init__(self) -> None:
        super().__init__()
        self._queued: list[list[Command]] = [[], []]
        self._pairs = [tuple(RawClient(port) for port in self.ports) for _ in range(2)]
        for protocol, pair in zip((2, 3), self._pairs, strict=True):
            for client in pair:
                client.call("HELLO", protocol)
                client.call("DEL", *KEYS)

    @rule(who=st.integers(0, 1), commands=st.lists(COMMANDS, min_size=1, max_size=COMMANDS_PER_RULE))
    def say(self, who: int, commands: list[Command]) -> None:
        """Some commands in one buffer."""
        raw = b"".join(encode_command(*words) for words in commands)
        said = []
        for client in self._pairs[who]:
            client.send(raw)
            said.append([client.reply() for _ in commands])
        Oracle.commands += len(commands)
        for words, redis, shard in zip(commands, *said, strict=True):
            if redis == shard == b"+QUEUED\r\n":
                self._queued[who].append(words)
            elif words[0].lower() == b"exec" and redis[:1] == shard[:1] == b"*" and redis[1:2] != b"-" != shard[1:2]:
                for one, *replies in zip(self._queued[who], elements(redis), elements(shard), strict=True):
                    self._compare(one, *replies)
            else:
                self._compare(words, redis, shard)
            if words[0].lower() in ENDS_OF_TRANSACTIONS:
                self._queued[who].clear()

    def _compare(self, words: Command, redis: bytes, shard: bytes) -> None:
        if not same(words, redis, shard):
            note(f"{words}\n  redis {redis[:400]!r}\n  shard {shard[:400]!r}")
            raise AssertionError(f"{words}: redis {redis[:200]!r}, shard {shard[:200]!r}")

    def teardown(self) -> None:
        """No transaction is left open, and every key is the same."""
        for pair in self._pairs:
            for client in pair:
                client.call("DISCARD")
        redis, shard = self._pairs[0]
        for key in KEYS:
            kind = redis.call("TYPE", key)
            assert shard.call("TYPE", key) == kind, key
            name, *rest = LOOKS.get(kind, [b"EXISTS"])
            words = [name, key, *rest]
            assert same(words, redis.call(*words), shard.call(*words)), key
        for pair in self._pairs:
            for client in pair:
                client.close()


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with TemporaryDirectory(prefix="redkv-") as folder, both_servers(Path(folder)) as found:
        for port in found:
            with RawClient(port) as client:
                for name, value in LIMITS.items():
                    assert client.call("CONFIG", "SET", name, value) == b"+OK\r\n"
        yield found


@pytest.mark.parametrize("examples", [EXAMPLES, pytest.param(EXAMPLES_FULL, marks=pytest.mark.full)])
def test_a_shard_answers_as_redis_does(ports: Ports, examples: int) -> None:
    Oracle.ports, Oracle.commands = ports, 0
    run_state_machine_as_test(
        Oracle,
        settings=settings(max_examples=examples, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck), print_blob=True),
    )
    print(f"{Oracle.commands} commands")  # noqa: T201 -- how much was tried, with -s
