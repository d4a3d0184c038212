"""`redkv key`: which Redis key a row has, and where it lives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.output import Format, OutputOption, print_json
from pipeline.format.errors import UsageError
from pipeline.format.slots import key_slot
from pipeline.load.documents import ClusterDocuments
from pipeline.settings import load_settings
from pipeline.spec import load_spec
from pipeline.store import ObjectStore


def key(
    context: typer.Context,
    spec: Annotated[Path, typer.Argument(help="The dataset spec.")],
    columns: Annotated[list[str], typer.Argument(help="The key's columns, as column=text.")],
    output: OutputOption = Format.TEXT,
) -> None:
    """Print the key that a row has, its slot, and the shard that owns it.

    Example: redkv key person.yaml id=42
    """
    template = load_spec(spec).key_template
    values = _columns(columns)
    if unknown := sorted(values.keys() - set(template.columns)):
        message = f"{', '.join(unknown)} is not in the key {template.source!r}: give {', '.join(dict.fromkeys(template.columns))} only"
        raise UsageError(message, unknown=unknown)
    name = template.render(values)
    slot = key_slot(name)
    settings = load_settings(context.obj)
    owner = ClusterDocuments(ObjectStore(settings.store), settings.cluster).topology().owner_of(slot)
    text = name.decode(errors="backslashreplace")
    if output is Format.JSON:
        place = None if owner is None else {"shard": owner.name, "host": owner.host, "port": owner.port}
        print_json({"key": text, "slot": slot, "owner": place})
        return
    typer.echo(f"key    {text}")
    typer.echo(f"slot   {slot}")
    typer.echo(f"owner  {f'{owner.name} at {owner.host}:{owner.port}' if owner else 'none: the topology leaves this slot out'}")


def _columns(given: list[str]) -> dict[str, bytes]:
    columns = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise UsageError(f"{one!r} is no column: write column=text, e.g. id=42", argument=one)
        columns[name] = text.encode()
    return columns
