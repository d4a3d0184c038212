"""Which version clients may go back to, and what a swap changes: pure functions of the desired state."""

from __future__ import annotations

import pytest

from pipeline.format.desired import BadVersion, Desired, DesiredDataset, DesiredVersion, Goal
from pipeline.format.errors import BadVersionError, ConcurrentLoadError, NoWayBackError, UsageError
from pipeline.load.documents import with_goal, with_version
from pipeline.load.wayback import BAD_MARKS_MAX, brought, came_by_rollback, cancelled, choose, marked, previous, stamped, swapped

V1, V2, V3, V4 = "2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24"


def entry(version: str, goal: Goal, retired_at_ms: int | None = None, build: str = "b") -> DesiredVersion:
    return DesiredVersion(version=version, build_id=build, manifest_key="k", manifest_sha256="0", goal=goal, retired_at_ms=retired_at_ms)


def bad(version: str) -> BadVersion:
    return BadVersion(version=version, build_id="b", by="ann", at_ms=1)


def desired(*versions: DesiredVersion, marks: tuple[BadVersion, ...] = (), mode: str = "replace") -> Desired:
    dataset = DesiredDataset.model_validate({"prefix": "p:", "mode": mode, "versions": versions, "bad": marks})
    return Desired(cluster="c", epoch=1, datasets={"person": dataset})


def goals(document: Desired) -> dict[str, str]:
    return {one.version: str(one.goal) for one in document.datasets["person"].versions}


BACK = (entry(V1, Goal.RETIRED, 10), entry(V2, Goal.RETIRED, 20), entry(V3, Goal.ACTIVE))


def test_a_rollback_goes_to_the_newest_good_one_before_the_active() -> None:
    assert choose(desired(*BACK), "person", None) == BACK[1]
    assert choose(desired(*BACK, marks=(bad(V2),)), "person", None) == BACK[0]
    newer = (BACK[0], entry(V2, Goal.ACTIVE), entry(V3, Goal.RETIRED, 30))
    assert choose(desired(*newer), "person", None) == BACK[0]


@pytest.mark.parametrize(
    ("document", "version", "message"),
    [
        (desired(entry(V3, Goal.ACTIVE)), None, "person reads 2026-11-23, and nodes hold no good version before it"),
        (desired(entry(V1, Goal.STAGED)), None, "reads none yet"),
        (desired(entry(V1, Goal.READY), entry(V3, Goal.ACTIVE)), V1, "is being loaded, clients never read it"),
        (desired(*BACK, mode="upsert"), None, "mode upsert"),
        (desired(*BACK, mode="upsert"), V2, "mode upsert"),
    ],
)
def test_what_is_no_way_back_is_refused_by_name(document: Desired, version: str | None, message: str) -> None:
    with pytest.raises(NoWayBackError, match=message):
        choose(document, "person", version)


def test_a_version_that_is_not_there_is_none_and_a_dataset_that_is_not_there_an_error() -> None:
    assert choose(desired(*BACK), "person", "2026-11-01") is None
    with pytest.raises(UsageError, match="has no dataset 'nobody': it has person"):
        choose(desired(*BACK), "nobody", None)
    assert previous(desired(*BACK, mode="upsert").datasets["person"]) is None


def test_a_swap_retires_what_was_read_and_marks_it_in_the_same_document() -> None:
    after = swapped(desired(*BACK), "person", V1, V3, bad(V3))
    assert goals(after) == {V1: "active", V2: "retired", V3: "retired"}
    assert after.datasets["person"].bad == (bad(V3),)
    assert swapped(after, "person", V1, V3) == after  # a repetition changes nothing


def test_a_swap_of_something_else_than_was_read_is_refused() -> None:
    with pytest.raises(ConcurrentLoadError, match=f"clients read {V3} by now"):
        swapped(desired(*BACK), "person", V1, V2)
    with pytest.raises(ConcurrentLoadError, match="nodes are not to hold it any more"):
        swapped(desired(*BACK[1:]), "person", V1, V3)


def test_no_swap_and_nothing_brought_onto_a_bad_one() -> None:
    document = desired(*BACK, marks=(bad(V1),))
    with pytest.raises(BadVersionError, match="was marked bad by ann"):
        swapped(document, "person", V1, V3)
    with pytest.raises(BadVersionError, match="was marked bad by ann"):
        brought(document, "person", entry(V1, Goal.READY))


def test_what_is_brought_never_goes_back_and_is_never_another_build() -> None:
    assert goals(brought(desired(*BACK), "person", entry(V1, Goal.STAGED))) == {V1: "staged", V2: "retired", V3: "active"}
    ready = desired(entry(V1, Goal.READY), *BACK[1:])
    assert brought(ready, "person", entry(V1, Goal.STAGED)) == ready
    with pytest.raises(ConcurrentLoadError, match="another build"):
        brought(desired(*BACK), "person", entry(V1, Goal.STAGED, build="other"))


def test_marks_stay_without_their_version_and_are_bounded() -> None:
    document = desired(*BACK)
    for number in range(BAD_MARKS_MAX + 5):
        document = marked(document, "person", bad(f"2026-10-01.{number + 2}"))
    marks = document.datasets["person"].bad
    assert (len(marks), marks[-1].version) == (BAD_MARKS_MAX, f"2026-10-01.{BAD_MARKS_MAX + 6}")
    assert marked(document, "person", marks[0]) == document
    with pytest.raises(NoWayBackError, match="clients read"):
        marked(document, "person", bad(V3))


def test_the_moment_of_retirement_is_stamped_once_and_taken_off_again() -> None:
    before = desired(*BACK)
    after = stamped(before, swapped(before, "person", V1, V3), 99)
    assert [one.retired_at_ms for one in after.datasets["person"].versions] == [None, 20, 99]
    assert came_by_rollback(after.datasets["person"])
    assert not came_by_rollback(before.datasets["person"])


@pytest.mark.parametrize("goal", [Goal.STAGED, Goal.READY])
def test_a_version_that_is_brought_back_stays_the_way_back(goal: Goal) -> None:
    before = desired(*BACK)
    brought_2 = stamped(before, brought(before, "person", entry(V2, goal, 20)), 99)
    found = choose(brought_2, "person", None)
    assert found == entry(V2, goal, 20)
    assert [choose(brought_2, "person", V2), previous(brought_2.datasets["person"])] == [found, found]
    assert goals(swapped(brought_2, "person", V2, V3)) == {V1: "retired", V2: "active", V3: "retired"}


def test_what_is_brought_back_is_retired_as_before_when_that_is_cancelled_or_a_newer_one_is_activated() -> None:
    document = desired(BACK[0], entry(V2, Goal.STAGED, 20), BACK[2], entry(V4, Goal.READY))
    assert stamped(document, cancelled(document, "person", V2), 99) == desired(*BACK, entry(V4, Goal.READY))
    after = stamped(document, with_goal("person", V4, Goal.ACTIVE)(document), 99)
    assert after == desired(*BACK[:2], entry(V3, Goal.RETIRED, 99), entry(V4, Goal.ACTIVE))
    newer = desired(BACK[0], entry(V2, Goal.ACTIVE), entry(V3, Goal.STAGED, 30))
    assert goals(swapped(newer, "person", V1, V2)) == {V1: "active", V2: "retired", V3: "staged"}  # its load goes on


def test_a_load_of_a_way_back_leaves_it_one() -> None:
    again = with_version("person", "p:", entry(V2, Goal.STAGED))(desired(*BACK))
    assert choose(again, "person", None) == entry(V2, Goal.STAGED, 20)
