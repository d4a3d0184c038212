"""Who gives the process its memory: jemalloc, where the system has it (Debian: libjemalloc2), else the C library.

RocksDB unpacks a block into memory of its own for every read that misses its cache, and each reply is memory of the size of its value:
pieces of some KiB, taken and given back at once. glibc keeps none of that size at hand; with jemalloc, a read of more data than the
caches hold costs about a seventh less.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes.util import find_library

_PRELOAD = "LD_PRELOAD"


def prefer_jemalloc() -> None:
    """Begin the process anew with jemalloc, under the same process id; returns if it has one of its own already, or the system has none.

    An allocator can't be changed once it has given memory; whoever has chosen another one by LD_PRELOAD keeps it.
    """
    chosen = os.environ.get(_PRELOAD, "")
    if "malloc" in chosen:
        return
    library = find_library("jemalloc")
    if library is None:
        return
    environment = os.environ | {_PRELOAD: f"{library}:{chosen}" if chosen else library}
    os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 -- the same command again


def allocator() -> str:
    """What gives this process its memory, as INFO words it: `jemalloc-5.3.0`, or `libc`."""
    process = ctypes.CDLL(None)
    if not hasattr(process, "mallctl"):
        return "libc"
    version, size = ctypes.c_char_p(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_char_p))
    process.mallctl(b"version", ctypes.byref(version), ctypes.byref(size), None, ctypes.c_size_t(0))
    return f"jemalloc-{(version.value or b'').decode().partition('-')[0]}"
