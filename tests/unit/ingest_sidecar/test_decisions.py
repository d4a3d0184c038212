"""When there is something to do for a version, for every state and goal; and settings that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_sidecar.settings import SidecarSettings
from ingest_sidecar.work import is_due
from pipeline.format.desired import Goal
from pipeline.format.errors import UsageError
from pipeline.load.states import State

CONTENT = {
    Goal.STAGED: {State.STAGED, State.INGESTING, State.READY, State.ACTIVE, State.RETIRED},
    Goal.READY: {State.READY, State.ACTIVE, State.RETIRED},
    Goal.ACTIVE: {State.ACTIVE},
    Goal.RETIRED: {State.ABSENT, State.STAGING, State.STAGED, State.INGESTING, State.RETIRED},
}


@pytest.mark.parametrize("goal", Goal)
@pytest.mark.parametrize("state", State)
def test_a_version_is_worked_on_until_its_goal_is_content(state: State, goal: Goal) -> None:
    assert is_due(state, goal) == (state not in CONTENT[goal])


def test_it_listens_beyond_loopback_only_with_a_token(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    shard = '[[shards]]\nname = "a"\ndata_dir = "d"\nadmin_socket = "s"\n'
    text = f'node = "n"\ndata_dir = "d"\nstore = "s3://b"\ncluster = "c"\nport = 1\nhost = "0.0.0.0"\n%s{shard}'
    config.write_text(text % "")
    with pytest.raises(UsageError, match="set a token"):
        SidecarSettings.from_file(config)
    config.write_text(text % 'token = "sixteen-characters"\n')
    assert "sixteen" not in repr(SidecarSettings.from_file(config))


def test_settings_name_what_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text('node = "n"\ndata_dir = "d"\nstore = "s3://b"\ncluster = "c"\nport = 1\nshards = []\ndownloads_max = 1000\n')
    with pytest.raises(UsageError, match=r"(?s)shards.*downloads_max|downloads_max.*shards"):
        SidecarSettings.from_file(config)
