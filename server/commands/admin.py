"""REDKV: how the sidecar of this node tells a shard what to serve (pipeline/format/admin.py). On the Unix socket only."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from pipeline.format.admin import ShardStatus, parse_slots_word
from pipeline.format.errors import ReplicatedSlotsError, UsageError
from server.commands.registry import Family
from server.resp.replies import OK, bulk, integer
from server.session import Session
from server.storage.rocks import COMPACTION_BYTES, LEVEL0_FILES
from server.storage.upserts import Unit

FAMILY = Family("admin", "")

FAMILY.container("redkv", admin_only=True)

_log = structlog.get_logger("server.admin")


@FAMILY.command("redkv|status", 2, "admin", admin_only=True)
def status(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """What this shard serves, as JSON."""
    services = session.services
    live = services.engine.live.database
    return bulk(
        ShardStatus(
            shard=services.settings.name,
            pid=os.getpid(),
            topology_epoch=services.cluster.epoch,
            datasets=services.versions.status(),
            upserts=services.upserts.status(),
            live_keys=live.keys_estimate(),
            live_level0_files=live.property(LEVEL0_FILES),
            live_compaction_bytes=live.property(COMPACTION_BYTES),
        ).to_json()
    )


@FAMILY.command("redkv|register", 4, "admin", admin_only=True)
async def register(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Let a dataset own a prefix."""
    dataset, prefix = _texts(words[2:])
    async with session.services.admin_lock:
        await session.services.versions.register(dataset, prefix)
    _log.info("registered", dataset=dataset, prefix=prefix)
    return OK


@FAMILY.command("redkv|unregister", 3, "admin", admin_only=True)
async def unregister(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Forget a dataset."""
    (dataset,) = _texts(words[2:])
    async with session.services.admin_lock:
        await session.services.versions.unregister(dataset)
    _log.info("unregistered", dataset=dataset)
    return OK


@FAMILY.command("redkv|open", 4, "admin", admin_only=True)
async def open_(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Open a published version."""
    dataset, version = _texts(words[2:])
    async with session.services.admin_lock:
        session.services.versions.open(dataset, version)
    _log.info("opened", dataset=dataset, version=version)
    return OK


@FAMILY.command("redkv|activate", 4, "admin", admin_only=True)
async def activate(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Let clients read a version."""
    dataset, version = _texts(words[2:])
    async with session.services.admin_lock:
        await session.services.versions.activate(dataset, version, lambda: session.services.cluster.held_slots)
    _log.info("activated", dataset=dataset, version=version)
    return OK


@FAMILY.command("redkv|expect", 4, "admin", admin_only=True)
async def expect(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Hear which version clients shall read."""
    dataset, version = _texts(words[2:])
    async with session.services.admin_lock:
        await session.services.versions.expect(dataset, version or None)
    return OK


@FAMILY.command("redkv|close", 4, "admin", admin_only=True)
async def close(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Close a version, so that its directory can be removed."""
    dataset, version = _texts(words[2:])
    async with session.services.admin_lock:
        session.services.versions.close(dataset, version)
    _log.info("closed", dataset=dataset, version=version)
    return OK


@FAMILY.command("redkv|pin", 4, "admin", admin_only=True)
def pin(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Let this connection read an opened version."""
    dataset, version = _texts(words[2:])
    session.pin(dataset, version)
    return OK


@FAMILY.command("redkv|unpin", 2, "admin", admin_only=True)
def unpin(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Let this connection read what everybody reads."""
    session.unpin()
    return OK


@FAMILY.command("redkv|topology", 2, "admin", admin_only=True)
def topology(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """Read the topology file again; the epoch after that."""
    epoch = session.services.cluster.reload()
    session.services.versions.follow(session.services.cluster.held_slots)
    _log.info("topology followed", epoch=epoch)
    return integer(epoch)


@FAMILY.command("redkv|latency", 2, "admin", admin_only=True)
def latency(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """How long clients' commands took since the start."""
    return bulk(session.services.latencies.report().to_json())


@FAMILY.command("redkv|upsert", -7, "admin", admin_only=True)
async def upsert(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Take the files of one ingest unit into the live database."""
    services = session.services
    dataset, prefix, version, build_id, slots, *files = _texts(words[2:])
    unit = Unit(dataset, prefix, version, build_id, parse_slots_word(slots))
    if services.cluster.is_replicated:
        raise ReplicatedSlotsError(
            f"shard {services.settings.name} has replicas or is one; live keys are not replicated yet, so it takes no upsert of {dataset}",
            dataset=dataset,
        )
    async with services.admin_lock:
        done = await services.upserts.ingest(unit, [Path(one) for one in files])
    _log.info("upserted" if done else "was upserted before", dataset=dataset, version=version, slots=slots, files=len(files))
    return integer(done)


def _texts(words: list[bytes]) -> list[str]:
    try:
        return [word.decode() for word in words]
    except UnicodeDecodeError as broken:
        raise UsageError(f"names and prefixes are UTF-8: {broken}") from broken
