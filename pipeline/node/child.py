"""`python -m pipeline.node.child PARENT COMMAND...`: become COMMAND, to be killed by the kernel when the process PARENT ends.

The kernel keeps this promise whatever the command does, and however the parent dies. It is made in a process of its own, because code
between fork and exec would run in a copy of a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Never returns: the process is another program afterwards, or has ended."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        sys.exit(f"prctl failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it ended before the promise was made
        sys.exit(f"process {parent}, which was to watch this one, is gone")
    os.execv(command[0], command)  # noqa: S606 -- the program that this one becomes


if __name__ == "__main__":
    main()
