"""The machine in turns: tests run side by side, and one that is marked `alone` runs while no other does."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DOOR, _MACHINE = 0, 1  # two bytes of the file, each a lock of its own


class Turns:
    """What all workers of one run share: a file that they lock.

    A test shares the machine, or has it. Whoever wants in passes a door; who wants the machine holds the door while the
    tests inside end, so that no later test slips in before it. The locks end with the process that holds them.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR)

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn and have it: with whoever else shares the machine, or with nobody."""
        self._lock(fcntl.LOCK_EX, _DOOR)
        try:
            self._lock(fcntl.LOCK_EX if alone else fcntl.LOCK_SH, _MACHINE)
        finally:
            self._lock(fcntl.LOCK_UN, _DOOR)
        try:
            yield
        finally:
            self._lock(fcntl.LOCK_UN, _MACHINE)

    def _lock(self, kind: int, place: int) -> None:
        fcntl.lockf(self._file, kind, 1, place)
