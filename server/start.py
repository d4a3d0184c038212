"""The command line of a shard: `--config FILE.toml`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import uvloop

from pipeline.format.errors import RedkvError
from server import logs
from server.settings import load_settings
from server.shard import serve


def main() -> int:
    """Run one shard; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server", description="Run one serving shard.")
    parser.add_argument("--config", type=Path, required=True, help="TOML file of server.settings.ShardSettings")
    try:
        settings = load_settings(parser.parse_args().config)
        logs.configure(settings.name)
        uvloop.run(serve(settings))
    except RedkvError as failed:
        sys.stderr.write(f"{failed.message}\n")
        return failed.exit_code
    return 0
