"""The changes of the desired state, as pure functions."""

import pytest

from pipeline.format.desired import Desired, DesiredVersion, Goal
from pipeline.format.errors import ConcurrentLoadError, PrefixOverlapError, SpecError, UsageError
from pipeline.load.documents import check_prefix, next_rebuild, with_goal, with_retained, with_version, without_version
from pipeline.settings import Keep

EMPTY = Desired(cluster="c", epoch=3)


def entry(version: str, goal: Goal = Goal.STAGED, build: str = "b") -> DesiredVersion:
    return DesiredVersion(version=version, build_id=build, manifest_key=f"k/{version}", manifest_sha256="0" * 64, goal=goal)


def loaded(*entries: DesiredVersion) -> Desired:
    desired = EMPTY
    for one in entries:
        desired = with_version("person", "{person}_", one)(desired)
    return desired


def goals(desired: Desired) -> dict[str, str]:
    return {one.version: str(one.goal) for one in desired.datasets["person"].versions}


def test_a_new_version_registers_its_dataset() -> None:
    desired = with_version("person", "{person}_", entry("2026-11-22"))(EMPTY)
    assert desired.datasets["person"].prefix == "{person}_"
    assert goals(desired) == {"2026-11-22": "staged"}


def test_versions_stand_in_the_order_of_time_whenever_they_came() -> None:
    assert list(goals(loaded(entry("2026-11-22.10"), entry("2026-11-22.2"), entry("2026-11-21")))) == [
        "2026-11-21",
        "2026-11-22.2",
        "2026-11-22.10",
    ]


def test_the_same_version_again_changes_nothing() -> None:
    ready = with_goal("person", "2026-11-22", Goal.READY)(loaded(entry("2026-11-22")))
    assert with_version("person", "{person}_", entry("2026-11-22"))(ready) == ready


def test_another_build_of_a_version_starts_from_staging() -> None:
    ready = with_goal("person", "2026-11-22", Goal.READY)(loaded(entry("2026-11-22")))
    again = with_version("person", "{person}_", entry("2026-11-22", build="other"))(ready)
    assert goals(again) == {"2026-11-22": "staged"}
    assert again.datasets["person"].versions[0].build_id == "other"


def test_activation_retires_the_version_before() -> None:
    first = with_goal("person", "2026-11-21", Goal.ACTIVE)(loaded(entry("2026-11-21"), entry("2026-11-22", Goal.READY)))
    second = with_goal("person", "2026-11-22", Goal.ACTIVE)(first)
    assert goals(second) == {"2026-11-21": "retired", "2026-11-22": "active"}


def test_a_goal_never_moves_back_so_that_a_slower_load_of_the_same_version_takes_nothing_away() -> None:
    active = with_goal("person", "2026-11-22", Goal.ACTIVE)(loaded(entry("2026-11-22")))
    for goal in (Goal.STAGED, Goal.READY, Goal.ACTIVE):
        assert with_goal("person", "2026-11-22", goal)(active) == active


def test_a_version_is_not_put_over_a_newer_one_that_became_active_in_the_meantime() -> None:
    both = loaded(entry("2026-11-21", Goal.READY), entry("2026-11-22", Goal.ACTIVE))
    written = both.model_copy(update={"written_by": "ann@host:7", "written_at_ms": 1_795_000_000_000})
    with pytest.raises(ConcurrentLoadError, match=r"2026-11-22 became active in the meantime \(epoch 3, written by ann@host:7 at 2026-"):
        with_goal("person", "2026-11-21", Goal.ACTIVE)(written)


def test_a_goal_for_a_version_that_was_withdrawn_is_refused() -> None:
    with pytest.raises(ConcurrentLoadError, match="no longer wanted"):
        with_goal("person", "2026-11-22", Goal.ACTIVE)(EMPTY)


def test_another_build_never_takes_the_place_of_one_that_clients_read() -> None:
    active = with_goal("person", "2026-11-22.2", Goal.ACTIVE)(loaded(entry("2026-11-22.2")))
    with pytest.raises(UsageError, match=r"e\.g\. 2026-11-22\.3"):
        with_version("person", "{person}_", entry("2026-11-22.2", build="other"))(active)


@pytest.mark.parametrize("goal", [Goal.ACTIVE, Goal.RETIRED])
def test_what_clients_read_or_read_before_is_never_withdrawn(goal: Goal) -> None:
    desired = loaded(entry("2026-11-21", goal), entry("2026-11-22"))
    assert goals(without_version("person", "2026-11-21")(desired)) == goals(desired)
    assert goals(without_version("person", "2026-11-22")(desired)) == {"2026-11-21": str(goal)}


def test_the_id_of_the_next_rebuild() -> None:
    assert [next_rebuild(one) for one in ("2026-11-22", "2026-11-22.2", "2026-11-22T06")] == [
        "2026-11-22.2",
        "2026-11-22.3",
        "2026-11-22T06.2",
    ]


def test_the_dataset_goes_with_its_last_version() -> None:
    assert without_version("person", "2026-11-22")(loaded(entry("2026-11-22"))).datasets == {}
    assert without_version("person", "2026-11-22")(EMPTY) == EMPTY


def test_only_the_newest_retired_versions_stay() -> None:
    retired = loaded(*(entry(f"2026-11-{day}", Goal.RETIRED) for day in (18, 19, 20)), entry("2026-11-21", Goal.ACTIVE))
    assert goals(with_retained("person", Keep(versions=1), 0)(retired)) == {"2026-11-20": "retired", "2026-11-21": "active"}


def test_a_version_that_was_overtaken_before_it_was_active_goes() -> None:
    overtaken = loaded(entry("2026-11-20", Goal.READY), entry("2026-11-21", Goal.ACTIVE), entry("2026-11-22", Goal.STAGED))
    assert goals(with_retained("person", Keep(versions=1), 0)(overtaken)) == {"2026-11-21": "active", "2026-11-22": "staged"}


@pytest.mark.parametrize("prefix", ["{person}_", "{person}_1", "{per", "{"])
def test_overlapping_prefixes_are_refused_with_both_names(prefix: str) -> None:
    with pytest.raises(PrefixOverlapError, match="of dataset person") as refused:
        check_prefix(loaded(entry("2026-11-22")), "other", prefix)
    assert refused.value.exit_code == 2


def test_a_dataset_keeps_its_prefix() -> None:
    with pytest.raises(SpecError, match="keep the prefix"):
        check_prefix(loaded(entry("2026-11-22")), "person", "people:")
    check_prefix(loaded(entry("2026-11-22")), "person", "{person}_")
    check_prefix(loaded(entry("2026-11-22")), "other", "{person:")
