"""The desired state: one active version per dataset at most, prefixes that never overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.format.desired import Desired, DesiredDataset, DesiredVersion, Goal, overlapping
from tests.support import examples


def version(name: str, goal: Goal) -> DesiredVersion:
    return DesiredVersion(version=name, build_id="b", manifest_key="m", manifest_sha256="0" * 64, goal=goal)


def desired(**datasets: DesiredDataset) -> Desired:
    return Desired(cluster="local", epoch=1, datasets=datasets)


def test_lookups() -> None:
    person = examples.desired().datasets["person"]
    assert person.active == person.versions[1]
    assert person.find("2026-11-21") == person.versions[0]
    assert person.find("2026-11-20") is None
    assert DesiredDataset(prefix="p").active is None


def test_two_active_versions_are_refused() -> None:
    versions = (version("2026-11-21", Goal.ACTIVE), version("2026-11-22", Goal.ACTIVE))
    with pytest.raises(ValidationError, match="dataset person has two active versions"):
        desired(person=DesiredDataset(prefix="p", versions=versions))


def test_a_version_listed_twice_is_refused() -> None:
    versions = (version("2026-11-21", Goal.RETIRED), version("2026-11-21", Goal.READY))
    with pytest.raises(ValidationError, match="dataset person lists a version twice"):
        desired(person=DesiredDataset(prefix="p", versions=versions))


def test_overlapping_prefixes_are_refused_and_named() -> None:
    with pytest.raises(ValidationError, match="prefix 'fl' of a overlaps 'flight:' of b"):
        desired(a=DesiredDataset(prefix="fl"), b=DesiredDataset(prefix="flight:"))


TEXTS = st.text(alphabet="ab", max_size=4)


@given(TEXTS, TEXTS, TEXTS)
def test_overlapping_is_that_a_key_can_start_with_both(left: str, right: str, rest: str) -> None:
    assert overlapping(left, right) == overlapping(right, left)
    if (left + rest).startswith(right):
        assert overlapping(left, right)
    if not overlapping(left, right):
        assert not (left + rest).startswith(right)
