"""What is kept, on nodes and in the store, and the pace of what goes."""

from __future__ import annotations

from pipeline.format.desired import BadVersion, DesiredDataset, DesiredVersion, Goal
from pipeline.load.removal import Pace
from pipeline.load.retention import StoredVersion, surplus_in_store, surplus_on_nodes
from pipeline.settings import Keep

HOUR_MS = 3_600_000
NOW_MS = 1000 * 24 * HOUR_MS
V = [f"2026-11-{day}" for day in range(10, 20)]


def entry(version: str, goal: Goal, hours_ago: float | None = None) -> DesiredVersion:
    retired = None if hours_ago is None else NOW_MS - int(hours_ago * HOUR_MS)
    return DesiredVersion(version=version, build_id="b", manifest_key="k", manifest_sha256="0", goal=goal, retired_at_ms=retired)


def dataset(*versions: DesiredVersion, bad: str = "") -> DesiredDataset:
    marks = (BadVersion(version=bad, build_id="b", by="ann", at_ms=1),) if bad else ()
    return DesiredDataset(prefix="p:", versions=versions, bad=marks)


def test_the_newest_retirement_stays_not_the_newest_version() -> None:
    rolled_back = dataset(entry(V[0], Goal.RETIRED, 1), entry(V[1], Goal.RETIRED, 30), entry(V[2], Goal.ACTIVE))
    assert surplus_on_nodes(rolled_back, Keep(versions=1), NOW_MS) == {V[1]}


def test_a_bad_one_goes_first_and_takes_nobodys_place() -> None:
    versions = (entry(V[0], Goal.RETIRED, 50), entry(V[1], Goal.RETIRED, 1), entry(V[2], Goal.ACTIVE))
    assert surplus_on_nodes(dataset(*versions, bad=V[1]), Keep(versions=1), NOW_MS) == {V[1]}
    assert surplus_on_nodes(dataset(*versions, bad=V[1]), Keep(versions=1, delay_hours=2), NOW_MS) == set()


def test_by_number_or_by_age_and_never_before_the_delay() -> None:
    held = dataset(*(entry(V[age], Goal.RETIRED, hours) for age, hours in enumerate((100, 50, 30, 10))), entry(V[4], Goal.ACTIVE))
    assert surplus_on_nodes(held, Keep(versions=1), NOW_MS) == {V[0], V[1], V[2]}
    assert surplus_on_nodes(held, Keep(versions=1, days=2), NOW_MS) == {V[0], V[1]}
    assert surplus_on_nodes(held, Keep(versions=0, days=1), NOW_MS) == {V[0], V[1], V[2]}
    assert surplus_on_nodes(held, Keep(versions=1, delay_hours=60), NOW_MS) == {V[0]}
    assert surplus_on_nodes(held, Keep(), NOW_MS) == set()


def test_what_was_overtaken_goes_and_what_is_newer_stays() -> None:
    held = dataset(entry(V[0], Goal.READY), entry(V[1], Goal.ACTIVE), entry(V[2], Goal.STAGED))
    assert surplus_on_nodes(held, Keep(versions=1, delay_hours=9), NOW_MS) == {V[0]}
    assert surplus_on_nodes(dataset(entry(V[0], Goal.READY)), Keep(versions=0), NOW_MS) == set()


def test_what_is_brought_back_stays_until_then_and_takes_its_place_as_before() -> None:
    brought = dataset(entry(V[0], Goal.STAGED, 90), entry(V[1], Goal.READY, 50), entry(V[2], Goal.RETIRED, 40), entry(V[3], Goal.ACTIVE))
    assert surplus_on_nodes(brought, Keep(versions=1), NOW_MS) == set()
    assert surplus_on_nodes(brought, Keep(versions=0), NOW_MS) == {V[2]}
    bad = brought.model_copy(update={"bad": dataset(bad=V[1]).bad})
    assert surplus_on_nodes(bad, Keep(versions=1), NOW_MS) == {V[1]}


def test_nothing_retired_of_an_upsert_stays() -> None:
    held = dataset(entry(V[0], Goal.RETIRED, 0), entry(V[1], Goal.ACTIVE)).model_copy(update={"mode": "upsert"})
    assert surplus_on_nodes(held, Keep(versions=5), NOW_MS) == {V[0]}


def test_the_store_keeps_what_clusters_hold_whatever_its_age() -> None:
    stored = [StoredVersion("person", version, NOW_MS - (10 - place) * 24 * HOUR_MS) for place, version in enumerate(V[:5])]
    wanted = {("person", V[0]), ("other", V[1])}
    assert [one.version for one in surplus_in_store(stored, wanted, Keep(versions=2), NOW_MS)] == [V[1], V[2]]
    assert [one.version for one in surplus_in_store(stored, wanted, Keep(days=8.5), NOW_MS)] == [V[1]]
    assert surplus_in_store(stored, wanted, Keep(versions=0, delay_hours=24 * 11), NOW_MS) == []
    assert surplus_in_store(stored, set(), Keep(delay_hours=0), NOW_MS) == []


def test_the_store_keeps_what_a_kept_delta_lies_on() -> None:
    stored = [StoredVersion("person", version, 0) for version in V[:5]]
    lies_on = {V[1]: V[:1], V[2]: [V[1], V[0]], V[4]: [V[3]]}

    def surplus(versions: int) -> list[str]:
        found = surplus_in_store(stored, set(), Keep(versions=versions), NOW_MS, lambda one: lies_on.get(one.version, []))
        return [one.version for one in found]

    assert [surplus(count) for count in (5, 3, 2, 1, 0)] == [[], [], V[:3], V[:3], V[:5]]
    assert surplus_in_store(stored, {("person", V[2])}, Keep(versions=1), NOW_MS, lambda one: lies_on.get(one.version, [])) == []


def test_deletes_keep_their_pace() -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(10, clock=lambda: now[0], sleep=sleep)
    for _ in range(11):
        pace.wait()
    assert abs(sum(slept) - 1.0) < 1e-9
    now[0] += 60
    pace.wait()
    assert abs(sum(slept) - 1.0) < 1e-9  # a silence is not saved up for more than one
