import pytest

from pipeline.format.errors import CountMismatchError
from pipeline.format.manifest import Manifest, ManifestFile, ManifestSample, Totals
from pipeline.format.slots import SlotRange
from pipeline.load.states import State
from pipeline.load.status import ShardVersion, VersionStatus
from pipeline.load.verification import verify

FILE = ManifestFile(
    object_key="k",
    slots=SlotRange(first=0, last=16383),
    smallest=b"a",
    largest=b"b",
    keys=10,
    entries=10,
    deletes=0,
    bytes=1,
    sha256="0" * 64,
    content_digest="0" * 64,
)
MANIFEST = Manifest(
    dataset="d",
    version="2026-11-22",
    build_id="b",
    built_at_ms=0,
    prefix="d:",
    type="hash",
    mode="replace",
    spec={},
    totals=Totals(source_rows=10, stored_rows=10, duplicates=0, skipped=0, keys=10, entries=10, deletes=0, bytes=1),
    files=(FILE,),
    samples=(ManifestSample(key=b"d:1", reply_sha256="0" * 64),),
)


def node(keys: int, samples: int) -> VersionStatus:
    shards = {"a": ShardVersion(keys=keys, entries=keys), "b": ShardVersion(keys=0, entries=0)}
    return VersionStatus(version="2026-11-22", build_id="b", state=State.READY, samples_checked=samples, shards=shards)


def test_all_nodes_together_hold_what_the_manifest_promises() -> None:
    assert verify(MANIFEST, {"one": node(4, 1), "two": node(6, 0)}) == 1


@pytest.mark.parametrize(("keys", "samples", "what"), [(5, 1, "9 keys, the manifest has 10"), (6, 0, "0 samples, the manifest has 1")])
def test_a_deficit_is_named(keys: int, samples: int, what: str) -> None:
    with pytest.raises(CountMismatchError, match=what):
        verify(MANIFEST, {"one": node(4, samples), "two": node(keys, 0)})
