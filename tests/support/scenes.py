"""What a scenario of a load's death plays on: one node, whose sidecar is driven into a trap and dies there, or somebody else meanwhile."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal

from pipeline.format.desired import Goal
from pipeline.format.slots import SlotRange, even_ranges, key_slot
from pipeline.format.topology import Node, Shard, Topology
from pipeline.format.values import encode_string
from pipeline.load.states import State
from tests.support.crash import Trap
from tests.support.disk import lying_below
from tests.support.s3 import S3
from tests.support.shards import ShardProcess
from tests.support.sidecars import WAIT_S, Head, NodeUnderTest
from tests.support.values import read_all
from tests.support.versions import BuiltVersion, build_version

V1, V2 = "2026-11-21", "2026-11-22"
FILES = even_ranges(3)
MINE = SlotRange(first=0, last=9000)  # ends within a file: some slots are foreign
ROWS = 200

Victim = Literal["sidecar", "shard"]


@dataclass
class Scene:
    """A node of one shard, which owns some of the slots; each scenario has a dataset of its own, and leaves none behind."""

    folder: Path
    s3: S3
    head: Head
    shard: ShardProcess
    node: NodeUnderTest
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    name: str = ""
    built: dict[str, BuiltVersion] = field(default_factory=dict)
    rows: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    slots: SlotRange = MINE
    victim: Victim | None = None  # what is killed while the sidecar stands in a trap; None: it kills itself there

    def begin(self) -> None:
        """A new dataset with two versions."""
        self.victim = None
        self.name = f"d{next(self.numbers)}"
        self.built, self.rows = {}, {}
        self.own(MINE)
        for version in (V1, V2):
            self.build(version)

    def build(self, version: str, *, wrong: bool = False) -> None:
        source = random.Random(f"{self.name} {version}")
        rows = {f"{self.name}:{number}".encode(): encode_string(source.randbytes(200)) for number in range(ROWS)}
        samples = frozenset({next(key for key in rows if key_slot(key) in MINE)} if wrong else ())
        self.rows[version] = rows
        self.built[version] = build_version(
            self.s3.store, self.name, version, rows, prefix=f"{self.name}:", partitions=FILES, wrong_samples=samples
        )

    def want(self, **goals: Goal) -> None:
        """The goals of v1 and v2."""
        wanted = [self.built[version].wanted(goals[name]) for name, version in (("v1", V1), ("v2", V2)) if name in goals]
        self.head.want(**{self.name: (f"{self.name}:", wanted)})

    def own(self, slots: SlotRange) -> None:
        """The shard's slots from now on."""
        self.slots = slots
        mine = Shard(name=self.shard.name, host="127.0.0.1", port=self.shard.port, slots=(slots,))
        here = Node(name="node-1", sidecar_url=f"http://127.0.0.1:{self.node.port}", shards=(mine,))
        self.head.topology(Topology(cluster="test", epoch=next(self.numbers), nodes=(here,)))

    def crash(self, trap: Trap, drive: Callable[[], object] = lambda: None) -> None:
        """The sidecar, armed, is driven into the trap, and dies, or the victim does while it stands there; that is started again."""
        match self.victim:
            case None:
                self.die(trap, drive)
                self.node.start()
            case "sidecar":
                self.stand(trap, drive)
                self.node.kill()
                self.node.start()
            case "shard":
                self.stand(trap, drive)
                self.shard.kill()
                trap.go_on()
                self.shard.start()

    def stand(self, trap: Trap, drive: Callable[[], object]) -> None:
        """The sidecar is driven into the trap, and stands there."""
        self.node.kill()
        self.node.launch(trap.environment)
        drive()
        trap.wait()

    def die(self, trap: Trap, drive: Callable[[], object] = lambda: None) -> None:
        """The first half of it."""
        self.node.kill()
        self.node.launch(trap.environment)
        drive()
        trap.wait()
        process = self.node.process
        assert process is not None
        assert process.wait(WAIT_S) == -signal.SIGKILL

    def answer(self) -> None:
        """Until the sidecar answers, after it was launched."""
        self.node.until_answers()

    def activate(self, then: Goal | None = None) -> None:
        """The sidecar answers, and brings the first version to its readers; `then` is a goal for the second one."""
        self.answer()
        self.want(v1=Goal.ACTIVE)
        self.reach(V1, State.ACTIVE)
        if then is not None:
            self.want(v1=Goal.RETIRED if then is Goal.ACTIVE else Goal.ACTIVE, v2=then)

    def swap(self) -> None:
        """The same, and then the second version to them."""
        self.activate(Goal.ACTIVE)
        self.reach(V2, State.ACTIVE)
        self.reach(V1, State.RETIRED)

    def reach(self, version: str, state: State) -> None:
        self.node.wake()
        self.node.until(self.name, version, state)

    def resume(self, version: str) -> None:
        """As soon as the node, perhaps started again just now, knows what is wanted of it."""
        self.node.until_true(f"{version} is wanted", lambda status: status.find(self.name, version) is not None)
        self.node.control("resume", self.name, version)

    def mine(self, version: str) -> dict[bytes, bytes]:
        """The rows of the shard's slots."""
        return {key: value for key, value in self.rows[version].items() if key_slot(key) in self.slots}

    def check(self, version: str) -> None:
        """Clients read that version, all of it and nothing else, and nothing unpublished lies about."""
        rows = self.mine(version)
        assert read_all([self.shard], rows) == rows
        self.node.until_true("a clean disk", lambda _: not self.node.staged_files() and not lying_below(self.shard.paths.making))

    def end(self) -> None:
        """Make the version that clients read go, for the next scenario: it is retired by none, so the node begins anew."""
        self.node.kill()
        self.shard.kill()
        for path in (self.shard.paths.live, self.shard.paths.versions, self.shard.paths.making, self.node.data_dir):
            shutil.rmtree(path, ignore_errors=True)
        self.head.want()
        self.shard.environment = {}
        self.shard.start()
