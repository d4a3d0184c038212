"""Builds a version without Spark, as a command: `python -m tests.support.prebuilt SETTINGS SPEC VERSION ROWS [BASE]`.

For tests that run beside this environment, without the job's packages. Rows have the columns `id` and `name`, which tells the version.
With a base they are what differs from it, or its table of changes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.settings import load_settings
from pipeline.spec import load_spec
from pipeline.store import ObjectStore
from tests.support.builds import build


def main() -> None:
    settings_path, spec_path, version, rows, *base = sys.argv[1:]
    settings, ids = load_settings(Path(settings_path)), [str(number) for number in range(int(rows))]
    columns = {"id": ids, "name": [f"{version} {one}" for one in ids]}
    build(ObjectStore(settings.store), load_spec(Path(spec_path)), version, columns, base=base[0] if base else None)


if __name__ == "__main__":
    main()
