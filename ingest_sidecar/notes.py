"""What a published directory says of itself: VERSION.json (pipeline/format/admin.py), SOURCES.json; an upsert's FILES.json."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from pydantic import Field

from pipeline.format.admin import VersionIdentity
from pipeline.format.errors import FormatError, FormatVersionError
from pipeline.format.layout import FILES_FILE, IDENTITY_FILE, SOURCES_FILE, ShardPaths
from pipeline.format.records import VersionedRecord


class Sources(VersionedRecord):
    """The file SOURCES.json in a version directory: of which file of the build each of its SST files is a link, by their names.

    In a delta's directory, a file of another build has that build's id and a slash in front of its name. `sha256` is that of every SST
    file, also of those that were written here: what the next delta begins with is held against it.
    """

    files: dict[str, str]
    sha256: dict[str, str] = Field(default_factory=dict)


class Files(VersionedRecord):
    """The file FILES.json in an upsert's directory: the SST files that it was published with, each by its name in the build."""

    names: dict[str, str]


def published(paths: ShardPaths, dataset: str, version: str) -> VersionIdentity | None:
    """What a published version directory says of itself; None if there is none, or none that can be read: it is made again."""
    identity = paths.version(dataset, version) / IDENTITY_FILE
    if not identity.is_file():
        return None
    try:
        return VersionIdentity.from_json(identity.read_bytes(), str(identity))
    except FormatVersionError:
        raise
    except FormatError:
        return None


def sources(directory: Path) -> dict[str, str]:
    """The files of a version directory that still are one of the build's: the name of each in the build, by its name here."""
    try:
        noted = Sources.from_json((directory / SOURCES_FILE).read_bytes(), str(directory / SOURCES_FILE))
    except (OSError, FormatError):
        return {}  # they are fetched again, if they are needed
    return {inside: name for inside, name in noted.files.items() if (directory / inside).exists()}


def reuse(directory: Path, build_id: str, wanted: Collection[str], folder: Path) -> None:
    """Link into `folder`, which is named after a build, what the directory of a version, of build `build_id`, still holds of that build's
    wanted files. What is there already stays.
    """
    before = "" if folder.name == build_id else f"{folder.name}/"
    for inside, noted in sources(directory).items():
        name = noted.removeprefix(before)
        if noted == before + name and name in wanted and not (folder / name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            os.link(directory / inside, folder / name)


def noted_files(directory: Path) -> dict[str, str] | None:
    """What FILES.json names: a file's name here, by its name in the build; None if it is not there, or can't be read."""
    try:
        return Files.from_json((directory / FILES_FILE).read_bytes(), str(directory / FILES_FILE)).names
    except (OSError, FormatError):
        return None
