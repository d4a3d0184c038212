"""The build: Spark's job by Airflow's own SparkSubmitOperator, with what our job needs to be told.

Rules:
- With a base the version is a delta, as `redkv load --base` makes it: a full one where clients read none yet.
- A version that is finished is not built again; a task that is tried again, or cleared, finds it.
- `spark-submit` is looked for on the task's PATH; its master comes from the Spark connection, the metastore from the cluster's. Credentials
  reach it by the task's environment alone.
- The job says in a result file why it failed, and in its log where its pages are; with the driver on another machine (deploy mode
  `cluster`) neither comes back, and Spark's own word counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from dags.provider.failures import told
from dags.provider.flags import flag
from dags.provider.hook import DEFAULT_CONNECTION, RedkvHook
from dags.provider.links import Linked, SparkUiLink
from pipeline.format.errors import ObjectMissingError, RedkvError
from pipeline.format.records import version_order
from pipeline.load.build import job_file
from pipeline.load.phases import active_of
from pipeline.load.progress import Step
from pipeline.spec import load_spec

if TYPE_CHECKING:
    from airflow.sdk import Context

    from dags.provider.cluster import Cluster

SESSION = "session"  # the event that the job logs when Spark runs


class _Hook(SparkSubmitHook):
    """Airflow's hook, which lets somebody read along."""

    seen: Callable[[str], None]

    def _process_spark_submit_log(self, itr: Iterator[Any]) -> None:
        super()._process_spark_submit_log(self._read(itr))

    def _read(self, lines: Iterator[Any]) -> Iterator[Any]:
        for line in lines:
            self.seen(str(line))
            yield line


class RedkvBuildOperator(SparkSubmitOperator):
    """Builds a version of the dataset of a spec; returns `{"dataset", "version", "build_id", "base", "rows", "keys", "bytes"}`.

    `base` is a version, or `active` for the one that clients read: only what differs from it is built and moved. All arguments of
    SparkSubmitOperator may be given but `application` and `application_args`.
    """

    template_fields: Sequence[str] = (*SparkSubmitOperator.template_fields, "spec", "version", "base", "over_newer", "redkv_conn_id")
    operator_extra_links = (SparkUiLink(),)

    def __init__(
        self,
        *,
        spec: str | Path,
        version: str,
        base: str | None = None,
        over_newer: bool | str = False,
        redkv_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "redkv", **kwargs})
        self.spec, self.version, self.base, self.over_newer = str(spec), version, base, over_newer
        self.redkv_conn_id = redkv_conn_id
        self.linked = Linked()
        self._context: Context | None = None
        self.dataset = ""  # known when the spec is read

    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]  # Airflow's returns nothing
        """Build, unless it is built."""
        self._context = context
        with told(Step.BUILD, self.spec, self.version):
            spec = load_spec(Path(self.spec))
        self.dataset = spec.dataset
        with told(Step.BUILD, spec.dataset, self.version):
            cluster = RedkvHook(self.redkv_conn_id, author=author(context)).cluster
            refuse_older(cluster, spec.dataset, self.version, over_newer=flag(self.over_newer))
            base = cluster.phases.lies_on(spec, self.version, self.base) if self.base else None
            found = cluster.phases.built(spec, self.version)
            if found is None:
                self._submit(cluster, context, base)
                found = cluster.phases.built(spec, self.version)
            else:
                self.log.info("%s %s is built already (build %s)", spec.dataset, self.version, found.manifest.build_id)
            if found is None:
                raise ObjectMissingError(f"the build job of {spec.dataset} {self.version} ended well, but its manifest is not in the store")
        total, bases = found.manifest.totals, found.manifest.bases
        told_of = {"base": bases[0].version if bases else None, "rows": total.source_rows, "keys": total.keys, "bytes": total.bytes}
        return {"dataset": spec.dataset, "version": self.version, "build_id": found.manifest.build_id, **told_of}

    def _submit(self, cluster: Cluster, context: Context, base: str | None) -> None:
        settings, borders = cluster.settings, cluster.documents.topology().borders()
        self.application = str(job_file())
        self.conf = {"spark.hadoop.hive.metastore.uris": settings.metastore_uris, **settings.spark_conf, **(self.conf or {})}
        with TemporaryDirectory(prefix="redkv-build-") as folder:
            result = Path(folder) / "result.json"
            self.application_args = ["--spec", self.spec, "--version", self.version, "--store", settings.store, "--result", str(result)]
            if borders:
                self.application_args += ["--shard-borders", ",".join(map(str, borders))]
            if base:
                self.application_args += ["--base", base]
            try:
                super().execute(context)
            except AirflowException as ended:
                raise _why(result, ended) from ended

    def _get_hook(self) -> SparkSubmitHook:
        hook = super()._get_hook()
        hook.__class__ = _Hook  # made by Airflow's operator, which has a hundred lines of arguments for it
        cast("_Hook", hook).seen = self._seen
        return hook

    def _seen(self, line: str) -> None:
        """A line of the job's log: one of them says where its pages are."""
        url = spark_ui(line)
        if url and self._context is not None:
            self.linked.set(self._context, SparkUiLink(), url)


def author(context: Context) -> str:
    """Who acts, for the audit trail: the run."""
    run = context["dag_run"]
    return f"airflow:{run.dag_id}:{run.run_id}"


def refuse_older(cluster: Cluster, dataset: str, version: str, *, over_newer: bool) -> None:
    """Skip a version that became older than the active one meanwhile.

    Raises:
        AirflowSkipException: it did, and the run does not say that it shall go over it.
    """
    active = active_of(cluster.documents.desired(), dataset)
    if active and not over_newer and version_order(version) < version_order(active.version):
        raise AirflowSkipException(f"{dataset} {version} is older than the active version {active.version}, and is not put over it unasked")


def spark_ui(line: str) -> str:
    """Where Spark's pages are, if a line of the job's log says it."""
    begin = line.find("{")
    if begin < 0 or SESSION not in line:
        return ""
    try:
        record = json.loads(line[begin:])
    except ValueError:
        return ""
    return str(record.get("ui") or "") if isinstance(record, dict) and record.get("event") == SESSION else ""


def _why(result: Path, ended: AirflowException) -> Exception:
    """The failure that the job wrote, or Spark's word."""
    try:
        record = json.loads(result.read_bytes())
    except (FileNotFoundError, ValueError):
        return ended
    return RedkvError.from_json(record["error"]) if "error" in record else ended
