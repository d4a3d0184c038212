"""`redkv inspect`: what is in a spec, a manifest, an SST file or an internal key. No node is asked."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from pipeline.cli.output import Format, OutputOption, print_json, size
from pipeline.cli.versions import moment
from pipeline.format.errors import ObjectMissingError, RedkvError, UsageError
from pipeline.format.layout import manifest_key
from pipeline.format.manifest import Manifest
from pipeline.load.look import describe_key, shown
from pipeline.settings import load_settings
from pipeline.spec import DATE_PLACEHOLDER, load_spec
from pipeline.store import ObjectStore

FIRST_SHOWN = 10
SAMPLES_SHOWN = 5

app = typer.Typer(help="What is in a spec, a manifest, an SST file or an internal key. No node is asked.", no_args_is_help=True)


@app.command()
def spec(file: Annotated[Path, typer.Argument(help="The dataset spec (YAML).")], output: OutputOption = Format.TEXT) -> None:
    """Check a spec without its table, and show what it comes to.

    Example: redkv inspect spec person.yaml
    """
    found = load_spec(file)
    told: dict[str, Any] = {
        "dataset": found.dataset,
        "prefix": found.prefix,
        "key_columns": list(found.key_template.columns),
        "columns": list(found.named_columns),
        "dated": DATE_PLACEHOLDER in (found.source.where or ""),
        "spec": found.model_dump(mode="json", exclude_none=True),
    }
    if output is Format.JSON:
        print_json(told)
        return
    source = f"{found.source.table}{f' where {found.source.where}' if found.source.where else ''}"
    _print(
        dataset=found.dataset,
        source=source,
        key=found.key,
        prefix=f"{found.prefix} (all keys that start so are the dataset's)",
        type=found.type,
        mode=found.mode,
        columns=", ".join(found.named_columns),
    )


@app.command()
def manifest(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="A manifest file, or a dataset.")],
    version: Annotated[str | None, typer.Argument(help="With a dataset: the version id.")] = None,
    output: OutputOption = Format.TEXT,
) -> None:
    """Show what a finished version consists of: from a file, or from the store.

    Example: redkv inspect manifest person 2026-11-22
    """
    found = _manifest(context, what, version)
    if output is Format.JSON:
        print_json(json.loads(found.to_json()))
        return
    total = found.totals
    _print(
        version=f"{found.dataset} {found.version}, build {found.build_id}, {moment(found.built_at_ms)} UTC",
        mode=f"{found.mode}, {found.type}, keys under {found.prefix}",
        **({"lies on": ", ".join(f"{one.version} (build {one.build_id})" for one in found.bases)} if found.bases else {}),
        rows=f"{total.source_rows:,}: {total.stored_rows:,} stored, {total.duplicates:,} duplicates, {total.skipped:,} skipped",
        keys=f"{total.keys:,}, {total.entries:,} entries, {total.deletes:,} deletes",
        files=f"{len(found.files)}, {size(total.bytes)}",
        **({"in all": f"{found.whole.keys:,} keys, {found.whole.entries:,} entries"} if found.whole else {}),
    )
    for one in found.files:
        slots = f"slots {one.slots.first}-{one.slots.last}"
        typer.echo(f"{one.object_key}  {slots}  {one.keys:,} keys  {one.entries:,} entries  {one.deletes:,} deletes  {size(one.bytes)}")
    samples = ", ".join(shown(one.key) for one in found.samples[:SAMPLES_SHOWN])
    typer.echo(f"{len(found.samples)} samples, e.g. {samples}" if samples else "no samples")


@app.command()
def sst(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="A file, or an object key of the store as a manifest names it.")],
    first: Annotated[int, typer.Option(min=0, help="Show so many of the first entries.")] = FIRST_SHOWN,
    output: OutputOption = Format.TEXT,
) -> None:
    """Show an SST file: how many entries, from which key to which, and the first of them.

    Example: redkv inspect sst 00000-17-000.sst --first 3
    """
    if Path(file).exists():
        told = _look(Path(file), first)
    else:
        store = ObjectStore(load_settings(context.obj).store)
        with TemporaryDirectory(prefix="redkv-inspect-") as folder:
            path = Path(folder) / Path(file).name
            try:
                path.write_bytes(store.get(file).data)
            except ObjectMissingError as missing:
                raise UsageError(f"{file} is neither a file here nor an object of {store.root}", file=file) from missing
            told = _look(path, first) | {"file": file}
    if output is Format.JSON:
        print_json(told)
        return
    _print(
        file=told["file"],
        entries=f"{told['entries']:,}, {size(told['bytes'])}",
        smallest=_key(told["smallest"]),
        largest=_key(told["largest"]),
    )
    for one in told["first"]:
        typer.echo(_entry(one))


@app.command()
def key(internal_key: Annotated[str, typer.Argument(help="An internal key in hex digits.")], output: OutputOption = Format.TEXT) -> None:
    """Show the parts of an internal key, as files, manifests and logs have it. For a row's key, see `redkv key`.

    Example: redkv inspect key 331b017b706c616e657d5f4e3134323238
    """
    try:
        raw = bytes.fromhex(internal_key)
    except ValueError as wrong:
        raise UsageError(f"{internal_key!r} is no internal key: write it in hex digits; for a row's key, see `redkv key`") from wrong
    told = describe_key(raw)
    if output is Format.JSON:
        print_json(told)
    else:
        _print(**{name: str(value) for name, value in told.items()})


def _manifest(context: typer.Context, what: str, version: str | None) -> Manifest:
    if version is None:
        try:
            return Manifest.from_json(Path(what).read_bytes(), what)
        except OSError as unreadable:
            message = f"{what} can't be read as a file ({unreadable}); of a version in the store, name both: DATASET VERSION"
            raise UsageError(message, file=what) from unreadable
    store, where = ObjectStore(load_settings(context.obj).store), manifest_key(what, version)
    try:
        return Manifest.from_json(store.get(where).data, where)
    except ObjectMissingError as missing:
        raise UsageError(f"{store.root} has no finished version {version} of {what}", dataset=what, version=version) from missing


def _look(path: Path, first: int) -> dict[str, Any]:
    """RocksDB is read by a process of the build job's package."""
    if importlib.util.find_spec("udtf") is None:
        raise UsageError("looking into SST files needs the build job's package: pip install 'redkv[spark]'")
    command = [sys.executable, "-m", "udtf.look", str(path.resolve()), "--first", str(first)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError as broken:
        raise UsageError(f"{path} could not be looked at: {done.stderr.strip()[-500:]}", file=str(path)) from broken
    if "error" in told:
        raise RedkvError.from_json(told["error"])
    return told


def _key(told: Mapping[str, Any]) -> str:
    parts = [f"slot {told['slot']}", told["kind"], told.get("user_key", ""), told.get("detail", "")]
    return " ".join(part for part in parts if part)


def _entry(told: Mapping[str, Any]) -> str:
    if "broken" in told:
        return f"{told['internal_key']}  {told['broken']}"
    known = {"internal_key", "slot", "kind", "user_key", "detail", "element_version"}
    rest = "  ".join(f"{name} {value}" for name, value in told.items() if name not in known)
    return f"{_key(told)}  {rest}"


def _print(**lines: str) -> None:
    width = max(map(len, lines)) + 2
    for name, text in lines.items():
        typer.echo(f"{name.replace('_', ' '):<{width}}{text}")
