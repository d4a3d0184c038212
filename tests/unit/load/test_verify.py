import pytest

from pipeline.format.errors import CountMismatchError
from pipeline.format.manifest import BaseVersion, Manifest, ManifestFile, ManifestSample, Totals, Whole
from pipeline.format.slots import SlotRange, even_ranges
from pipeline.format.topology import Node, Shard, Topology
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


def topology(*replicas: tuple[str, str]) -> Topology:
    """Shards a and b, and replicas of them by name."""
    owners = [Shard(name=name, host="h", port=1, slots=(slots,)) for name, slots in zip("ab", even_ranges(2), strict=True)]
    copies = [Shard(name=name, host="h", port=1, slots=(), replica_of=primary) for name, primary in replicas]
    return Topology(cluster="c", epoch=1, nodes=(Node(name="one", sidecar_url="http://h:1", shards=(*owners, *copies)),))


def node(samples: int, **keys: int) -> VersionStatus:
    shards = {name: ShardVersion(keys=count, entries=count) for name, count in keys.items()}
    return VersionStatus(version="2026-11-22", build_id="b", state=State.READY, samples_checked=samples, shards=shards)


def test_all_nodes_together_hold_what_the_manifest_promises() -> None:
    assert verify(MANIFEST, topology(), {"one": node(1, a=4), "two": node(0, b=6, stranger=0)}) == 1


def test_replicas_hold_what_their_primaries_do_and_read_the_samples_too() -> None:
    with_copies = topology(("c", "a"), ("d", "b"))
    nodes = {"one": node(1, a=4, b=6), "two": node(1, c=4, d=6)}
    assert verify(MANIFEST, with_copies, nodes) == 2
    with pytest.raises(CountMismatchError, match="1 samples, the manifest has 2"):
        verify(MANIFEST, with_copies, nodes | {"two": node(0, c=4, d=6)})
    with pytest.raises(CountMismatchError, match="replica d holds 5 entries of 5 keys, its primary b 6 entries of 6 keys"):
        verify(MANIFEST, with_copies, nodes | {"two": node(1, c=4, d=5)})
    with pytest.raises(CountMismatchError, match="replica d holds nothing"):
        verify(MANIFEST, with_copies, nodes | {"two": node(1, c=4)})


def test_a_replica_stands_for_a_primary_that_is_absent() -> None:
    with_copies = topology(("c", "a"), ("d", "b"), ("e", "b"))
    assert verify(MANIFEST, with_copies, {"one": node(1, a=4), "two": node(1, d=6, e=6, c=4)}, {"b"}) == 2
    with pytest.raises(CountMismatchError, match="replica e holds 5 entries of 5 keys, its primary d 6 entries of 6 keys"):
        verify(MANIFEST, with_copies, {"one": node(1, a=4, c=4), "two": node(1, d=6, e=5)}, {"b"})
    with pytest.raises(CountMismatchError, match="4 keys, the manifest has 10"):
        verify(MANIFEST, with_copies, {"one": node(2, a=4, c=4)}, {"b", "d", "e"})


def test_what_a_delta_changed_counts_unless_a_shard_lost_count() -> None:
    base = BaseVersion(version="2026-11-21", build_id="b", manifest_sha256="0" * 64)
    deletes = FILE.model_copy(update={"keys": 0, "entries": 0, "deletes": 5, "object_key": "k2"})
    totals = MANIFEST.totals.model_copy(update={"source_rows": 40, "stored_rows": 40, "deletes": 5, "bytes": 2})
    more = {"format_version": 2, "files": (FILE, deletes), "totals": totals, "bases": (base,), "whole": Whole(keys=40, entries=40)}
    delta = MANIFEST.model_copy(update=more)

    def held(keys: int, deletes: int | None, applied: int | None) -> ShardVersion:
        return ShardVersion(keys=keys, entries=keys, deletes=deletes, applied_keys=applied, applied_entries=applied)

    def status(**shards: ShardVersion) -> dict[str, VersionStatus]:
        samples = 1 + ("c" in shards)
        return {"one": VersionStatus(version="2026-11-22", build_id="b", state=State.READY, samples_checked=samples, shards=shards)}

    with_copy = topology(("c", "a"))
    known, lost, other = held(10, 2, 4), held(10, None, None), held(30, 3, 6)
    assert verify(delta, topology(), status(a=known, b=other)) == 1
    with pytest.raises(CountMismatchError, match="6 deletes, the manifest has 5"):
        verify(delta, topology(), status(a=known, b=held(30, 4, 6)))
    with pytest.raises(CountMismatchError, match="9 applied_keys, the manifest has 10"):
        verify(delta, topology(), status(a=known, b=held(30, 3, 5)))
    for a, c in ((lost, known), (known, lost), (lost, lost)):
        assert verify(delta, with_copy, status(a=a, b=other, c=c)) == 2
    with pytest.raises(CountMismatchError, match="39 keys, the manifest has 40"):
        verify(delta, topology(), status(a=lost, b=held(29, 3, 6)))
    with pytest.raises(CountMismatchError, match="replica c holds 9 entries of 9 keys"):
        verify(delta, with_copy, status(a=lost, b=other, c=held(9, None, None)))


@pytest.mark.parametrize(("keys", "samples", "what"), [(5, 1, "9 keys, the manifest has 10"), (6, 0, "0 samples, the manifest has 1")])
def test_a_deficit_is_named(keys: int, samples: int, what: str) -> None:
    with pytest.raises(CountMismatchError, match=what):
        verify(MANIFEST, topology(), {"one": node(samples, a=4), "two": node(0, b=keys)})
