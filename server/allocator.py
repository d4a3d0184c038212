"""Who gives the process its memory: jemalloc, where the system has it (Debian: libjemalloc2), else the C library.

RocksDB unpacks a block into memory of its own for every read that misses its cache, and each reply is memory of the size of its value:
pieces of some KiB, taken and given back at once. glibc keeps none of that size at hand, jemalloc does (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from ctypes.util import find_library

_PRELOAD = "LD_PRELOAD"
_TRIED = "REDKV_JEMALLOC_TRIED"  # where the loader does not heed LD_PRELOAD, and takes it away, nothing else tells


def prefer_jemalloc() -> None:
    """Begin the process anew with jemalloc, under the same process id; returns if it has jemalloc, or can't have it.

    An allocator can't be changed once it has given memory. Whoever has set LD_PRELOAD has chosen, and keeps what is there.
    """
    if _PRELOAD in os.environ or _TRIED in os.environ or not sys.executable or _mallctl() is not None:
        return
    with suppress(OSError):  # it would be quicker, no more
        library = find_library("jemalloc")
        if library is not None:
            os.execve(sys.executable, sys.orig_argv, os.environ | {_PRELOAD: library, _TRIED: "yes"})  # noqa: S606 -- the same command


def allocator() -> str:
    """What gives this process its memory, as INFO words it: `jemalloc-5.3.0`, or `libc` for any other."""
    mallctl = _mallctl()
    if mallctl is None:
        return "libc"
    version, size = ctypes.c_char_p(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_char_p))
    mallctl(b"version", ctypes.byref(version), ctypes.byref(size), None, ctypes.c_size_t(0))
    return f"jemalloc-{(version.value or b'').decode().partition('-')[0]}"


def _mallctl() -> ctypes._NamedFuncPointer | None:
    """What jemalloc tells of itself by; None if the process has another allocator."""
    return getattr(ctypes.CDLL(None), "mallctl", None)
