"""What one shard process is told: a TOML file, then the environment (`REDKV_SHARD_*`) over it; loaded once and handed down."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.format.errors import UsageError
from pipeline.format.records import told

UNIX_PATH_BYTES_MAX = 107  # sun_path of Linux, without its final zero byte
FIRST_UNPRIVILEGED_PORT = 1_024
DESCRIPTORS_RESERVED = 512  # for RocksDB's files and logs; the rest is for clients
QUERY_BUFFER_BYTES_MIN = 1 << 20  # Redis' own minimum

ENVIRONMENT_PREFIX = "REDKV_SHARD_"

FsyncPolicy = Literal["always", "everysec", "no"]


class ShardSettings(BaseSettings):
    """One shard.

    Affects behaviour: `name` (as in the topology), `data_dir`, `host` and `port` (where clients connect; beyond loopback only with
    `requirepass`), `admin_socket` (a Unix socket, readable by this user alone), `requirepass` (the password of the user `default`; empty:
    none), `appendfsync` (when a write is on the disk: before its reply, once a second, or when the kernel likes),
    `cluster_enabled` (false: all slots are this shard's, with or without a topology, and nothing is redirected).
    Limits: `clients_max` (Redis' maxclients), `bulk_bytes_max` (proto-max-bulk-len: the longest value or argument),
    `query_buffer_bytes_max` (client-query-buffer-limit: the longest command), `output_hard_bytes`, `output_soft_bytes` and `output_soft_s`
    (client-output-buffer-limit of normal clients: unread replies that end a connection, at once or after so many seconds; 0: never),
    `timeout_s` (idle clients are closed; 0: never), `tcp_keepalive_s` (0: none).
    Affects speed and room: `block_cache_bytes` (shared by the live database and all versions), `write_buffer_bytes` (RocksDB's memtable),
    `hot_cache_bytes` (values read lately, kept ready; 0: none),
    `hash_max_listpack_*`, `zset_max_listpack_*` (up to where a collection stays packed in one value).
    Watching: `slowlog_log_slower_than_us` (negative: nothing), `slowlog_max_len`, `latency_tracking`, `metrics_port` (Prometheus, on
    `metrics_host`; none: no endpoint).
    All but names, places and RocksDB's memory can be changed by CONFIG SET while the shard runs (server/config.py).
    """

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    data_dir: Path
    host: str = "127.0.0.1"
    port: int = Field(ge=FIRST_UNPRIVILEGED_PORT, le=65_535)
    admin_socket: Path
    clients_max: int = Field(default=10_000, ge=1)
    bulk_bytes_max: int = Field(default=512 << 20, ge=1 << 20)
    requirepass: SecretStr = SecretStr("")
    query_buffer_bytes_max: int = Field(default=1 << 30, ge=QUERY_BUFFER_BYTES_MIN)
    output_hard_bytes: int = Field(default=1 << 30, ge=0)
    output_soft_bytes: int = Field(default=1 << 20, ge=0)
    output_soft_s: int = Field(default=60, ge=0)
    timeout_s: int = Field(default=0, ge=0)
    tcp_keepalive_s: int = Field(default=300, ge=0)
    appendfsync: FsyncPolicy = "everysec"
    cluster_enabled: bool = True
    hash_max_listpack_entries: int = Field(default=512, ge=0)
    hash_max_listpack_value: int = Field(default=64, ge=0)
    zset_max_listpack_entries: int = Field(default=128, ge=0)
    zset_max_listpack_value: int = Field(default=64, ge=0)
    slowlog_log_slower_than_us: int = Field(default=10_000, ge=-1)
    slowlog_max_len: int = Field(default=128, ge=0)
    latency_tracking: bool = True
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=FIRST_UNPRIVILEGED_PORT, le=65_535)
    block_cache_bytes: int = Field(default=256 << 20, ge=1 << 20)
    write_buffer_bytes: int = Field(default=64 << 20, ge=1 << 20)
    hot_cache_bytes: int = Field(default=128 << 20, ge=0)

    @model_validator(mode="after")
    def _check(self) -> ShardSettings:
        if not self.on_loopback and not self.requirepass.get_secret_value():
            raise ValueError(
                f"host {self.host} is not on loopback, and there is no password: set requirepass (or REDKV_SHARD_REQUIREPASS), "
                "or listen on 127.0.0.1"
            )
        if len(str(self.admin_socket).encode()) > UNIX_PATH_BYTES_MAX:
            raise ValueError(f"admin_socket {self.admin_socket} is longer than {UNIX_PATH_BYTES_MAX} bytes; choose a shorter path")
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can connect, as far as the host itself says so: what another name stands for may change."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment stands over the file, whose content comes as arguments."""
        return env_settings, init_settings


def load_settings(config: Path) -> ShardSettings:
    """Read the settings.

    Raises:
        UsageError: the file can't be read, or something in it or in the environment is wrong.
    """
    try:
        content: dict[str, Any] = tomllib.loads(config.read_text(encoding="utf-8"))
        _check_environment()
        return ShardSettings(**content)
    except (OSError, tomllib.TOMLDecodeError) as unreadable:
        raise UsageError(f"settings file {config} can't be read: {unreadable}", config=str(config)) from unreadable
    except ValidationError as wrong:
        lines = "; ".join(told(one, "setting") for one in wrong.errors())
        raise UsageError(f"settings in {config}, with the environment over them: {lines}", config=str(config)) from wrong


def _check_environment() -> None:
    """A misspelt variable is an error, as a misspelt setting in the file is: it might have been the password."""
    known = {ENVIRONMENT_PREFIX + name.upper() for name in ShardSettings.model_fields}
    strange = sorted(name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX) and name.upper() not in known)
    if strange:
        raise UsageError(f"the environment has {', '.join(strange)}: there is no such setting")
