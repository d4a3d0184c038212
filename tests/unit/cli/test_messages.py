"""What users read when something can't be: one message, no traceback, the documented exit code. No cluster is needed for any of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app as root
from pipeline.cli.app import app
from pipeline.cli.loading import WHAT_GOES_ON, sentence
from pipeline.cli.status import as_json
from pipeline.format.desired import Desired
from pipeline.format.errors import ChecksumMismatchError, RedkvError, SidecarUnavailableError, UsageError
from pipeline.format.queue import LoadQueue
from pipeline.format.slots import SlotRange
from pipeline.format.topology import Node, Shard, Topology
from pipeline.load.nodes import Answer
from pipeline.load.progress import LoadReport, Step
from pipeline.load.status import NodeStatus

SPEC = {"dataset": "person", "source": {"table": "features.person"}, "key": "{person}_${id}", "type": "hash", "mode": "replace"}
SETTINGS = 'store = "s3://bucket/root"\ncluster = "c"\nmetastore_uris = "thrift://127.0.0.1:1"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with settings and a spec; the store that they name is nowhere."""
    for name in [name for name in os.environ if name.startswith(("REDKV_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "redkv.toml").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    return tmp_path


def failure_of(*arguments: str) -> RedkvError:
    failed = CliRunner().invoke(app, list(arguments)).exception
    assert isinstance(failed, RedkvError), failed
    return failed


def main(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pipeline.cli", *arguments], capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tipe": "hash"}, "spec.yaml: field tipe is unknown: remove it, or check its spelling"),
        ({"key": "${id}"}, "field key: key '${id}' starts with a column"),
        ({"key": "person:${id"}, "without closing it: write ${column}"),
        ({"mode": "append"}, "field mode is 'append': write replace"),
    ],
)
def test_a_spec_that_is_wrong_is_told_by_field(folder: Path, change: dict[str, str], message: str) -> None:
    (folder / "spec.yaml").write_text(yaml.safe_dump({**SPEC, **change}), encoding="utf-8")
    failed = failure_of("load", "spec.yaml", "--version", "2026-11-22")
    assert message in failed.message
    assert failed.exit_code == 2


@pytest.mark.parametrize("version", ["yesterday", "2026-11-22.0", "../2026-11-22"])
def test_a_version_that_is_none_is_told_with_an_example(version: str) -> None:
    failed = failure_of("load", "spec.yaml", "--version", version)
    assert (failed.exit_code, "is no version id: write a date as 2026-11-22" in failed.message) == (2, True)


def test_settings_that_are_unknown_or_missing_are_told(folder: Path) -> None:
    (folder / "redkv.toml").write_text(SETTINGS + 'spark_mastre = "yarn"\n', encoding="utf-8")
    assert "spark_mastre: there is no such setting" in failure_of("status").message
    (folder / "redkv.toml").unlink()
    assert "run `redkv up` for a local cluster, or pass --config" in failure_of("status").message
    assert "nowhere.toml can't be read" in failure_of("--config", "nowhere.toml", "status").message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["name=Ann", "id=42"], "name is not in the key '{person}_${id}': give id only"),
        (["id"], "'id' is no column: write column=text, e.g. id=42"),
    ],
)
def test_columns_that_are_not_the_keys_are_told(arguments: list[str], message: str) -> None:
    failed = failure_of("key", "spec.yaml", *arguments)
    assert isinstance(failed, UsageError)
    assert failed.message == message


def topology(**more: object) -> Topology:
    shard = Shard(name="a-1", host="127.0.0.1", port=7000, slots=(SlotRange(first=0, last=16_383),))
    fields = {"cluster": "c", "epoch": 1, "nodes": (Node(name="a", sidecar_url="http://127.0.0.1:7100", shards=(shard,)),), **more}
    return Topology.model_validate(fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "topology.json is not JSON"),
        ('{"format_version": 1}', "`redkv cluster show` prints one to start from"),
        (topology(cluster="other").to_json().decode(), "topology.json is of cluster 'other', the settings name 'c'"),
        (topology().to_json().decode().replace("http://127.0.0.1:7100", "http://127.0.0.1:99999"), "write http://host:port"),
    ],
)
def test_a_topology_that_is_wrong_is_told_before_the_store_is_asked(folder: Path, text: str, message: str) -> None:
    (folder / "topology.json").write_text(text, encoding="utf-8")
    failed = failure_of("cluster", "apply", "topology.json")
    assert (failed.exit_code, message in failed.message) == (2, True), failed


def test_main_prints_one_message_and_no_traceback(folder: Path) -> None:
    done = main("load", "missing.yaml", "--version", "2026-11-22", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: SpecError: missing.yaml: can't be read")
    assert (done.stdout, "Traceback" in done.stderr) == ("", False)


def test_a_failure_that_is_not_the_callers_says_who_must_act(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ChecksumMismatchError("object [a/b] has another SHA-256")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(root, "app", fail)
    with pytest.raises(SystemExit) as left:
        root.main()
    signal.signal(signal.SIGTERM, before)
    assert left.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: ChecksumMismatchError: object [a/b] has another SHA-256",
        "who must act: the operator: rebuild the version, and look for faulty storage",
    ]


COMMANDS: list[list[str]] = [[], *([name] for name in ("load", "status", "versions", "verify", "rollback", "activate", "mark-bad"))]
COMMANDS += [[name] for name in ("pause", "resume", "retry", "cancel", "gc", "key", "node", "up", "down")]
COMMANDS += [["cluster", name] for name in ("show", "apply")] + [["inspect", name] for name in ("spec", "manifest", "sst", "key")]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_or_the_exit_codes(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert ("Example: redkv" if command else "Exit codes:") in done.output


def test_an_unknown_option_is_a_usage_error() -> None:
    done = main("load", "spec.yaml", "--verzion", "1")
    assert (done.returncode, "No such option: --verzion" in done.stderr) == (2, True), done


def test_every_step_says_what_an_interruption_leaves() -> None:
    assert set(WHAT_GOES_ON) == set(Step)


def test_the_summary_of_a_load() -> None:
    fields: dict[str, object] = {
        "dataset": "d",
        "version": "2026-11-22",
        "build_id": "b",
        "source_rows": 12_000,
        "skipped": 5,
        "keys": 11_995,
    }
    full = LoadReport(**fields, changed=True, bytes=1 << 20, samples_checked=8, swap_window_s=0.21, seconds={"plan": 0.1})  # type: ignore[arg-type]
    assert sentence(full).splitlines() == [
        "d 2026-11-22 is active: 12,000 rows, 5 skipped by rule, 11,995 keys, 1.0 MiB",
        "8 sampled keys were read back before; 210 ms between the first and the last shard's swap",
        "plan 0.1 s",
    ]
    same = LoadReport(**fields, changed=False, bytes=1 << 20)  # type: ignore[arg-type]
    assert sentence(same) == "d 2026-11-22: nothing to do, it is active already (11,995 keys)"


def test_the_json_of_status_has_the_same_fields_for_every_node() -> None:
    away = SidecarUnavailableError("the sidecar of b does not answer", node="b")
    answers: dict[str, Answer] = {"a": NodeStatus(node="a", desired_epoch=3, topology_epoch=1), "b": away}
    told = json.loads(json.dumps(as_json(Desired(cluster="c", epoch=3), LoadQueue(cluster="c"), answers, [])))
    assert set(told["nodes"]["a"]) == set(told["nodes"]["b"])
    assert told["nodes"]["a"]["answers"] is True
    nothing: dict[str, object] = {"desired_epoch": None, "topology_epoch": None, "datasets": {}, "throttle": None}
    assert told["nodes"]["b"] == {"answers": False, "error": away.to_json(), **nothing}
