"""The metas of split keys, written last: only when all tasks are through does anybody know how many elements such a key has.

A split key's meta lies between metas of other tasks, so it has a file of its own; there are at most two such keys per task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from pipeline.format.errors import CountMismatchError
from pipeline.format.keys import meta_key, parse_key
from pipeline.format.layout import sst_key
from pipeline.format.manifest import Whole
from pipeline.format.values import ValueType, encode_big
from udtf.entries import EntryBatch
from udtf.partition import Cut, Folded, PartitionTask, Written
from udtf.sst import SstFile


def split_metas(task: PartitionTask, folded: Iterable[Folded]) -> Iterator[Written]:
    """Write the metas of all split keys, each in a file of its own.

    Raises:
        CountMismatchError: a sorted set has other members than ranks.
        StoreError: the object store refused.
    """
    elements: Counter[bytes] = Counter()
    ranks: Counter[bytes] = Counter()
    for one in folded:
        for split in one.splits:
            elements[split.user_key] += split.elements
            ranks[split.user_key] += split.ranks
    store, attempt, kind = task.open_store(task.store_url), uuid4().hex[:16], task.placement.kind
    with TemporaryDirectory(prefix="redkv-sst-") as folder:
        named = sorted(_named(task, elements | ranks))
        before = task.base.values_of([meta_key(one) for one in named], Path(folder) / "base") if task.base and named else {}
        if task.base:
            kept = sum(elements[one] > 0 for one in named)
            whole = Whole(keys=kept, entries=kept)
            yield Written(folded=Folded(task=task.placement.tasks, stored=0, duplicates=0, deleted=0, whole=whole))
        for index, user_key in enumerate(named):
            count = elements[user_key]
            if kind is ValueType.ZSET and ranks[user_key] != count:
                name = user_key.decode(errors="backslashreplace")
                message = f"the sorted set {name} has {count} members, but {ranks[user_key]} ranks: no manifest is written; build again"
                raise CountMismatchError(message, key=name, members=count, ranks=ranks[user_key])
            value = encode_big(kind, task.placement.version, count, task.expiry_ms) if count else b""  # of an upsert: its delete
            if task.base and value == before.get(meta_key(user_key), b""):
                continue  # as in the base, or in neither
            cut = Cut(SstFile(Path(folder) / f"{index}.sst"))
            cut.add(EntryBatch.of([meta_key(user_key)], [value], gone=task.delta and not value))
            yield task.upload(store, cut, sst_key(task.dataset, task.version, task.build_id, task.placement.tasks, attempt, index))


def _named(task: PartitionTask, counted: Counter[bytes]) -> set[bytes]:
    """The user keys of the metas to write; an upsert's build, or a delta's, deletes split keys whose rows all did."""
    deletes = task.deletes or task.base is not None
    return set(counted) | ({parse_key(meta).user_key for meta in task.placement.splits} if deletes else set())
