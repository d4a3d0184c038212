"""From what the tasks returned to a manifest, without Spark: nothing that does not add up gets one, and nobody's manifest is replaced."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from pipeline.format.errors import (
    ConflictError,
    CountMismatchError,
    DataError,
    ObjectMissingError,
    OutcomeUnknownError,
    RedkvError,
)
from pipeline.format.keys import meta_key
from pipeline.format.layout import manifest_key
from pipeline.format.manifest import Manifest, ManifestFile, ManifestSample
from pipeline.format.slots import SlotRange, key_slot
from pipeline.spec import DatasetSpec, parse_spec
from pipeline.store import Blob
from udtf.build import ENCODED_BYTES_MAX, SAMPLES_MAX, assemble, parts, publish
from udtf.partition import Folded, Written
from udtf.rows import Counters
from udtf.sample import PLAIN_BYTES

VERSION = "2026-11-22"


class Faulty:
    """A store whose `create` fails as told, before or after the object is there."""

    def __init__(self, standing: bytes | None, error: RedkvError | None = None, *, arrives: bool = False) -> None:
        self.objects = {} if standing is None else {manifest_key("d", VERSION): standing}
        self._error, self._arrives = error, arrives

    def create(self, key: str, data: bytes) -> str:
        if self._error is None or self._arrives:
            self.objects[key] = data
        if self._error:
            raise self._error
        return "etag"

    def get(self, key: str) -> Blob:
        if key not in self.objects:
            raise ObjectMissingError(f"no {key}")
        return Blob(self.objects[key], "etag")


def spec(**more: Any) -> DatasetSpec:
    document = {"dataset": "d", "source": {"table": "db.t", "where": "ds = '${date}'"}, "key": "p:${id}", "type": "hash", "mode": "replace"}
    return parse_spec(document | more, "a test's spec")


def written(user_key: bytes, samples: int = 1) -> Written:
    key = meta_key(user_key)
    slots = SlotRange(first=key_slot(user_key), last=key_slot(user_key))
    file = ManifestFile(
        object_key=f"{user_key.decode()}.sst",
        slots=slots,
        smallest=key,
        largest=key,
        keys=1,
        entries=1,
        deletes=0,
        bytes=10,
        sha256="0" * 64,
        content_digest="0" * 64,
    )
    shown = tuple(ManifestSample(key=b"%b/%d" % (user_key, one), reply_sha256="0" * 64) for one in range(samples))
    return Written(file=file, samples=shown)


def counted(rows: int, skipped: int = 0) -> Written:
    return Written(counters=Counters(rows=rows, skipped=skipped))


def stored(rows: int, duplicates: int = 0, deleted: int = 0) -> Written:
    return Written(folded=Folded(task=0, stored=rows, duplicates=duplicates, deleted=deleted))


def manifest(build_id: str) -> Manifest:
    return assemble(spec(), VERSION, build_id, 0, [counted(1), written(b"p:1"), stored(1)])


def test_totals_are_sums_and_files_stand_in_key_order() -> None:
    made = assemble(
        spec(), VERSION, "b", 0, [written(b"p:%d" % one) for one in range(5)] + [counted(8, 1), counted(5), stored(5), stored(5, 1, 1)]
    )
    assert [file.smallest for file in made.files] == sorted(meta_key(b"p:%d" % one) for one in range(5))
    totals = made.totals
    assert (totals.source_rows, totals.stored_rows, totals.duplicates, totals.skipped) == (13, 10, 1, 2)
    assert (totals.keys, totals.bytes) == (5, 50)


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_are_lost_or_doubled_get_no_manifest(rows: int) -> None:
    with pytest.raises(CountMismatchError, match=f"{rows} rows were read, but 2 stored, 0 settled as duplicates, 0 skipped and 0 made"):
        assemble(spec(), VERSION, "b", 0, [counted(rows), written(b"p:1"), stored(2)])


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        ([], r"the filter matched no row of db\.t \(ds = '2026-11-22'\)"),
        ([counted(3, 3)], r"NULL or delete_if left nothing of the 3 rows of db\.t"),
    ],
)
def test_an_empty_version_says_why_unless_the_spec_allows_it(tasks: list[Written], why: str) -> None:
    with pytest.raises(DataError, match=why):
        assemble(spec(), VERSION, "b", 0, tasks)
    assert assemble(spec(allow_empty=True), VERSION, "b", 0, tasks).files == ()


def test_samples_are_bounded_for_the_version_and_spread_over_its_files() -> None:
    files = [written(b"p:%d" % one, samples=4) for one in range(400)]
    made = assemble(spec(), VERSION, "b", 0, [counted(400), stored(400), *files])
    assert len(made.samples) == SAMPLES_MAX
    assert len({sample.key.split(b"/")[0] for sample in made.samples}) > 350
    assert made.samples == assemble(spec(), VERSION, "b", 0, [counted(400), stored(400), *reversed(files)]).samples


@pytest.mark.parametrize("error", [ConflictError("412"), OutcomeUnknownError("timed out")])
def test_a_repeated_request_that_meets_its_own_first_attempt_is_a_success(error: RedkvError) -> None:
    store: Any = Faulty(None, error, arrives=True)
    built = publish(store, manifest("ours"))
    assert (built.existed, built.manifest.build_id) == (False, "ours")


@pytest.mark.parametrize("error", [ConflictError("412"), OutcomeUnknownError("timed out")])
def test_the_build_that_finished_first_stands(error: RedkvError) -> None:
    theirs = manifest("theirs").to_json()
    store: Any = Faulty(theirs, error)
    built = publish(store, manifest("ours"))
    assert (built.existed, built.manifest.build_id) == (True, "theirs")
    assert store.objects == {manifest_key("d", VERSION): theirs}


def test_an_unknown_outcome_without_a_manifest_is_told() -> None:
    store: Any = Faulty(None, OutcomeUnknownError("timed out"))
    with pytest.raises(OutcomeUnknownError):
        publish(store, manifest("ours"))
    assert store.objects == {}


def test_wide_rows_of_numbers_are_encoded_in_parts() -> None:
    wide = pa.RecordBatch.from_pydict({f"column_{number}": pa.array(range(1000), pa.float64()) for number in range(5_000)})
    several = list(parts(wide))
    assert len(several) > 1
    assert pa.Table.from_batches(several).equals(pa.Table.from_batches([wide]))
    assert max(part.num_rows for part in several) * 5_000 * PLAIN_BYTES < ENCODED_BYTES_MAX
    (narrow,) = parts(wide.select(["column_1"]))
    assert narrow.num_rows == 1000
    assert not list(parts(wide.slice(0, 0)))
