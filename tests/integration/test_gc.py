"""`redkv gc` on a real S3: what no manifest names, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.format.layout import DATASETS_ROOT, sst_key
from pipeline.store import ObjectStore
from tests.support.builds import build, hash_spec
from tests.support.s3 import S3, s3_store

SPEC = hash_spec("person", "p:${id}")
COLUMNS = {"id": ["1", "2"], "name": ["a", "b"]}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_store() as store:
        yield store


@pytest.fixture
def store(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    fresh = s3.fresh()
    for name, value in fresh.environment.items():
        monkeypatch.setenv(name, value)
    config = tmp_path / "redkv.toml"
    config.write_text(f'store = "{fresh.url}"\ncluster = "c"\nmetastore_uris = "thrift://127.0.0.1:1"\n', encoding="utf-8")
    monkeypatch.setenv("REDKV_CONFIG", str(config))
    return fresh.store


def gc(*arguments: str) -> str:
    return CliRunner().invoke(app, ["gc", *arguments], catch_exceptions=False).stdout


def test_only_what_no_manifest_names_goes_and_only_when_it_is_old(store: ObjectStore) -> None:
    manifest = build(store, SPEC, "2026-11-22", COLUMNS)
    dead_attempt = sst_key("person", "2026-11-22", manifest.build_id, 0, "dead", 0)
    dead_build = sst_key("person", "2026-11-23", "lost", 0, "dead", 0)
    for key in (dead_attempt, dead_build):
        store.create(key, b"garbage")
    before = {one.key for one in store.list(DATASETS_ROOT)}

    assert gc() == gc("--dry-run") == "no garbage\n"  # it could be of a build that goes on
    listed = json.loads(gc("--dry-run", "--older-than", "0", "-o", "json"))
    assert [key for one in listed["builds"] for key in one["objects"]] == [dead_attempt, dead_build]
    assert listed["deleted"] is False
    assert "person 2026-11-23 build lost: 1 objects, 7 B" in gc("--dry-run", "--older-than", "0")
    assert {one.key for one in store.list(DATASETS_ROOT)} == before

    assert gc("--older-than", "0").endswith("deleted 2 objects, 14 B\n")
    assert {one.key for one in store.list(DATASETS_ROOT)} == before - {dead_attempt, dead_build}
    assert gc("--older-than", "0") == "no garbage\n"
