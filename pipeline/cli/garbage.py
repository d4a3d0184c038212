"""`redkv gc`: what no manifest names leaves the object store."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pipeline.cli.output import Format, OutputOption, duration, print_json, size
from pipeline.load.garbage import AGE_MIN_S, Garbage, find_garbage, remove_garbage
from pipeline.settings import load_settings
from pipeline.store import ObjectStore

_HOUR_S = 3600.0


def gc(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list.")] = False,
    older_than: Annotated[
        float, typer.Option(min=0.0, help="Hours since a build wrote last. A build that goes on is named by no manifest yet.")
    ] = AGE_MIN_S / _HOUR_S,
    output: OutputOption = Format.TEXT,
) -> None:
    """Delete files that no manifest names: of failed builds, and of task attempts that did not commit.

    Example: redkv gc --dry-run
    """
    store = ObjectStore(load_settings(context.obj).store)
    now_s = time.time()
    found = []
    for one in find_garbage(store, now_s, older_than * _HOUR_S):
        if not dry_run:
            remove_garbage(store, one)
        found.append(one)
        if output is Format.TEXT:
            typer.echo(_line(one, now_s))
    if output is Format.JSON:
        builds = [_record(one) for one in found]
        print_json({"deleted": not dry_run, "builds": builds})
        return
    what = f"{sum(len(one.objects) for one in found)} objects, {size(sum(one.bytes for one in found))}"
    typer.echo(f"{'found' if dry_run else 'deleted'} {what}" if found else "no garbage")


def _record(one: Garbage) -> dict[str, object]:
    objects = [file.key for file in one.objects]
    return {"dataset": one.dataset, "version": one.version, "build_id": one.build_id, "objects": objects, "bytes": one.bytes}


def _line(one: Garbage, now_s: float) -> str:
    age = duration(now_s - one.modified_s)
    return f"{one.dataset} {one.version} build {one.build_id}: {len(one.objects)} objects, {size(one.bytes)}, last written {age} ago"
