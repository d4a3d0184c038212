"""Transactions, compared with a real redis-server byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.oracle import Ports, both_servers, differences

LINES = """
MSET {t}a 1 {t}b 1 {t}c 1 {t}none 1
DEL {t}a {t}b {t}c {t}none
MULTI
SET {t}a 1
GET {t}a
INCR {t}a
EXEC
EXEC
DISCARD
MULTI
MULTI
SET {t}a 2
DISCARD
GET {t}a
MULTI
EXEC
MULTI
NOSUCH
SET {t}a 3
EXEC
GET {t}a
MULTI
SET {t}a
EXEC
MULTI
SET {t}a 4
GET {t}a x
EXEC
MULTI
INCR {t}a
HGET {t}a x
STRLEN {t}a
EXEC
MULTI
SET {t}a notanumber
INCR {t}a
GET {t}a
EXEC
MULTI
WATCH {t}a
PING
EXEC
WATCH
WATCH {t}a {t}b
UNWATCH
UNWATCH x
WATCH {t}a
2> SET {t}a 5
MULTI
SET {t}a 6
EXEC
GET {t}a
WATCH {t}a
SET {t}a 7
MULTI
GET {t}a
EXEC
WATCH {t}a
2> SET {t}a 8
UNWATCH
MULTI
GET {t}a
EXEC
WATCH {t}none
2> SET {t}none 1
MULTI
GET {t}none
EXEC
WATCH {t}none
2> DEL {t}none
MULTI
PING
EXEC
WATCH {t}none
2> DEL {t}none
MULTI
PING
EXEC
WATCH {t}a
2> SET {t}a 9
MULTI
DISCARD
MULTI
GET {t}a
EXEC
MULTI
SET {t}a 1
SET {u}b 1
EXEC
GET {t}a
MULTI
MGET {t}a {u}b
EXEC
MULTI
PING
ECHO x
TTL {t}a
EXPIRE {t}a 100
MSET {t}a 1 {t}b 2
MGET {t}a {t}b {t}c
EXEC
MULTI
SET {t}a 1
2> GET {t}b
2> SET {t}c 3
GET {t}c
EXEC
WATCH {t}a
2> SET {t}a 9
MULTI
GET {t}a
GET {u}b
NOSUCH
EXEC
MULTI
EXPIREAT {t}a x
EXPIREAT {t}a 9223372036854775807
EXEC
MULTI
SET {t}a 1
DISCARD x
EXEC
MULTI
SET {t}a 1
WATCH {t}a {u}b
EXEC
MULTI x
EXEC x
DISCARD x
RESET
MULTI
SET {t}a 1
RESET
EXEC
COMMAND INFO multi exec discard watch unwatch
""".splitlines()


@pytest.fixture(scope="module")
def servers() -> Iterator[Ports]:
    with TemporaryDirectory(prefix="redkv-") as folder, both_servers(Path(folder)) as ports:
        yield ports


@pytest.mark.parametrize("protocol", [2, 3])
def test_transactions_get_the_same_bytes(servers: Ports, protocol: int) -> None:
    found = differences(servers, protocol, LINES)
    assert not found, "\n" + "\n".join(found)
