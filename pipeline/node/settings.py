"""What one node runs: a TOML file, then the environment (`REDKV_NODE_*`) over it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from pipeline.format.records import Record
from pipeline.settings import FileSettings

SIDECAR = "sidecar"


class Member(Record):
    """One process: its settings file, and what it gets of environment beside this process' own."""

    config: Path
    environment: dict[str, str] = Field(default_factory=dict)


class ShardMember(Member):
    """A shard; `name` is what status and logs call it, and should be its name in the topology."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")


class NodeSettings(FileSettings):
    """One node.

    `name` (as in the topology), `status_file` (NodeProcesses as JSON, written anew whenever something changes; a lock lies beside it),
    `log_dir` (a log per process; none: they write where this process does), `shards` and `sidecar` (none: it is run by somebody else).
    """

    model_config = SettingsConfigDict(env_prefix="REDKV_NODE_")

    name: str = Field(min_length=1)
    status_file: Path
    log_dir: Path | None = None
    shards: tuple[ShardMember, ...] = Field(min_length=1)
    sidecar: Member | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [one.name for one in self.shards]
        if len(set(names)) != len(names) or SIDECAR in names:
            raise ValueError(f"shards are named {', '.join(names)}: each needs a name of its own, and none may be {SIDECAR!r}")
        for name, member in self.members.items():
            if not member.config.is_file():
                raise ValueError(f"the settings file {member.config} of {name} is not there")
        return self

    @property
    def members(self) -> dict[str, Member]:
        """All processes by name, in the order in which they start."""
        return {**{one.name: one for one in self.shards}, **({SIDECAR: self.sidecar} if self.sidecar else {})}
