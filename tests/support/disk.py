"""What lies on a disk while others remove it: `Path.rglob` fails on a folder that goes as it looks."""

from __future__ import annotations

import os
from pathlib import Path


def lying_below(*roots: Path) -> list[Path]:
    """All files and folders in these folders, which need not exist."""
    return [Path(folder) / name for root in roots for folder, folders, files in os.walk(root) for name in (*folders, *files)]
