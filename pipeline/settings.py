"""Settings: a TOML file, then the environment over it; loaded once and handed down.

Commands find their cluster in `--config`, else $REDKV_CONFIG, else `redkv.toml` here, else `.redkv/redkv.toml` here (which `redkv up`
writes). An environment variable is the prefix and the field's name, e.g. REDKV_STORE.
"""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.format.errors import UsageError
from pipeline.format.records import told

CONFIG_VARIABLE = "REDKV_CONFIG"
CONFIG_PLACES = (Path("redkv.toml"), Path(".redkv/redkv.toml"))
LOADS_MAX = 4  # more at once share the same disks and network, and all of them end later


class FileSettings(BaseSettings):
    """Base of settings that come from a TOML file and the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

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

    @classmethod
    def from_file(cls, path: Path | None) -> Self:
        """Read a file (None: the environment alone).

        Raises:
            UsageError: it can't be read, or something in it or in the environment is wrong or missing.
        """
        try:
            content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
            return cls(**content)
        except (OSError, tomllib.TOMLDecodeError) as unreadable:
            raise UsageError(f"settings file {path} can't be read: {unreadable}", config=str(path)) from unreadable
        except ValidationError as wrong:
            lines = "; ".join(told(one, "setting") for one in wrong.errors())
            source = f"settings in {path}" if path else "no settings file found, and the environment lacks"
            raise UsageError(f"{source}: {lines}", config=str(path)) from wrong


class Keep(BaseModel):
    """What is kept: the newest `versions`, and whatever is younger than `days`; all if neither is said. What neither keeps goes when it is
    `delay_hours` old.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: int | None = Field(default=None, ge=0)
    days: float | None = Field(default=None, ge=0)
    delay_hours: float = Field(default=0.0, ge=0)


class Retention(BaseModel):
    """How long versions stay. On `nodes`, of those that clients read before the active one, their age since then; in the `store`, of all,
    their age since they were built. `deletes_per_s` is how many objects a second are removed from the store at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: Keep = Keep(versions=1)  # the way back
    store: Keep = Keep(delay_hours=24)
    deletes_per_s: float = Field(default=100.0, gt=0)


class ClusterSettings(FileSettings):
    """One cluster as its users see it.

    Affects behaviour: `store` (s3://bucket/prefix), `cluster` (its name in the store), `metastore_uris` (thrift://host:port of the Hive
    metastore), `spark_master`, `spark_conf` (more `--conf` of spark-submit), `environment` (variables for this process and those that it
    starts, over those that are set already: a cluster's own account stands over that of the shell; an empty one is removed).
    `author` is who acts, for the audit trail; user@host if it is empty. `sidecar_token` is what the nodes' sidecars ask for, if they do.
    `log_dir` takes the logs of build jobs. `retention` is how long versions are kept.
    Affects speed: `loads_max` is how many loads bring versions to the cluster's nodes at once; further ones wait (redkv load --priority).
    """

    model_config = SettingsConfigDict(env_prefix="REDKV_")

    store: str
    cluster: str
    metastore_uris: str
    author: str = ""
    sidecar_token: SecretStr | None = None
    spark_master: str = "local[2]"
    spark_conf: dict[str, str] = Field(default_factory=dict)
    log_dir: Path = Path(tempfile.gettempdir())
    environment: dict[str, str] = Field(default_factory=dict)
    retention: Retention = Retention()
    loads_max: int = Field(default=LOADS_MAX, ge=1)


def load_settings(config: Path | None = None) -> ClusterSettings:
    """Find and read the cluster's settings, and set their `environment`.

    Raises:
        UsageError: no file and no environment name a cluster, or something in them is wrong.
    """
    path = _find(config)
    try:
        settings = ClusterSettings.from_file(path)
    except UsageError as wrong:
        if path is None:
            raise UsageError(f"{wrong.message}: run `redkv up` for a local cluster, or pass --config") from wrong
        raise
    for name, value in settings.environment.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    return settings


def _find(config: Path | None) -> Path | None:
    if config is not None:
        return config
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    return next((place for place in CONFIG_PLACES if place.is_file()), None)
