"""The steps after the build: stage, ingest, verify, activate, retire.

Rules:
- A task writes what its step changes, which is the same however often it is written, and waits until all nodes are there: in the triggerer
  if it is deferrable, else here. So it can be killed, tried again or cleared at any moment.
- A failure for good withdraws the version, as the coordinator does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import Asset, BaseOperator, conf

from dags.provider.cluster import Cluster, status_url
from dags.provider.failures import told, withdrawing
from dags.provider.flags import flag, required
from dags.provider.hook import DEFAULT_CONNECTION, RedkvHook
from dags.provider.links import Linked, LoadStatusLink
from dags.provider.operators.build import author, refuse_older
from dags.provider.triggers import StepTrigger
from pipeline.cli.loading import WHAT_GOES_ON
from pipeline.format.errors import CountMismatchError, RedkvError
from pipeline.load.checking import check_version
from pipeline.load.coverage import Require, check_covered, shards_elsewhere, window_of
from pipeline.load.nodes import Nodes
from pipeline.load.phases import Built
from pipeline.load.progress import Step
from pipeline.load.states import State
from pipeline.load.status import NodeStatus, VersionStatus
from pipeline.load.verification import verify
from pipeline.load.waiting import Wait

if TYPE_CHECKING:
    from airflow.sdk import Context

Seen = Mapping[str, Any]
"""What the wait of a step came to: `swap_window_s` and `samples_checked` (triggers.py)."""


class _StepOperator(BaseOperator):
    """One step of a load. `require` is `all`, or `any`: goes on without nodes that are away, as long as every slot has another owner."""

    step: ClassVar[Step]
    template_fields: Sequence[str] = ("dataset", "version", "over_newer", "require", "redkv_conn_id")
    operator_extra_links = (LoadStatusLink(),)

    def __init__(
        self,
        *,
        dataset: str,
        version: str,
        over_newer: bool | str = False,
        require: str = "all",
        redkv_conn_id: str = DEFAULT_CONNECTION,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset, self.version, self.over_newer, self.require = dataset, version, over_newer, require
        self.redkv_conn_id, self.deferrable = redkv_conn_id, deferrable
        self.linked = Linked()

    def execute(self, context: Context) -> dict[str, Any]:
        """Take the step."""
        with told(self.step, self.dataset, self.version):
            cluster = self._cluster(context)
            built = cluster.built(self.dataset, self.version)
            with cluster.nodes() as nodes:
                self._link(context, nodes, None)
                with withdrawing(cluster, nodes, self.dataset, self.version):
                    wait = self.begin(cluster, built, nodes)
                    if wait is not None and self.deferrable:
                        self._defer(wait)
                    reached = wait.done() if wait is not None else {}
                window = window_of(nodes.topology, reached)
        samples = sum(one.samples_checked for one in reached.values())
        return self.done(context, built, {"swap_window_s": window, "samples_checked": samples})

    def begin(self, cluster: Cluster, built: Built, nodes: Nodes) -> Wait | None:
        """Write what the step changes; what is to be waited for, if there is anything."""
        return cluster.phases.begin(self.step, built, nodes, over_newer=flag(self.over_newer))

    def done(self, context: Context, built: Built, seen: Seen) -> dict[str, Any]:  # noqa: ARG002 -- steps use what they need
        """The step is done on all nodes; what the task returns."""
        return {"dataset": self.dataset, "version": self.version, "build_id": built.manifest.build_id}

    def resumed(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """The trigger's event came."""
        with told(self.step, self.dataset, self.version):
            cluster = self._cluster(context)
            failure = RedkvError.from_json(event["error"]) if event["error"] else None
            with cluster.nodes() as nodes:
                self._link(context, nodes, failure)  # this process has it from nobody, and Airflow stores what this one has
                if failure:
                    with withdrawing(cluster, nodes, self.dataset, self.version):
                        raise failure
            return self.done(context, cluster.built(self.dataset, self.version), event)

    def on_kill(self) -> None:
        """Nodes work on what is written, whoever waits for them."""
        self.log.warning("interrupted: %s", WHAT_GOES_ON[self.step])

    def _cluster(self, context: Context) -> Cluster:
        return RedkvHook(self.redkv_conn_id, author(context), required(self.require)).cluster

    def _defer(self, wait: Wait) -> None:
        trigger = StepTrigger(
            dataset=self.dataset,
            version=self.version,
            step=str(self.step),
            epoch=wait.target.epoch,
            over_newer=flag(self.over_newer),
            require=self.require,
            redkv_conn_id=self.redkv_conn_id,
        )
        self.defer(trigger=trigger, method_name="resumed", timeout=self.execution_timeout)

    def _link(self, context: Context, nodes: Nodes, failure: RedkvError | None) -> None:
        named = failure.fields.get("node") if failure else None
        chosen = next((node for node in nodes.topology.nodes if node.name == named), nodes.topology.nodes[0])
        self.linked.set(context, LoadStatusLink(), status_url(chosen))


class _GatedOperator(_StepOperator):
    """A step that refuses a version with less than half the active one's rows, unless `allow_shrink`."""

    template_fields: Sequence[str] = (*_StepOperator.template_fields, "allow_shrink")

    def __init__(self, *, allow_shrink: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allow_shrink = allow_shrink


class RedkvStageOperator(_GatedOperator):
    """Lets all nodes download a version, and verify its files. A failure that an earlier load left on a node is cleared first.

    A version with less than half the active one's rows is refused, unless `allow_shrink`.
    """

    step = Step.STAGE

    def begin(self, cluster: Cluster, built: Built, nodes: Nodes) -> Wait | None:
        """Checks first: much may have happened since the plan."""
        refuse_older(cluster, self.dataset, self.version, over_newer=flag(self.over_newer))
        if not flag(self.allow_shrink):
            cluster.phases.check_shrunk(cluster.documents.desired(), built)
        if required(self.require) is Require.ANY:
            check_covered(nodes.topology, [name for name, one in nodes.statuses().items() if isinstance(one, NodeStatus)])
        cluster.phases.clear_failed(built, nodes)
        return super().begin(cluster, built, nodes)


class RedkvIngestOperator(_StepOperator):
    """Lets all nodes make a version ready to be read, beside the one that is."""

    step = Step.INGEST


class RedkvVerifyOperator(_GatedOperator):
    """Holds counts and samples of all nodes against the manifest; of a version that clients read already, reads them anew.

    Where a table of changes made the version, or the active one, only nodes know how many keys it has: it is refused here if they are less
    than half of the active one's, unless `allow_shrink`. An upsert waits here until the version before is in on all nodes.
    """

    step = Step.VERIFY

    def begin(self, cluster: Cluster, built: Built, nodes: Nodes) -> Wait | None:
        """The comparison is made here; only an upsert has to wait for anything."""
        ready = cluster.phases.begin(Step.INGEST, built, nodes, over_newer=flag(self.over_newer)).done()
        if all(one.state is State.READY for one in ready.values()):
            samples = verify(built.manifest, nodes.topology, ready, shards_elsewhere(nodes.topology, ready))
            if not flag(self.allow_shrink):
                cluster.phases.check_shrunk_by_nodes(cluster.documents.desired(), built, ready, nodes)
            self.log.info("%s %s: all nodes hold what the manifest says; %d samples were read", self.dataset, self.version, samples)
        else:
            self._verify_active(cluster, built, nodes, ready)
        return cluster.phases.the_one_before(built, nodes)

    def _verify_active(self, cluster: Cluster, built: Built, nodes: Nodes, ready: Mapping[str, VersionStatus]) -> None:
        if built.manifest.mode == "upsert":
            self.log.info("%s %s is among the live keys already (%s)", self.dataset, self.version, ", ".join(ready))
            return
        report = check_version(cluster.documents, nodes, self.dataset, self.version)
        if report.problems:
            raise CountMismatchError("; ".join(report.problems), dataset=self.dataset, version=self.version)
        self.log.info("%s %s is active, and as it was built; %d samples were read", self.dataset, self.version, report.samples_checked)


class RedkvActivateOperator(_StepOperator):
    """Lets clients read a version on all nodes; tells its Assets, with `{"version", "build_id"}` as the event's extra."""

    step = Step.ACTIVATE

    def done(self, context: Context, built: Built, seen: Seen) -> dict[str, Any]:
        """The event of the Assets, and how far the shards' swaps lay apart."""
        told_of = {"version": self.version, "build_id": built.manifest.build_id}
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra = dict(told_of)
        self.log.info("%s %s is active on all nodes", self.dataset, self.version)
        return {**super().done(context, built, seen), "keys": built.manifest.totals.keys, "swap_window_s": seen["swap_window_s"]}


class RedkvRetireOperator(_StepOperator):
    """Takes from the nodes what retention does not keep."""

    step = Step.RETIRE

    def begin(self, cluster: Cluster, built: Built, nodes: Nodes) -> Wait | None:  # noqa: ARG002 -- the base's signature
        """Nothing is waited for: nodes remove files at their own pace."""
        cluster.documents.change(cluster.phases.retained(self.dataset))
        nodes.wake()
        return None
