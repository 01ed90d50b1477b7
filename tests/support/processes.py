"""Processes that a test has started, told from those that are ending or were left to this process by others."""

from __future__ import annotations

import contextlib

import psutil


def children(word: str) -> list[psutil.Process]:
    """Return what runs below this process with `word` in its command line; what has ended, reaped or not, is none."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one too
            if word in " ".join(process.cmdline()):
                found.append(process)
    return found
