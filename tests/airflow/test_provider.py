"""The installed provider, as Airflow sees it, and its connection."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files

import jsonschema  # type: ignore[import-untyped]
import pytest
from airflow._shared.module_loading import import_string
from airflow.providers_manager import ProvidersManager
from airflow.sdk import Connection

from dags.provider.alerts import deadline_missed
from dags.provider.cluster import settings_of
from dags.provider.hook import RedkvHook
from dags.provider.info import get_provider_info
from dags.provider.metastore import pairs_of
from dags.provider.operators.build import spark_ui
from pipeline.format.errors import UsageError
from tests.airflow.world import World


def test_airflow_finds_connection_type_fields_and_links() -> None:
    manager = ProvidersManager()  # type: ignore[no-untyped-call]  # Airflow's has no types
    assert "redkv" in manager.providers
    hook = manager.hooks["redkv"]
    assert hook is not None
    assert (hook.hook_class_name, hook.connection_id_attribute_name) == ("dags.provider.hook.RedkvHook", "redkv_conn_id")
    assert manager.field_behaviours["redkv"]["relabeling"]["host"] == "Cluster"
    assert {"extra__redkv__settings", "extra__redkv__store", "extra__redkv__metastore_uris"} <= set(manager.connection_form_widgets)
    assert {"dags.provider.links.SparkUiLink", "dags.provider.links.LoadStatusLink"} <= set(manager.extra_links_class_names)


def test_what_is_told_of_the_provider_is_true() -> None:
    info = get_provider_info()
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(info, schema)
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for module in info[kind][0]["python-modules"]:
            __import__(module)
    for name in info["extra-links"]:
        assert import_string(name)().name


def test_fields_of_the_connection_stand_over_its_settings_file(world: World) -> None:
    plain = settings_of(Connection(conn_id="c", conn_type="redkv", extra=json.dumps({"settings": str(world.settings_path)})))
    other = {"settings": str(world.settings_path), "store": "s3://other/root"}
    told = Connection(conn_id="c", conn_type="redkv", host="another", password="secret", extra=json.dumps(other))
    settings = settings_of(told, author="me")
    assert (settings.store, settings.cluster, settings.author) == ("s3://other/root", "another", "me")
    assert settings.sidecar_token is not None
    assert settings.sidecar_token.get_secret_value() == "secret"
    assert settings.metastore_uris == plain.metastore_uris


def test_a_connection_that_names_no_cluster_says_what_it_lacks() -> None:
    with pytest.raises(UsageError, match=r"connection c: .*store"):
        settings_of(Connection(conn_id="c", conn_type="redkv", host="x"))
    with pytest.raises(UsageError, match="settings file /nowhere can't be read here"):
        settings_of(Connection(conn_id="c", conn_type="redkv", extra=json.dumps({"settings": "/nowhere"})))


def test_a_missed_deadline_says_what_clients_read_and_how_far_nodes_are(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    asyncio.run(deadline_missed("unloaded", "redkv_default", {"dag_run": {"dag_run_id": "manual__1"}}))
    told = capfd.readouterr().out
    assert "the load of unloaded missed its deadline (run manual__1): clients read none yet; node-1 holds none; node-2" in told


def test_names_of_partitions_are_split_before_they_are_unquoted() -> None:
    assert pairs_of("ds=2026-11-22/Path=a%2Fb") == [("ds", "2026-11-22"), ("path", "a/b")]


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ('{"event": "session", "application": "app-1", "ui": "http://driver:4040", "level": "info"}', "http://driver:4040"),
        ('26/11/25 INFO Driver: {"event": "session", "ui": "http://driver:4040"}', "http://driver:4040"),
        ('{"event": "session", "ui": null}', ""),
        ('{"event": "progress", "text": "session {"}', ""),
        ("session {", ""),
        ("a line of Spark's own", ""),
    ],
)
def test_the_link_to_sparks_pages_comes_from_the_jobs_log(line: str, url: str) -> None:
    assert spark_ui(line) == url


def test_the_button_test_asks_the_store(world: World) -> None:
    assert RedkvHook().test_connection() == (True, "cluster local: 3 nodes, 6 shards")
