"""Which processes a test started, and where they listen: read from the kernel, not from what the code under test remembers."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import psutil


def below(folder: Path) -> list[psutil.Process]:
    """Every live process whose command line names something in this folder, with its children."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.update({one.pid: one for one in (process, *process.children(recursive=True))})
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return list(found.values())


def listeners(processes: Iterable[psutil.Process]) -> dict[int, str]:
    """Port to address of every TCP socket on which these processes listen."""
    sockets = [one for process in processes for one in process.net_connections(kind="tcp") if one.status == psutil.CONN_LISTEN]
    return {one.laddr.port: one.laddr.ip for one in sockets}


def beyond_loopback(addresses: dict[int, str]) -> dict[int, str]:
    """Those of `listeners` that others could reach."""
    return {port: address for port, address in addresses.items() if not _is_loopback(address)}


def _is_loopback(address: str) -> bool:
    parsed = ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)
