"""The local stack as a whole: SeaweedFS, a Hive metastore, and three nodes of shards and a sidecar, started and stopped together.

S3 and the metastore start at once; when S3 answers, the cluster's documents are put there, and all shards and sidecars start at once. A
start that fails stops what it started. Only processes that stack.json knows are ever stopped (folder.py, processes.py).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.format.desired import Desired
from pipeline.format.errors import ConflictError, UsageError
from pipeline.format.layout import ShardPaths, desired_key, topology_key
from pipeline.format.topology import Topology
from pipeline.settings import ClusterSettings, load_settings
from pipeline.stack.cluster import CLUSTER
from pipeline.stack.folder import METASTORE, STORE, StackFolder
from pipeline.stack.members import S3, programs
from pipeline.stack.metastore import Metastore
from pipeline.stack.processes import Program, Running, crash, kill, stop


class Stack:
    """One local stack; nothing runs before `start`. Its members: s3, metastore, shards (node-1-a and so on), sidecars (node-1-sidecar)."""

    def __init__(self, folder: Path) -> None:
        self._folder = StackFolder(folder)
        self.folder = self._folder.root

    @property
    def exists(self) -> bool:
        """Whether this folder holds a stack, running or not."""
        return self._folder.exists

    @property
    def settings_path(self) -> Path:
        """The settings file by which every command finds this cluster."""
        return self._folder.settings

    @property
    def settings(self) -> ClusterSettings:
        """The settings; their environment is set in this process where it is not set already, as every command does."""
        return load_settings(self.settings_path)

    @property
    def topology(self) -> Topology:
        """The cluster as `start` laid it out."""
        return self._folder.topology

    @property
    def s3_endpoint(self) -> str:
        """The address of the S3."""
        return self._folder.seaweed.endpoint

    @property
    def metastore(self) -> Metastore:
        """The Hive metastore."""
        return self._folder.metastore

    @property
    def members(self) -> dict[str, Running]:
        """Every member's process, as started last."""
        return dict(self._folder.record.running)

    def start(self, tell: Callable[[str], None] = lambda _: None) -> list[str]:
        """Bring up every member that is down, and wait until all answer; the names of those that were started. `tell` hears each.

        Raises:
            MemberStartError: a member did not come up; what this call started is stopped again.
            UsageError: something that it needs is not installed, the folder can't be used, or another command works on it.
        """
        with self._folder.locked():
            self._folder.prepare()
            members = programs(self._folder)
            down = {one.name for one in members if not self._is_alive(one.name)}
            kill(running for name, running in self.members.items() if name in down)  # what a dead member left: it holds ports and files
            for one in members:
                if one.name in down:
                    one.check_ports()
            try:
                self._bring_up(members, down, tell)
            except BaseException:
                stop(running for name, running in self.members.items() if name in down)
                raise
            return [one.name for one in members if one.name in down]

    def stop(self) -> list[str]:
        """Stop every member in order; the names of those that ran."""
        if not self.exists:
            return []
        with self._folder.locked():
            return self._stop()

    def kill(self, member: str) -> None:
        """What `kill -9` does to a member: its process ends at once, and what it started is left to notice."""
        crash(self._member(member))

    def restart(self, member: str) -> None:
        """Stop one member in order if it runs, start it again, and wait until it answers.

        Raises:
            MemberStartError: it did not come up.
        """
        with self._folder.locked():
            stop([self._member(member)])
            program = next(one for one in programs(self._folder) if one.name == member)
            program.check_ports()
            self._start(program)
            program.await_ready(self._member(member))

    def remove(self) -> None:
        """Stop everything, and remove what the stack made in its folder."""
        if not self.exists:
            return
        with self._folder.locked():
            self._stop()
            self._folder.remove()

    def _bring_up(self, members: list[Program], down: set[str], tell: Callable[[str], None]) -> None:
        outside, inside = members[:2], members[2:]
        s3, metastore = outside
        self._start_all(outside, down)
        s3.await_ready(self._member(S3))
        self._publish()
        self._start_all(inside, down)
        for one in (s3, *inside, metastore):  # the metastore is the slowest
            one.await_ready(self._member(one.name))
            if one.name in down:
                tell(f"{one.name} is up" if len(down) == len(members) else f"{one.name} was down, and is up again")

    def _start_all(self, members: list[Program], down: set[str]) -> None:
        for one in members:
            if one.name in down:
                self._start(one)

    def _start(self, member: Program) -> None:
        running = member.start()
        try:
            self._folder.note(member.name, running)
        except BaseException:
            kill([running])  # nobody else would know of it
            raise

    def _stop(self) -> list[str]:
        running = self.members
        alive = [name for name, one in running.items() if one.alive]
        sidecars = [name for name in running if name.endswith("-sidecar")]
        shards = [name for name in running if name not in {S3, METASTORE, *sidecars}]
        for batch in (sidecars, shards, (METASTORE, S3)):
            stop(running[name] for name in batch if name in running)
        self._folder.remove_sockets()
        return [name for name in (*sidecars, *shards, METASTORE, S3) if name in alive]

    def _member(self, name: str) -> Running:
        members = self.members
        if name not in members:
            raise UsageError(f"the stack has no member {name}: it has {', '.join(members) or 'none yet'}", member=name)
        return members[name]

    def _is_alive(self, name: str) -> bool:
        running = self.members.get(name)
        return running is not None and running.alive

    def _publish(self) -> None:
        """Put the cluster's documents into the store where they are missing, and the topology beside every shard, so that they serve."""
        store = self._folder.seaweed.store(STORE)
        topology = self.topology
        first = Desired(cluster=CLUSTER, epoch=1)
        for key, document in ((topology_key(CLUSTER), topology.to_json()), (desired_key(CLUSTER), first.to_json())):
            with suppress(ConflictError):  # it is there: the stack was up before
                store.create(key, document)
        for node in topology.nodes:
            for shard in node.shards:
                place = ShardPaths(self._folder.shard(node.name, shard.name)).topology
                if not place.exists():
                    place.write_bytes(topology.to_json())
