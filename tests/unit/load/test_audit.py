"""What a change of the desired state did, told by comparing the documents."""

from __future__ import annotations

from pipeline.format.desired import BadVersion, Desired, DesiredDataset, DesiredVersion, Goal
from pipeline.load.audit import author, deeds

V1, V2 = "2026-11-21", "2026-11-22"


def document(epoch: int, bad: tuple[str, ...] = (), /, build: str = "b", **goals: Goal) -> Desired:
    """Versions by name: v1, v2."""
    ids = {"v1": V1, "v2": V2}
    versions = tuple(
        DesiredVersion(version=ids[name], build_id=build, manifest_key="k", manifest_sha256="0", goal=goal) for name, goal in goals.items()
    )
    marks = tuple(BadVersion(version=one, build_id=build, by="ann", at_ms=1) for one in bad)
    dataset = {"person": DesiredDataset(prefix="p:", versions=versions, bad=marks)} if versions else {}
    return Desired(cluster="c", epoch=epoch, datasets=dataset)


def told(before: Desired, after: Desired) -> list[tuple[str, str | None, str | None]]:
    return [(str(one.action), one.version, one.before) for one in deeds(before, after, "ann", 7)]


EMPTY = document(1)


def test_a_load_from_its_begin_to_its_end() -> None:
    staged = document(2, v1=Goal.STAGED)
    assert told(EMPTY, staged) == [("load", V1, None)]
    ready = document(3, v1=Goal.READY)
    assert told(staged, ready) == []
    active = document(4, v1=Goal.ACTIVE)
    assert told(ready, active) == [("activate", V1, None)]
    assert told(active, document(5, v1=Goal.ACTIVE, v2=Goal.STAGED)) == [("load", V2, None)]
    assert told(document(5, v1=Goal.ACTIVE, v2=Goal.READY), document(6, v1=Goal.RETIRED, v2=Goal.ACTIVE)) == [("activate", V2, V1)]


def test_back_and_forth_and_away() -> None:
    new = document(6, v1=Goal.RETIRED, v2=Goal.ACTIVE)
    old = document(7, (V2,), v1=Goal.ACTIVE, v2=Goal.RETIRED)
    assert told(new, old) == [("rollback", V1, V2), ("mark-bad", V2, None)]
    assert told(document(7, v1=Goal.ACTIVE, v2=Goal.RETIRED), new) == [("activate", V2, V1)]
    assert told(old, document(8, (V2,), v1=Goal.ACTIVE)) == [("retire", V2, None)]
    assert told(document(8, v1=Goal.ACTIVE, v2=Goal.READY), document(9, v1=Goal.ACTIVE)) == [("cancel", V2, None)]
    assert told(document(8, v1=Goal.READY), EMPTY) == [("cancel", V1, None)]


def test_another_build_and_a_version_that_is_brought_again_are_loads() -> None:
    assert told(document(2, v1=Goal.STAGED), document(3, v1=Goal.STAGED, build="other")) == [("load", V1, None)]
    assert told(document(2, v1=Goal.RETIRED, v2=Goal.ACTIVE), document(3, v1=Goal.STAGED, v2=Goal.ACTIVE)) == [("load", V1, None)]


def test_a_way_back_that_is_brought_is_cancelled_or_retired() -> None:
    staged = document(7, v1=Goal.STAGED, v2=Goal.ACTIVE)
    assert told(staged, document(8, v1=Goal.RETIRED, v2=Goal.ACTIVE)) == [("cancel", V1, None)]
    (one, two) = staged.datasets["person"].versions
    brought = {"person": DesiredDataset(prefix="p:", versions=(one.model_copy(update={"retired_at_ms": 5}), two))}
    assert told(staged.model_copy(update={"datasets": brought}), document(8, v2=Goal.ACTIVE)) == [("retire", V1, None)]


def test_records_of_one_write_have_ids_of_their_own_that_sort_by_time() -> None:
    records = deeds(document(6, v1=Goal.RETIRED, v2=Goal.ACTIVE), document(7, (V2,), v1=Goal.ACTIVE, v2=Goal.RETIRED), "ann", 7, "it broke")
    assert [one.id for one in records] == ["0000000000007-e7-0", "0000000000007-e7-1"]
    assert {(one.by, one.epoch, one.detail) for one in records} == {("ann", 7, "it broke")}


def test_who_acts_is_user_and_host_unless_a_name_is_given() -> None:
    assert author("ann") == "ann"
    assert "@" in author()
