"""Reading a version's samples through a shard, as clients would read them, before any client does; or after, among live keys."""

from __future__ import annotations

import hashlib
import time

from ingest_sidecar.plan import Slots
from ingest_sidecar.shard_client import PinnedReader, ShardClient
from pipeline.format.errors import NodeError, SampleMismatchError
from pipeline.format.manifest import Manifest, ManifestSample
from pipeline.format.slots import key_slot, slot_set


async def check_samples(manifest: Manifest, client: ShardClient, slots: Slots, node: str) -> int:
    """Compare the replies of a shard's own samples with those of the build; how many there are. The shard has the version opened.

    Raises:
        SampleMismatchError: a key answers otherwise.
        ShardUnavailableError: the shard does not.
    """
    mine, shard = slot_set(slots), client.shard.name
    dataset, version = manifest.dataset, manifest.version
    samples = [one for one in manifest.samples if key_slot(one.key) in mine]
    async with client.pinned(dataset, version) as reader:
        for one in samples:
            reply = await reader.reply(manifest.type, one.key)
            if not _is_as_built(one, reply):
                key = one.key.decode(errors="backslashreplace")
                message = f"{dataset} {version} on {node}, shard {shard}: key {key} answers {reply[:80]!r}, which is not what was built"
                raise SampleMismatchError(message, dataset=dataset, version=version, node=node, shard=shard, key=key)
    return len(samples)


async def changed_samples(manifest: Manifest, client: ShardClient, slots: Slots) -> tuple[int, int]:
    """Read a shard's own samples among the live keys; how many there are, and how many answer otherwise than at build time, be it
    by an error.

    Raises:
        ShardUnavailableError: the shard does not answer.
    """
    mine = slot_set(slots)
    samples = [one for one in manifest.samples if key_slot(one.key) in mine]
    async with client.unpinned() as reader:
        same = [await _is_unchanged(one, reader, manifest.type) for one in samples]
    return len(same), same.count(False)


async def _is_unchanged(sample: ManifestSample, reader: PinnedReader, kind: str) -> bool:
    try:
        return _is_as_built(sample, await reader.reply(kind, sample.key))
    except NodeError as refused:
        if type(refused) is not NodeError:  # no answer
            raise
        return False  # an error reply: a client gave the key another type since, or its slot is another shard's


def _is_as_built(sample: ManifestSample, reply: bytes) -> bool:
    expired = sample.expires_at_ms is not None and sample.expires_at_ms <= time.time() * 1000  # the shard reads the same clock
    return expired or hashlib.sha256(reply).hexdigest() == sample.reply_sha256
