"""The desired state on a real S3: conditional writes, racing writers, answers that get lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.format.desired import Desired, DesiredDataset, DesiredVersion, Goal
from pipeline.format.errors import ConflictError, OutcomeUnknownError, PrefixOverlapError
from pipeline.format.layout import audit_root, desired_key
from pipeline.load.documents import ATTEMPTS_MAX, ClusterDocuments, with_goal, with_version
from pipeline.store import ObjectStore
from tests.support.s3 import S3

WRITERS = 8


@pytest.fixture
def store(server: S3) -> ObjectStore:
    return server.fresh().store


def entry(version: str = "2026-11-22") -> DesiredVersion:
    return DesiredVersion(version=version, build_id="b", manifest_key="k", manifest_sha256="0" * 64, goal=Goal.STAGED)


def test_the_epoch_grows_by_one_with_every_write_and_by_none_without(store: ObjectStore) -> None:
    documents = ClusterDocuments(store, "c", clock=lambda: 12.5)
    assert documents.desired() == Desired(cluster="c", epoch=0)
    first = documents.change(with_version("person", "person:", entry()))
    assert (first.epoch, first.written_at_ms, documents.desired()) == (1, 12_500, first)
    etag = store.get(desired_key("c")).etag
    assert documents.change(with_version("person", "person:", entry())) == first
    assert store.get(desired_key("c")).etag == etag
    assert documents.change(with_goal("person", "2026-11-22", Goal.ACTIVE)).epoch == 2


def test_racing_writers_all_get_their_change_in_and_none_is_lost(store: ObjectStore) -> None:
    def register(number: int) -> int:
        change = with_version(f"d{number}", f"d{number}:", entry())
        return ClusterDocuments(store, "c").change(change).epoch

    with ThreadPoolExecutor(WRITERS) as pool:
        epochs = list(pool.map(register, range(WRITERS)))
    assert sorted(epochs) == list(range(1, WRITERS + 1))
    assert sorted(ClusterDocuments(store, "c").desired().datasets) == [f"d{number}" for number in range(WRITERS)]


def test_of_two_datasets_that_race_for_one_prefix_one_is_refused(store: ObjectStore) -> None:
    def register(name: str) -> str:
        try:
            ClusterDocuments(store, "c").change(with_version(name, "same:", entry()))
        except PrefixOverlapError as refused:
            return str(refused.fields["dataset"])
        return ""

    with ThreadPoolExecutor(2) as pool:
        refused = "".join(pool.map(register, ["one", "two"]))
    assert {refused, *ClusterDocuments(store, "c").desired().datasets} == {"one", "two"}


class Losing(ObjectStore):
    """A store whose next answer gets lost: after the write, or before it. Its other answers come."""

    def __init__(self, root: str, *, written: bool) -> None:
        super().__init__(root)
        self.written = written
        self.losses = 1

    def create(self, key: str, data: bytes) -> str:
        if self.losses:
            self.losses -= 1
            if self.written:
                super().create(key, data)
            raise OutcomeUnknownError("the answer was lost")
        return super().create(key, data)


@pytest.mark.parametrize("written", [True, False])
def test_a_lost_answer_is_resolved_by_reading_back(store: ObjectStore, written: bool) -> None:
    pauses: list[float] = []
    losing = ClusterDocuments(Losing(store.root, written=written), "c", sleep=pauses.append)
    assert losing.change(with_version("person", "person:", entry())).epoch == 1
    assert ClusterDocuments(store, "c").desired().epoch == 1
    assert len(pauses) == (0 if written else 1)


@pytest.mark.parametrize("written", [True, False])
def test_a_record_whose_answer_got_lost_is_stored_once(store: ObjectStore, written: bool) -> None:
    first = ClusterDocuments(store, "c")
    first.change(with_version("person", "person:", entry()))
    losing = ClusterDocuments(Losing(store.root, written=written), "c")  # what it creates first is the record of the change before
    after = losing.change(with_goal("person", "2026-11-22", Goal.ACTIVE))
    assert [str(one.action) for one in first.trail.history("person", after, 10)] == ["load", "activate"]
    assert len(list(store.list(audit_root("c", "person")))) == 1


def test_somebody_who_is_always_faster_ends_it_after_so_many_attempts(store: ObjectStore) -> None:
    documents = ClusterDocuments(store, "c", sleep=lambda _: None)
    turns = iter(range(1000))

    def overtaken(desired: Desired) -> Desired:
        number = next(turns)
        ClusterDocuments(store, "c").change(with_version(f"d{number}", f"d{number}:", entry()))
        return desired.model_copy(update={"datasets": {**desired.datasets, "mine": DesiredDataset(prefix="mine:")}})

    with pytest.raises(ConflictError, match=f"{ATTEMPTS_MAX} times another writer was faster; repeat the command"):
        documents.change(overtaken)
    assert len(ClusterDocuments(store, "c").desired().datasets) == ATTEMPTS_MAX
