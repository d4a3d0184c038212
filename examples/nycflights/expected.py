"""What Redis must answer for every row, worked out from the CSV files in plain Python, without any code of the pipeline.

A value is `bytes` for a string, a `dict` for a hash, and a list of (member, score) in rank order for a sorted set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from examples.nycflights import data

Value = bytes | dict[bytes, bytes] | list[tuple[bytes, float]]
Pair = tuple[bytes, Value]

DATASETS = ("airport", "plane", "flight", "route")


class Expected:
    """The expected keys and values of each dataset; counts rows as it reads them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.rows: dict[str, int] = {}

    def pairs(self, dataset: str, day: str) -> Iterator[Pair]:
        """All keys of a dataset with their values; only the fleet differs by day."""
        match dataset:
            case "airport":
                return self._airports()
            case "plane":
                return self._planes(day)
            case "flight":
                return self._flights()
            case _:
                return self._routes()

    def _rows(self, dataset: str, file: str) -> Iterator[dict[str, str]]:
        self.rows[dataset] = 0
        for row in data.rows(self._folder / file):
            self.rows[dataset] += 1
            yield row

    def _airports(self) -> Iterator[Pair]:
        for row in self._rows("airport", data.AIRPORTS):
            yield f"airport:{row['faa']}".encode(), row["name"].encode()

    def _planes(self, day: str) -> Iterator[Pair]:
        for row in self._rows("plane", data.planes_file(day)):
            yield f"{{plane}}_{row['tailnum']}".encode(), _fields(row, without={"tailnum"})

    def _flights(self) -> Iterator[Pair]:
        seen: set[bytes] = set()
        for row in self._rows("flight", data.FLIGHTS):
            key = f"flight:{_flight(row, ':')}".encode()
            if key in seen:
                raise ValueError(f"two flights are {key!r}: hour, carrier and number do not tell them apart")
            seen.add(key)
            yield key, _fields(row, without={"time_hour", "carrier", "flight"})

    def _routes(self) -> Iterator[Pair]:
        routes: dict[bytes, list[tuple[bytes, float]]] = {}
        for row in self._rows("route", data.FLIGHTS):
            if row["arr_delay"] != data.MISSING:  # cancelled
                members = routes.setdefault(f"route:{row['origin']}-{row['dest']}".encode(), [])
                members.append((_flight(row, "/").encode(), float(row["arr_delay"])))
        for key, members in routes.items():
            yield key, sorted(members, key=lambda one: (one[1], one[0]))


def _flight(row: dict[str, str], separator: str) -> str:
    return separator.join((row["time_hour"], row["carrier"], row["flight"]))


def _fields(row: dict[str, str], without: set[str]) -> dict[bytes, bytes]:
    return {name.encode(): text.encode() for name, text in row.items() if name not in without and text != data.MISSING}
