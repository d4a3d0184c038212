"""The example's parts that need no cluster: its specs are valid, its data is what its documents say, its expectations are the rows."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from examples.nycflights import data
from examples.nycflights.demo import SPECS
from examples.nycflights.expected import DATASETS, Expected
from pipeline.format.desired import Desired, DesiredDataset
from pipeline.spec import load_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("csv")
    data.extract(place)
    return place


def test_the_specs_are_valid_and_their_prefixes_do_not_overlap() -> None:
    specs = {name: load_spec(SPECS / f"{name}.yaml") for name in DATASETS}
    assert all(spec.dataset == name for name, spec in specs.items())
    Desired(cluster="local", epoch=1, datasets={name: DesiredDataset(prefix=spec.prefix) for name, spec in specs.items()})


def test_expected_keys_are_those_of_the_specs_templates(folder: Path) -> None:
    expected = Expected(folder)
    for name in DATASETS:
        prefix = load_spec(SPECS / f"{name}.yaml").prefix.encode()
        assert all(key.startswith(prefix) for key, _ in expected.pairs(name, data.DAYS[0]))


def test_a_plane_of_both_days(folder: Path) -> None:
    expected = Expected(folder)
    first, second = (dict(expected.pairs("plane", day)) for day in data.DAYS)
    plane = {
        b"year": b"1999",
        b"type": b"Fixed wing multi engine",
        b"manufacturer": b"BOEING",
        b"model": b"737-824",
        b"engines": b"2",
        b"seats": b"149",
        b"engine": b"Turbo-fan",
    }
    assert first[b"{plane}_N14228"] == plane
    assert second[b"{plane}_N14228"] == plane | {b"seats": b"150"}
    assert len(first) == 3322
    assert len(second.keys() - first.keys()) == data.NEW_AIRCRAFT
    assert len(first.keys() - second.keys()) == 475


def test_every_flight_has_a_key_of_its_own_and_flies_a_route_unless_cancelled(folder: Path) -> None:
    expected = Expected(folder)
    keys = {key for key, _ in expected.pairs("flight", data.DAYS[0])}
    routes = dict(expected.pairs("route", data.DAYS[0]))
    assert len(keys) == expected.rows["flight"] == expected.rows["route"] == 336_776
    assert len(routes) == 223
    assert sum(len(members) for members in routes.values()) == 336_776 - 9_430


def test_the_members_of_a_route_are_in_rank_order(folder: Path) -> None:
    members = dict(Expected(folder).pairs("route", data.DAYS[0]))[b"route:JFK-LAX"]
    assert isinstance(members, list)
    assert len(members) == 11_159
    assert members[0][1] == min(score for _, score in members)
    assert all((one[1], one[0]) < (other[1], other[0]) for one, other in pairwise(members))


def test_two_flights_of_one_name_are_found(tmp_path: Path) -> None:
    line = "2013-01-01T10:00:00Z,UA,1545\n"
    (tmp_path / data.FLIGHTS).write_text("time_hour,carrier,flight\n" + 2 * line)
    with pytest.raises(ValueError, match="two flights are"):
        list(Expected(tmp_path).pairs("flight", data.DAYS[0]))
