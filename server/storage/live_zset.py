"""Writes of live big sorted sets: a member's score under its name, its rank under its score, the exact count in the meta value.

Rules:
- Members and ranks change in one turn, in one batch, so no reader and no crash finds one without the other.
- A set that loses its last member is removed as a key; what elements it still has then are the sweep's.
- Nothing is read here: callers bring the meta value and the scores that members have now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.format.keys import Kind, element_head, sortable_score
from pipeline.format.values import ValueType, element_rank, element_score, encode_big, expiry_ms
from server.storage.big import BigCollection
from server.storage.engine import Engine
from server.storage.live import Entry
from server.storage.packed_zset import Change


def entries_of(key: bytes, slot: int, scores: Mapping[bytes, float], version: int) -> Iterator[Entry]:
    """The elements of a whole set: two for each member."""
    member_head = element_head(Kind.ZSET_MEMBER, key, version, slot)
    rank_head = element_head(Kind.ZSET_RANK, key, version, slot)
    for member, score in scores.items():
        yield member_head + member, element_score(score)
        yield rank_head + sortable_score(score) + member, element_rank(score)


def change_big(engine: Engine, big: BigCollection, raw: bytes, current: Mapping[bytes, float], changes: Change) -> None:
    """Give members other scores, or take them away. `current` has the scores of those that are there; `raw` is the meta value."""
    key, slot = big.user_key, big.slot
    gone = sum(score is None for score in changes.values())
    count = big.count - gone + sum(member not in current for member in changes)
    if not count:
        engine.delete(key, slot)
        return
    memory = engine.live.ranks.by_key.get(key)
    if count != big.count:
        engine.write(key, slot, encode_big(ValueType.ZSET, big.version, count, expiry_ms(raw)))
    else:
        engine.touched(key)
    member_head, rank_head = big.head(Kind.ZSET_MEMBER), big.head(Kind.ZSET_RANK)
    put, delete = engine.live.put, engine.live.delete
    added = []
    for member, score in changes.items():
        before = current.get(member)
        if before is not None:
            delete(rank_head + sortable_score(before) + member)
        if score is None:
            delete(member_head + member)
        else:
            rank = sortable_score(score) + member
            put(member_head + member, element_score(score))
            put(rank_head + rank, element_rank(score))
            added.append(rank)
    if memory is not None and memory.version == big.version:
        memory.changed(added)
        engine.live.ranks.keep(key, memory)
