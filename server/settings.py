"""What one shard process is told: a TOML file, then the environment (`REDKV_SHARD_*`) over it; loaded once and handed down."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.format.errors import UsageError

UNIX_PATH_BYTES_MAX = 107  # sun_path of Linux, without its final zero byte
FIRST_UNPRIVILEGED_PORT = 1_024


class ShardSettings(BaseSettings):
    """One shard.

    Affects behaviour: `name` (as in the topology), `data_dir`, `host` and `port` (where clients connect; loopback only, because there
    are no passwords yet), `admin_socket` (a Unix socket, readable by this user alone), `clients_max` (Redis' maxclients), `bulk_bytes_max`
    (Redis' proto-max-bulk-len: the longest value or argument).
    Affects speed: `block_cache_bytes` (shared by the live database and all versions), `write_buffer_bytes` (RocksDB's memtable).
    """

    model_config = SettingsConfigDict(env_prefix="REDKV_SHARD_", frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    data_dir: Path
    host: str = "127.0.0.1"
    port: int = Field(ge=FIRST_UNPRIVILEGED_PORT, le=65_535)
    admin_socket: Path
    clients_max: int = Field(default=10_000, ge=1)
    bulk_bytes_max: int = Field(default=512 << 20, ge=1 << 20)
    block_cache_bytes: int = Field(default=256 << 20, ge=1 << 20)
    write_buffer_bytes: int = Field(default=64 << 20, ge=1 << 20)

    @model_validator(mode="after")
    def _check(self) -> ShardSettings:
        if self.host != "localhost" and not ipaddress.ip_address(self.host).is_loopback:
            raise ValueError(f"host {self.host} is not on loopback; a shard has no passwords yet, so it listens on loopback only")
        if len(str(self.admin_socket).encode()) > UNIX_PATH_BYTES_MAX:
            raise ValueError(f"admin_socket {self.admin_socket} is longer than {UNIX_PATH_BYTES_MAX} bytes; choose a shorter path")
        return self

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
        return ShardSettings(**content)
    except (OSError, tomllib.TOMLDecodeError) as unreadable:
        raise UsageError(f"settings file {config} can't be read: {unreadable}", config=str(config)) from unreadable
    except ValidationError as wrong:
        lines = "; ".join(f"{'.'.join(map(str, error['loc'])) or 'settings'}: {error['msg']}" for error in wrong.errors())
        raise UsageError(f"settings in {config}: {lines}", config=str(config)) from wrong
