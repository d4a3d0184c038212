"""The changes of the desired state, as pure functions."""

import pytest

from pipeline.format.desired import Desired, DesiredVersion, Goal
from pipeline.format.errors import PrefixOverlapError, SpecError, UsageError
from pipeline.load.documents import check_prefix, with_goal, with_retained, with_version, without_version

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


def test_a_goal_for_a_version_that_was_withdrawn_is_refused() -> None:
    with pytest.raises(UsageError, match="no longer wanted"):
        with_goal("person", "2026-11-22", Goal.ACTIVE)(EMPTY)


def test_the_dataset_goes_with_its_last_version() -> None:
    assert without_version("person", "2026-11-22")(loaded(entry("2026-11-22"))).datasets == {}
    assert without_version("person", "2026-11-22")(EMPTY) == EMPTY


def test_only_the_newest_retired_versions_stay() -> None:
    retired = loaded(*(entry(f"2026-11-{day}", Goal.RETIRED) for day in (18, 19, 20)), entry("2026-11-21", Goal.ACTIVE))
    assert goals(with_retained("person", 1)(retired)) == {"2026-11-20": "retired", "2026-11-21": "active"}


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
