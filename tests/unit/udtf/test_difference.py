"""What differs between two versions, batch by batch; and which task an entry of the older one belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.format.keys import Kind, element_head, element_version, meta_key, sortable_score
from pipeline.format.values import ValueType
from udtf.base import Entries
from udtf.difference import Difference, apart
from udtf.entries import EntryBatch
from udtf.placement import ELEMENTS_OF, Placement

CONTENT = st.dictionaries(st.integers(0, 40), st.integers(0, 2), max_size=30)
VERSION = element_version("2026-11-22")


def cut(content: dict[int, int], size: int) -> Iterator[Entries]:
    ordered = sorted((meta_key(b"%03d" % key, 5), b"%d" % value) for key, value in content.items())
    for first in range(0, len(ordered), size):
        keys, values = zip(*ordered[first : first + size], strict=True)
        yield keys, values


@given(before=CONTENT, after=CONTENT, sizes=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_what_differs_makes_one_of_the_other(before: dict[int, int], after: dict[int, int], sizes: tuple[int, int]) -> None:
    difference = Difference(cut(before, sizes[0]))
    puts: list[tuple[bytes, bytes]] = []
    gone: list[bytes] = []
    for part in difference.of(EntryBatch.of(*both) for both in cut(after, sizes[1])):
        if part.puts:
            puts += zip(part.puts.keys.to_pylist(), part.puts.values.to_pylist(), strict=True)
        if part.gone:
            assert part.gone.is_delete.all()
            gone += part.gone.keys.to_pylist()
    assert [key for key, _ in puts] == sorted({key for key, _ in puts})
    assert gone == sorted(set(gone))
    named = {meta_key(b"%03d" % key, 5): key for key in range(41)}
    assert {named[key]: int(value) for key, value in puts} == {key: value for key, value in after.items() if before.get(key) != value}
    assert {named[key] for key in gone} == before.keys() - after.keys()
    assert (difference.whole.keys, difference.whole.entries) == (len(after), len(after))
    assert {named[key] for key, _ in difference.unchanged} <= {key for key, value in after.items() if before.get(key) == value}


def test_deletes_of_a_table_of_changes_stand_apart() -> None:
    keys = [meta_key(b"%d" % one, 5) for one in range(4)]
    parts = list(apart([EntryBatch.of(keys, [b"a", b"", b"c", b""]), EntryBatch.of(keys[:1], [b""]), EntryBatch.of(keys[:1], [b"x"])]))
    assert [(one.puts and one.puts.keys.to_pylist(), one.gone and one.gone.keys.to_pylist()) for one in parts] == [
        ([keys[0], keys[2]], [keys[1], keys[3]]),
        (None, [keys[0]]),
        ([keys[0]], None),
    ]


USER_KEYS = [b"a", b"a\x00", b"a\x00b", b"aa", b"b", b"ba", b"c"]
KINDS = st.sampled_from([ValueType.STRING, ValueType.HASH, ValueType.ZSET])


def entries(kind: ValueType, slot: int) -> list[bytes]:
    """All entries that keys may have, of two element versions."""
    found = [meta_key(key, slot) for key in USER_KEYS]
    for key in USER_KEYS:
        for one in ELEMENTS_OF[kind]:
            details = [sortable_score(score) + b"m" for score in (-1, 1)] if one is Kind.ZSET_RANK else [b"", b"f", b"m"]
            found += [element_head(one, key, version, slot) + detail for version in (VERSION, VERSION ^ 1) for detail in details]
    return sorted(found)


@given(kind=KINDS, data=st.data())
def test_every_entry_is_one_tasks_and_lies_in_its_ranges(kind: ValueType, data: st.DataObject) -> None:
    all_entries = [entry for slot in (5, 6) for entry in entries(kind, slot)]
    metas = [entry for entry in all_entries if entry[2] == Kind.META]
    splits = tuple(sorted(data.draw(st.sets(st.sampled_from(metas), max_size=2)))) if kind is not ValueType.STRING else ()
    unplaced = Placement(kind, VERSION, splits=splits)
    elements = [entry for entry in all_entries if entry[2] != Kind.META and unplaced.owner(entry) is not None]
    heads = [meta[3:].replace(b"\x00", b"\x00\xff") + b"\x00\x00" for meta in splits]
    of_splits = [entry for entry in elements if any(entry[3:].startswith(head) for head in heads)]
    inner = st.sampled_from([*metas, *of_splits, b"\x00\x05", b"\x00\x06"])
    placement = Placement(kind, VERSION, tuple(sorted(data.draw(st.sets(inner, max_size=4)))), splits)
    for entry in all_entries:
        owner = placement.owner(entry)
        if owner is None:
            assert entry in splits
            continue
        assert any(first <= entry and (end is None or entry < end) for first, end in placement.ranges_of(owner))
    for task in range(placement.tasks):
        ranges = placement.ranges_of(task)
        assert all(one[1] is not None and one[1] <= other[0] for one, other in pairwise(ranges))
        if placement.is_plain(task):
            [(first, end)] = ranges
            assert {placement.owner(entry) for entry in all_entries if first <= entry and (end is None or entry < end)} <= {task}
