"""What Airflow asks an installed provider (entry point `apache_airflow_provider`): its connection type, its modules, its links."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

PACKAGE = "redkv"
_TEXT = {"type": ["string", "null"]}


def get_provider_info() -> dict[str, Any]:
    """The provider, in the form of Airflow's provider_info.schema.json."""
    return {
        "package-name": PACKAGE,
        "name": "redkv",
        "description": "Bulk loads of Hive tables as Redis keys.",
        "versions": [version(PACKAGE)],
        "integrations": [{"integration-name": "redkv", "external-doc-url": "docs/airflow.md", "tags": ["service"]}],
        "hooks": [_modules("dags.provider.hook")],
        "operators": [_modules(*(f"dags.provider.operators.{name}" for name in ("plan", "build", "steps", "rollback")))],
        "sensors": [_modules("dags.provider.sensors")],
        "triggers": [_modules("dags.provider.triggers")],
        "asset-uris": [{"schemes": ["redkv"], "handler": None}],
        "connection-types": [
            {
                "connection-type": "redkv",
                "hook-class-name": "dags.provider.hook.RedkvHook",
                "hook-name": "redkv cluster",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "port"],
                    "relabeling": {"host": "Cluster", "password": "Token of the sidecars"},
                    "placeholders": {"host": "its name in the store; empty if the settings file says it"},
                },
                "conn-fields": {
                    "settings": {
                        "label": "Settings file",
                        "description": "Path of the cluster's redkv.toml on the workers; the fields here stand over it",
                        "schema": _TEXT,
                    },
                    "store": {"label": "Store", "description": "s3://bucket/prefix", "schema": _TEXT},
                    "metastore_uris": {"label": "Hive metastore", "description": "thrift://host:9083, several by comma", "schema": _TEXT},
                },
            }
        ],
        "extra-links": ["dags.provider.links.SparkUiLink", "dags.provider.links.LoadStatusLink"],
    }


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": "redkv", "python-modules": list(names)}
