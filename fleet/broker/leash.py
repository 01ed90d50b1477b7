"""Starts a program that ends with its parent, whatever ends the parent: `python leash.py PARENT_PID PROGRAM [ARG...]`.

Asks the kernel for SIGKILL at the parent's death (prctl PR_SET_PDEATHSIG) and becomes the program by `exec`, so the
process id stays. A program of its own, because code between fork and exec of a process with threads may deadlock.
Standard library only; on other systems than Linux the program simply runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and become the program."""
    parent = int(arguments[0])
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was asked
            raise SystemExit(1)
    os.execv(arguments[1], arguments[1:])  # noqa: S606 - the parent gave a fixed list of arguments


if __name__ == "__main__":
    main(sys.argv[1:])
