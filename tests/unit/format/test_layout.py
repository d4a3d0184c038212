"""Object keys and paths: the documented names, and no two things under one name."""

from __future__ import annotations

from pathlib import Path

from pipeline.format import layout
from pipeline.format.layout import NodePaths, ShardPaths


def test_object_keys() -> None:
    assert layout.manifest_key("person", "2026-11-22") == "datasets/person/versions/2026-11-22/manifest.json"
    assert layout.sst_key("person", "2026-11-22", "b1", 3, "17", 0) == "datasets/person/versions/2026-11-22/builds/b1/00003-17-000.sst"
    assert layout.desired_key("local") == "clusters/local/desired.json"
    assert layout.topology_key("local") == "clusters/local/topology.json"
    assert layout.queue_key("local") == "clusters/local/queue.json"


def test_files_of_one_build_share_its_root_and_nothing_else_does() -> None:
    key = layout.sst_key("person", "2026-11-22", "b1", 3, "17", 0)
    assert key.startswith(layout.build_root("person", "2026-11-22", "b1"))
    assert not key.startswith(layout.build_root("person", "2026-11-22", "b"))
    assert not key.startswith(layout.version_root("person", "2026-11-2"))


def test_attempts_never_share_a_key() -> None:
    keys = {
        layout.sst_key("person", "2026-11-22", "b1", partition, attempt, index)
        for partition in (1, 11)
        for attempt in ("1", "11")
        for index in (0, 1, 10)
    }
    assert len(keys) == 12


def test_build_ids_are_new_each_time() -> None:
    assert len({layout.new_build_id() for _ in range(100)}) == 100


def test_paths_on_a_node() -> None:
    node, shard = NodePaths(Path("/n")), ShardPaths(Path("/s"))
    assert node.staged_build("person", "2026-11-22", "b1") == Path("/n/staging/person/2026-11-22/b1")
    assert node.memory == Path("/n/sidecar.json")
    assert shard.live == Path("/s/live")
    assert shard.topology == Path("/s/topology.json")
    assert shard.version("person", "2026-11-22") == Path("/s/versions/person/2026-11-22")
    assert shard.unpublished("person", "2026-11-22", "b1") == Path("/s/making/person@2026-11-22@b1")
