"""What one sidecar is told: a TOML file, then the environment (`REDKV_SIDECAR_*`) over it."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import SettingsConfigDict

from pipeline.settings import FileSettings
from pipeline.store import POOL_CONNECTIONS_MAX

DOWNLOADS_MAX = POOL_CONNECTIONS_MAX - 4  # some connections stay free for documents and manifests


class OwnShard(BaseModel):
    """A shard of this node: its name in the topology, its data directory, and its admin socket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    data_dir: Path
    admin_socket: Path


class SidecarSettings(FileSettings):
    """One sidecar.

    Affects behaviour: `node` (its name in the topology), `data_dir` (on the file system of the shards' data directories), `store`,
    `cluster`, `host` and `port` of its HTTP (loopback: it asks for no password), `shards`.
    Affects speed: `poll_s` (how late a missed wake-up is noticed), `downloads_max` (files at once, over all datasets), `ingests_max`
    (ingest processes at once), `nice` (added to the ingest process' priority, 0..19).
    """

    model_config = SettingsConfigDict(env_prefix="REDKV_SIDECAR_")

    node: str = Field(min_length=1)
    data_dir: Path
    store: str
    cluster: str
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65_535)
    shards: tuple[OwnShard, ...] = Field(min_length=1)
    poll_s: float = Field(default=2.0, gt=0)
    downloads_max: int = Field(default=4, ge=1, le=DOWNLOADS_MAX)
    ingests_max: int = Field(default=1, ge=1, le=16)
    nice: int = Field(default=10, ge=0, le=19)

    @field_validator("host")
    @classmethod
    def _check_loopback(cls, host: str) -> str:
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"host {host} is not on loopback; a sidecar asks for no password yet, so it listens on loopback only")
        return host
