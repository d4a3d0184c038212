"""One small, valid example of every stored record, whose facts agree with each other: the golden files are made of them."""

from __future__ import annotations

import hashlib

from pipeline.format import layout
from pipeline.format.admin import DatasetStatus, ShardStatus, VersionIdentity
from pipeline.format.audit import Action, AuditRecord, audit_id
from pipeline.format.desired import BadVersion, Desired, DesiredDataset, DesiredVersion, Goal
from pipeline.format.digest import ContentDigest
from pipeline.format.keys import meta_key
from pipeline.format.manifest import BaseVersion, Manifest, ManifestFile, ManifestSample, Totals, Whole
from pipeline.format.queue import LoadQueue, QueuedLoad
from pipeline.format.slots import SlotRange, even_ranges
from pipeline.format.topology import Node, Shard, Topology
from pipeline.format.values import canonical_reply, encode_hash

BUILD_ID = "0f8fad5bd9cb469fa16570867728950e"
OLDER_BUILD_ID = "7c9e6679742540de944be07fc1f90ae7"
BUILT_AT_MS = 1_795_305_600_000  # 2026-11-22 00:00 UTC

SPEC = {
    "dataset": "person",
    "source": {"table": "features.person", "where": "ds = '${date}'"},
    "key": "{person}_${id}",
    "type": "hash",
    "hash": {"columns": ["name", "price"]},
    "mode": "replace",
}
ROWS = {
    b"{person}_42": ((b"name", b"Ada"), (b"price", b"9.5")),
    b"{person}_7": ((b"name", b"Grace"),),
}
PERSON_SLOTS = even_ranges(6)[0]  # those of the shard that has it


def entries() -> list[tuple[bytes, bytes]]:
    """The rows as internal keys and values, in key order."""
    return sorted((meta_key(key), encode_hash(pairs)) for key, pairs in ROWS.items())


def manifest() -> Manifest:
    """The manifest of the rows. The file's size and SHA-256 are made up: SST bytes are not reproducible."""
    keys, values = zip(*entries(), strict=True)
    digest = ContentDigest()
    digest.update(keys, values)
    file = ManifestFile(
        object_key=layout.sst_key("person", "2026-11-22", BUILD_ID, 0, "17", 0),
        slots=SlotRange(first=1838, last=1838),  # of the tag `person`
        smallest=keys[0],
        largest=keys[-1],
        keys=2,
        entries=2,
        deletes=0,
        bytes=1180,
        sha256=hashlib.sha256(b"stands for the bytes of the SST").hexdigest(),
        content_digest=digest.hexdigest(),
    )
    samples = tuple(
        ManifestSample(key=key, reply_sha256=hashlib.sha256(canonical_reply(encode_hash(pairs))).hexdigest()) for key, pairs in ROWS.items()
    )
    totals = Totals(source_rows=3, stored_rows=2, duplicates=0, skipped=1, keys=2, entries=2, deletes=0, bytes=1180)
    return Manifest(
        dataset="person",
        version="2026-11-22",
        build_id=BUILD_ID,
        built_at_ms=BUILT_AT_MS,
        prefix="{person}_",
        type="hash",
        mode="replace",
        spec=SPEC,
        totals=totals,
        files=(file,),
        samples=samples,
    )


def manifest_sha256() -> str:
    """What names the bytes of the manifest elsewhere."""
    return hashlib.sha256(manifest().to_json()).hexdigest()


def delta_manifest() -> Manifest:
    """The next day's version, a delta: {person}_7 is new, {person}_42 went."""
    below, build_id, version = manifest(), "3f2504e04f8941d39a0c0305e82c3301", "2026-11-23"
    (gone, _), (put, old) = entries()
    value = encode_hash(((b"name", b"Hopper"),))
    assert value != old
    files = []
    for number, (key, changed) in enumerate(((gone, None), (put, value))):
        digest = ContentDigest()
        digest.update([key], [changed])
        file = ManifestFile(
            object_key=layout.sst_key("person", version, build_id, 0, "18", number),
            slots=SlotRange(first=1838, last=1838),
            smallest=key,
            largest=key,
            keys=int(changed is not None),
            entries=int(changed is not None),
            deletes=int(changed is None),
            bytes=1100,
            sha256=hashlib.sha256(b"stands for the bytes of SST %d" % number).hexdigest(),
            content_digest=digest.hexdigest(),
        )
        files.append(file)
    return Manifest(
        format_version=2,
        dataset="person",
        version=version,
        build_id=build_id,
        built_at_ms=BUILT_AT_MS + 86_400_000,
        prefix="{person}_",
        type="hash",
        mode="replace",
        spec=SPEC,
        totals=Totals(source_rows=1, stored_rows=1, duplicates=0, skipped=0, keys=1, entries=1, deletes=1, bytes=2200),
        files=tuple(files),
        samples=(ManifestSample(key=b"{person}_7", reply_sha256=hashlib.sha256(canonical_reply(value)).hexdigest()),),
        bases=(BaseVersion(version=below.version, build_id=below.build_id, manifest_sha256=manifest_sha256()),),
        whole=Whole(keys=1, entries=1),
    )


def topology() -> Topology:
    """Three nodes with two shards each, slots spread evenly."""
    ranges = even_ranges(6)
    nodes = []
    for number in (1, 2, 3):
        shards = tuple(
            Shard(name=f"node-{number}-{letter}", host="127.0.0.1", port=7000 + index, slots=(ranges[index],))
            for index, letter in ((2 * number - 2, "a"), (2 * number - 1, "b"))
        )
        nodes.append(Node(name=f"node-{number}", sidecar_url=f"http://127.0.0.1:{8000 + number}", shards=shards))
    return Topology(cluster="local", epoch=1, nodes=tuple(nodes))


def audit_record() -> AuditRecord:
    """Today's version became the one that clients read."""
    at_ms = BUILT_AT_MS + 600_000
    return AuditRecord(
        id=audit_id(at_ms, "e7-0"),
        at_ms=at_ms,
        by="ops@loader-1",
        action=Action.ACTIVATE,
        dataset="person",
        version="2026-11-22",
        build_id=BUILD_ID,
        epoch=7,
        before="2026-11-21",
    )


def desired() -> Desired:
    """One dataset: yesterday's version on its way out of service, today's active; the one before was marked bad."""
    older = DesiredVersion(
        version="2026-11-21",
        build_id=OLDER_BUILD_ID,
        manifest_key=layout.manifest_key("person", "2026-11-21"),
        manifest_sha256=hashlib.sha256(b"stands for an older manifest").hexdigest(),
        goal=Goal.RETIRED,
        retired_at_ms=BUILT_AT_MS + 600_000,
    )
    newer = DesiredVersion(
        version="2026-11-22",
        build_id=BUILD_ID,
        manifest_key=layout.manifest_key("person", "2026-11-22"),
        manifest_sha256=manifest_sha256(),
        goal=Goal.ACTIVE,
    )
    bad = BadVersion(version="2026-11-20", build_id="16fd2706", by="ann", at_ms=BUILT_AT_MS - 86_400_000)
    return Desired(
        cluster="local",
        epoch=7,
        datasets={"person": DesiredDataset(prefix="{person}_", versions=(older, newer), bad=(bad,))},
        written_by="ops@loader-1:4711",
        written_at_ms=BUILT_AT_MS + 600_000,
        audit=(audit_record(),),
    )


def queue() -> LoadQueue:
    """Today's load runs; one of another dataset, that is less urgent, waits."""
    running = QueuedLoad(
        dataset="person",
        version="2026-11-22",
        priority=5,
        by="ops@loader-1:4711",
        asked_at_ms=BUILT_AT_MS + 300_000,
        started_at_ms=BUILT_AT_MS + 301_000,
        beat=7,
    )
    waiting = QueuedLoad(dataset="plane", version="2026-11-22", priority=0, by="ops@loader-2:815", asked_at_ms=BUILT_AT_MS + 320_000)
    return LoadQueue(cluster="local", loads=(running, waiting))


def identity() -> VersionIdentity:
    """VERSION.json in the directory of the shard that owns the tag `person`."""
    return VersionIdentity(
        dataset="person",
        version="2026-11-22",
        build_id=BUILD_ID,
        manifest_sha256=manifest_sha256(),
        slots=(SlotRange(first=PERSON_SLOTS.first, last=PERSON_SLOTS.last),),
        keys=2,
        entries=2,
    )


def shard_status() -> ShardStatus:
    """What that shard answers to REDKV STATUS."""
    person = DatasetStatus(prefix="{person}_", active="2026-11-22", active_build_id=BUILD_ID, opened=("2026-11-22",))
    return ShardStatus(shard="node-1-a", pid=4712, topology_epoch=1, datasets={"person": person}, live_keys=0)
