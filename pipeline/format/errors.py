"""Every failure of this system, in one tree.

Rules:
- A failure says what happened, to what, and what to do next, in one message; `fields` carries the same facts for machines.
- `outcome` says what a caller may do: FATAL (don't repeat), RETRYABLE (repeat later), UNKNOWN (look first, it may have happened).
- `acts` says who must act. `exit_code` is what the command line returns: 2 for what the caller can mend in its own input, 1 otherwise.
- Errors survive pickling (Spark tasks) and JSON (node status, the build job's result), see `to_json` and `from_json`.
- Foreign errors are translated once, at the boundary that met them, with `raise ... from`.

::

    RedkvError
    ├── SpecError                    the spec's author        exit 2
    │   ├── TemplateError
    │   ├── PrefixOverlapError
    │   ├── TableNotFoundError
    │   └── UnknownColumnError
    ├── UsageError                   the caller of a command  exit 2
    ├── DataError                    the table's owner
    │   ├── NullValueError
    │   ├── InvalidScoreError
    │   ├── DuplicateKeyError
    │   ├── CollectionTooLargeError
    │   └── KeyTooLongError
    ├── FormatError                  bytes that break docs/format.md
    │   └── FormatVersionError       written by a newer version of this software
    ├── IntegrityError               bytes that are not what their manifest says
    │   ├── ChecksumMismatchError
    │   ├── CountMismatchError
    │   └── SampleMismatchError
    ├── StoreError                   the object store
    │   ├── StoreUnavailableError    retryable
    │   ├── StoreAccessError         403, wrong or expired credentials
    │   ├── ObjectMissingError
    │   ├── ObjectChangedError       an object that never changes did
    │   ├── ConflictError            412: somebody else was first
    │   └── OutcomeUnknownError      unknown
    ├── NodeError                    one storage node
    │   ├── VersionCancelledError    somebody took it off this node
    │   ├── ShardUnavailableError    retryable
    │   ├── SidecarUnavailableError  retryable
    │   ├── DiskFullError            retryable
    │   ├── IngestProcessError       retryable
    │   ├── SlotsMovedError          retryable: made for other slots than the shard's
    │   ├── CompactionLagError       retryable: a shard's live database is behind with its compactions
    │   ├── StaleEpochError
    │   ├── LiveKeysError            clients' own keys under a dataset's prefix
    │   ├── ReplicatedSlotsError     an upsert for slots with replicas
    │   ├── UnknownVersionError
    │   └── VersionActiveError       it can't go while clients read it
    └── LoadError                    one load as a whole
        ├── BuildFailedError
        ├── LoadFailedError
        ├── ShrunkVersionError       far fewer rows than the version before
        ├── StalledError
        ├── SlotsWithoutOwnerError   retryable: nodes are away, and no copy is elsewhere
        ├── ConcurrentLoadError
        ├── BadVersionError          it was marked bad
        ├── BaseMissingError         a delta lies on a version that is not there
        ├── BaseChangedError         a delta lies on another build of that version
        ├── ChainTooLongError        a delta on too many others
        ├── NoWayBackError           nothing that a rollback could go to
        └── IllegalTransitionError
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

RUNBOOK = "docs/runbook.md"  # a paragraph per error that a node, a store or a load can end with


class Outcome(StrEnum):
    """What a caller may do after a failure."""

    FATAL = "fatal"
    RETRYABLE = "retryable"
    UNKNOWN = "unknown"


class RedkvError(Exception):
    """Base of all failures.

    Args:
        message: one or two sentences for a person: what happened, to what, what to do next.
        fields: the same facts as JSON values.
    """

    outcome: ClassVar[Outcome] = Outcome.FATAL
    acts: ClassVar[str] = "the operator"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, /, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.fields)

    def to_json(self) -> dict[str, Any]:
        """The failure as a JSON object: error, message, fields, outcome, acts, and the paragraph of the runbook about it."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "fields": self.fields,
            "outcome": str(self.outcome),
            "acts": self.acts,
            "runbook": f"{RUNBOOK}#{type(self).__name__.lower()}",
        }

    @staticmethod
    def from_json(record: dict[str, Any]) -> RedkvError:
        """The inverse of `to_json`; a name that this software does not know becomes a plain `RedkvError`."""
        kind = _by_name(RedkvError).get(record["error"], RedkvError)
        return kind(record["message"], **record.get("fields", {}))


def _rebuild(kind: type[RedkvError], message: str, fields: dict[str, Any]) -> RedkvError:
    return kind(message, **fields)


def _by_name(root: type[RedkvError]) -> dict[str, type[RedkvError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_by_name(child))
    return found


class SpecError(RedkvError):
    """A dataset spec that can't be loaded as it is written."""

    acts = "the author of the spec"
    exit_code = 2


class TemplateError(SpecError):
    """A key or member template that breaks the grammar."""


class PrefixOverlapError(SpecError):
    """A dataset's prefix is a prefix of another dataset's, or the other way round."""


class TableNotFoundError(SpecError):
    """The Hive metastore has no such table."""


class UnknownColumnError(SpecError):
    """The spec names a column that the table does not have."""


class UsageError(RedkvError):
    """A command was called with something that can't be."""

    acts = "the caller of the command"
    exit_code = 2


class DataError(RedkvError):
    """A row that can't become a Redis key under the rules of the spec."""

    acts = "the owner of the table"


class NullValueError(DataError):
    """A NULL key part, member, score or string value under `on_null: fail`."""


class InvalidScoreError(DataError):
    """A score that Redis can't order (NaN)."""


class DuplicateKeyError(DataError):
    """Two rows give the same key (or the same member of one key)."""


class CollectionTooLargeError(DataError):
    """One key's collection is larger than the packed form holds."""


class KeyTooLongError(DataError):
    """A user key, field or member beyond the length limit."""


class FormatError(RedkvError):
    """Bytes that break the grammar of docs/format.md."""

    acts = "the developers of this software"


class FormatVersionError(FormatError):
    """A record written in a format version that this software can't read."""

    acts = "the operator: upgrade this node first"


class IntegrityError(RedkvError):
    """Bytes or counts that are not what the manifest promised."""

    acts = "the operator: rebuild the version, and look for faulty storage"


class ChecksumMismatchError(IntegrityError):
    """A file whose size, SHA-256 or content digest differs from the manifest."""


class CountMismatchError(IntegrityError):
    """Rows, keys or entries that do not add up."""


class SampleMismatchError(IntegrityError):
    """A sampled key whose reply differs from the manifest."""


class StoreError(RedkvError):
    """The object store refused or failed."""


class StoreUnavailableError(StoreError):
    """The object store did not answer, or asked to slow down."""

    outcome = Outcome.RETRYABLE
    acts = "nobody, it is repeated"


class StoreAccessError(StoreError):
    """Credentials are wrong, expired, or lack a permission."""


class ObjectMissingError(StoreError):
    """An object that must be there is not."""


class ObjectChangedError(StoreError):
    """An object that never changes was written anew while it was read."""

    acts = "the operator: find out who writes there, and build the version again under a new id"


class ConflictError(StoreError):
    """A conditional write found that somebody else was first."""

    outcome = Outcome.RETRYABLE
    acts = "nobody, it is read again and repeated"


class OutcomeUnknownError(StoreError):
    """A write whose answer was lost: it may or may not have happened."""

    outcome = Outcome.UNKNOWN
    acts = "the caller: read back before writing again"


class NodeError(RedkvError):
    """One storage node refused or failed."""


class VersionCancelledError(NodeError):
    """An operator cancelled a version on a node."""

    acts = "the caller: load it again, or `retry` it on that node"


class ShardUnavailableError(NodeError):
    """A shard does not answer on its admin socket."""

    outcome = Outcome.RETRYABLE
    acts = "nobody, it is repeated; the operator if it lasts"


class SidecarUnavailableError(NodeError):
    """A sidecar does not answer."""

    outcome = Outcome.RETRYABLE
    acts = "nobody, it is repeated; the operator if it lasts"


class DiskFullError(NodeError):
    """Not enough free space for old + new + staged."""

    outcome = Outcome.RETRYABLE
    acts = "the operator: free or add space on the node"


class IngestProcessError(NodeError):
    """The process that makes version directories died."""

    outcome = Outcome.RETRYABLE
    acts = "nobody, it is repeated; the operator if it lasts"


class SlotsMovedError(NodeError):
    """What was made or prepared for a shard goes by other slots than it has by now."""

    outcome = Outcome.RETRYABLE
    acts = "nobody, it is made again; the operator if it lasts"


class CompactionLagError(NodeError):
    """A shard's live database has too much to compact to take in more."""

    outcome = Outcome.RETRYABLE
    acts = "nobody, it is repeated; the operator if it lasts"


class StaleEpochError(NodeError):
    """A document older than one already followed."""

    acts = "the caller: read the current document again"


class LiveKeysError(NodeError):
    """Clients' own keys stand under a prefix that a dataset wants to own."""

    acts = "the operator: remove or rename these keys, or choose another prefix"


class ReplicatedSlotsError(NodeError):
    """An upsert into slots that have replicas: nothing would carry it to them."""

    acts = "the operator: take the replicas out of the topology, or load the dataset in mode replace"


class UnknownVersionError(NodeError):
    """A version that this shard does not hold."""


class VersionActiveError(NodeError):
    """A version, or its dataset, that can't go while clients read it."""

    acts = "the operator: activate another version first"


class LoadError(RedkvError):
    """A load as a whole."""


class BuildFailedError(LoadError):
    """The Spark job ended without a manifest."""


class LoadFailedError(LoadError):
    """At least one node could not bring the version to its goal."""


class ShrunkVersionError(LoadError):
    """A version with far fewer rows than the one that it would replace."""

    acts = "the owner of the table; or the caller, if that is meant"


class StalledError(LoadError):
    """No progress, or no end, before the deadline."""


class SlotsWithoutOwnerError(LoadError):
    """Slots of which no node that answers has a shard, primary or replica."""

    outcome = Outcome.RETRYABLE
    acts = "the operator: mend one of the nodes that are named"


class ConcurrentLoadError(LoadError):
    """Another load of the same dataset is under way."""


class BadVersionError(LoadError):
    """A version that was marked bad: clients never read it again."""

    acts = "the caller: build it again under a new id, or choose another version"


class BaseMissingError(LoadError):
    """A version that a delta lies on, and that is needed, is not in the store."""

    acts = "the caller: load a full version, or a delta on one that is there"


class BaseChangedError(LoadError):
    """A version that a delta lies on was built again since."""

    acts = "the caller: build the delta again on what is there now, under a new id, or load a full version"


class ChainTooLongError(LoadError):
    """A delta would lie on more versions than may lie on each other."""

    acts = "the caller: load a full version"


class NoWayBackError(LoadError):
    """A dataset that can't be rolled back, or holds nothing to go back to."""

    acts = "the caller: load a version that is right"


class IllegalTransitionError(LoadError):
    """A step that the state machine does not know."""

    acts = "the developers of this software"
