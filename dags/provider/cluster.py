"""A cluster as tasks and triggers use it: settings from an Airflow connection, and the coordinator's steps on them.

Rules:
- The connection's fields stand over its settings file; `REDKV_...` variables of the worker stand over both, as everywhere.
- Nothing is kept: whatever a step leaves is in the store and on the nodes.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.sdk import Connection
from pydantic import ValidationError

from pipeline.cli.display import PlainDisplay
from pipeline.format.errors import UsageError
from pipeline.format.records import told
from pipeline.format.topology import Node
from pipeline.load.coverage import Require
from pipeline.load.documents import ClusterDocuments
from pipeline.load.nodes import Nodes
from pipeline.load.phases import Built, Phases
from pipeline.load.progress import Listener
from pipeline.load.steps import Steps
from pipeline.load.swap import Swapper
from pipeline.settings import ClusterSettings
from pipeline.store import ObjectStore

FIELDS = ("store", "metastore_uris")  # of the connection's extra, beside `settings`


def settings_of(connection: Connection, author: str = "") -> ClusterSettings:
    """The settings that a connection stands for; their `environment` is set in this process.

    Raises:
        UsageError: its settings file can't be read, or something is wrong or missing.
    """
    extra: dict[str, Any] = connection.extra_dejson
    content = _file(extra.get("settings"))
    content |= {name: extra[name] for name in FIELDS if extra.get(name)}
    content |= {"cluster": connection.host} if connection.host else {}
    content |= {"sidecar_token": connection.password} if connection.password else {}
    content |= {"author": author} if author else {}
    try:
        settings = ClusterSettings(**content)
    except ValidationError as wrong:
        lines = "; ".join(told(one, "setting") for one in wrong.errors())
        raise UsageError(f"connection {connection.conn_id}: {lines}", connection=connection.conn_id) from wrong
    for name, value in settings.environment.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    return settings


def _file(path: str | None) -> dict[str, Any]:
    if not path:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as unreadable:
        raise UsageError(f"settings file {path} can't be read here: {unreadable}", config=path) from unreadable


class Cluster:
    """One cluster; what its steps tell goes to `tell`, line by line. `require` says which nodes must be there for them."""

    def __init__(self, settings: ClusterSettings, tell: Callable[[str], object], require: Require = Require.ALL) -> None:
        self.settings, self._require = settings, require
        self.listener: Listener = PlainDisplay(lambda text: tell(text.rstrip("\n")))

    @cached_property
    def documents(self) -> ClusterDocuments:
        """Its documents in the store."""
        return ClusterDocuments(ObjectStore(self.settings.store), self.settings.cluster, name=self.settings.author)

    @cached_property
    def phases(self) -> Phases:
        """The steps of a load."""
        return Phases(self.documents, Steps(self.documents, self.listener, require=self._require), self.settings.retention.nodes)

    def nodes(self) -> Nodes:
        """Its nodes, by the topology of now; a context manager."""
        return Nodes(self.documents.topology(), self.settings.sidecar_token)

    def swapper(self) -> Swapper:
        """Swaps between versions that are there."""
        return Swapper(self.settings, self.listener)

    def built(self, dataset: str, version: str) -> Built:
        """The finished build of a version.

        Raises:
            UsageError: there is none.
        """
        found = self.documents.manifest(dataset, version)
        if found is None:
            raise UsageError(f"{dataset} {version} is not built: run its build first", dataset=dataset, version=version)
        return Built(*found)


def status_url(node: Node) -> str:
    """Where a node's sidecar tells its status."""
    return f"{node.sidecar_url.rstrip('/')}/v1/status"
