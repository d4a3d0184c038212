"""The contract's row-by-row functions, without a store, a disk or a network: what one core encodes and decodes in a second.

The build job encodes whole columns and is measured by itself; these functions are the model that it is checked against, and what
verification and tools use on single values. Each floor is about a third of what a 2-core cloud machine gave, so that a busy neighbour does
not miss it.
"""

from __future__ import annotations

from bench.harness import Result, finish, rate
from pipeline.format.digest import ContentDigest
from pipeline.format.keys import meta_key, parse_key
from pipeline.format.values import canonical_reply, decode_value, encode_hash, encode_string, encode_zset
from pipeline.template import Template

ROWS = 20_000  # a tenth of a second or more per run for every metric

Pairs = tuple[tuple[bytes, bytes], ...]


def rows() -> list[Pairs]:
    """Rows of five columns, as the build's own benchmark has them."""
    return [
        (
            (b"name", b"customer %d" % row),
            (b"city", b"town of %d" % (row % 977)),
            (b"age", b"%d" % (row % 97)),
            (b"spent", b"%.2f" % (row / 7)),
            (b"segment", b"s%d" % (row % 11)),
        )
        for row in range(ROWS)
    ]


def results() -> list[Result]:
    """All metrics."""
    pairs = rows()
    template = Template.parse("{person:${shard(16)}}_${id}")
    columns = [{"id": b"%d" % row} for row in range(ROWS)]
    user_keys = [template.render(one) for one in columns]
    keys = sorted(meta_key(one) for one in user_keys)
    hashes = [encode_hash(one) for one in pairs]
    members = [tuple((b"flight %d" % member, float(member * 7 % 13)) for member in range(5)) for _ in range(ROWS)]
    zsets = [encode_zset(one) for one in members]
    texts = [b"value of %d" % row for row in range(ROWS)]

    def digest() -> str:
        running = ContentDigest()
        running.update(keys, hashes)
        return running.hexdigest()

    return [
        rate("render a key with 16 shards", "rows/s", ROWS, lambda: [template.render(one) for one in columns], 80_000),
        rate("internal key of a user key", "rows/s", ROWS, lambda: [meta_key(one) for one in user_keys], 500_000),
        rate("parse an internal key", "rows/s", ROWS, lambda: [parse_key(one) for one in keys], 150_000),
        rate("encode a string", "rows/s", ROWS, lambda: [encode_string(one) for one in texts], 1_000_000),
        rate("encode a hash of 5 fields", "rows/s", ROWS, lambda: [encode_hash(one) for one in pairs], 90_000),
        rate("decode a hash of 5 fields", "rows/s", ROWS, lambda: [decode_value(one) for one in hashes], 17_000),
        rate("reply to HGETALL of 5 fields", "rows/s", ROWS, lambda: [canonical_reply(one) for one in hashes], 16_000),
        rate("encode a zset of 5 members", "rows/s", ROWS, lambda: [encode_zset(one) for one in members], 70_000),
        rate("decode a zset of 5 members", "rows/s", ROWS, lambda: [decode_value(one) for one in zsets], 22_000),
        rate("content digest of hashes", "entries/s", ROWS, digest, 550_000),
    ]


if __name__ == "__main__":
    finish("format", results())
