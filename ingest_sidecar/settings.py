"""What one sidecar is told: a TOML file, then the environment (`REDKV_SIDECAR_*`) over it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from pipeline.settings import FileSettings
from pipeline.store import POOL_CONNECTIONS_MAX

DOWNLOADS_MAX = POOL_CONNECTIONS_MAX - 4  # some connections stay free for documents and manifests

DELETES_BYTES_S = 512 << 20  # half of what a plain NVMe writes: freed space is trimmed, and readers wait behind that


class OwnShard(BaseModel):
    """A shard of this node: its name in the topology, its data directory, and its admin socket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    data_dir: Path
    admin_socket: Path


class SidecarSettings(FileSettings):
    """One sidecar.

    Affects behaviour: `node` (its name in the topology), `data_dir` (on the file system of the shards' data directories), `store`,
    `cluster`, `host` and `port` of its HTTP (beyond loopback only with a `token`, which every caller then sends), `shards`.
    Affects speed: `poll_s` (how late a missed wake-up is noticed), `downloads_max` (ranges of files at once, over all datasets),
    `bandwidth_bytes_s` (over all downloads; changeable while it runs), `deletes_bytes_s` (of what goes from the disk),
    `silence_s_max` (so long a silence of the store is a broken connection), `ingests_max` (ingest processes at once), `nice` (how far
    the sidecar and its ingest process stand behind the shards for the CPU, 0..19), `readers_p99_ms_max` (the budget of the shards' own
    p99, beyond which work slows down), `pace_min` (how slow at most, as a share; 0 is a pause, which lasts as long as the p99 is beyond
    its budget, whatever the cause; a spec's deadline can keep it above).
    """

    model_config = SettingsConfigDict(env_prefix="REDKV_SIDECAR_")

    node: str = Field(min_length=1)
    data_dir: Path
    store: str
    cluster: str
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65_535)
    token: SecretStr | None = Field(default=None, min_length=16)
    shards: tuple[OwnShard, ...] = Field(min_length=1)
    poll_s: float = Field(default=2.0, gt=0)
    downloads_max: int = Field(default=4, ge=1, le=DOWNLOADS_MAX)
    bandwidth_bytes_s: int | None = Field(default=None, ge=1)
    deletes_bytes_s: int | None = Field(default=DELETES_BYTES_S, ge=1)
    silence_s_max: float = Field(default=20.0, gt=0, le=600)
    ingests_max: int = Field(default=1, ge=1, le=16)
    nice: int = Field(default=10, ge=0, le=19)
    readers_p99_ms_max: float = Field(default=10.0, gt=0)
    pace_min: float = Field(default=0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _check_loopback(self) -> Self:
        if self.token is None and self.host != "localhost" and not ipaddress.ip_address(self.host).is_loopback:
            raise ValueError(f"host {self.host} is not on loopback: set a token, which every caller must send then, or listen on loopback")
        return self
