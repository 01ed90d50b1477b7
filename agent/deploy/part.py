"""A download that is not finished: a file that grows, of which a power cut puts no more than the last MiB in doubt."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, Self, TypeVar

from agent.deploy.durable import Disk, failure

SUFFIX: Final = ".part"
SYNC_BYTES: Final = 1024 * 1024
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC

P = ParamSpec("P")
T = TypeVar("T")


def certain_bytes(size: int) -> int:
    """Return how many bytes of a part of that size are on disk for sure, whatever ended the process.

    A full `SYNC_BYTES` is made durable before any byte after it is written; of the last one nothing is known.
    """
    return max(0, size - 1) // SYNC_BYTES * SYNC_BYTES


class Part:
    """The bytes of one blob that have come so far. Use it in a `with` statement; an empty one leaves no file.

    Raises:
        LinesideError: `storage.full` or `storage.corrupt`, from every method; what was written before stays.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._descriptor = -1
        self.length = 0

    def __enter__(self) -> Self:
        self._disk.before(f"open {self._path.name}")
        self._descriptor = self._try(os.open, self._path, _FLAGS, 0o644)
        self.length = self._try(os.fstat, self._descriptor).st_size
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if self.length == 0:
            self._disk.remove(self._path)

    def write(self, piece: bytes) -> None:
        """Add bytes at the end."""
        left = memoryview(piece)
        while left:
            fitting = left[: SYNC_BYTES - self.length % SYNC_BYTES]
            written = self._try(os.write, self._descriptor, fitting)
            self.length += written
            if self.length % SYNC_BYTES == 0:
                self._sync()
            left = left[written:]

    def restart(self) -> None:
        """Forget all that has come."""
        self._cut(0)

    def digest(self) -> str:
        """Hash what has come."""

        def hashed() -> str:
            with self._path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()

        return self._try(hashed)

    def trim(self) -> None:
        """Cut off what may not be on disk although the file's length says so; call it at start, not in a `with`."""
        with self:
            self._cut(certain_bytes(self.length))

    def _cut(self, length: int) -> None:
        if length < self.length:
            self._disk.before(f"cut {self._path.name}")
            self._try(os.ftruncate, self._descriptor, length)
            self.length = length
            self._sync()  # or a power cut brings wrong bytes back, which then count a second time

    def _sync(self) -> None:
        self._disk.before(f"sync {self._path.name}")
        self._try(os.fdatasync, self._descriptor)

    def _try(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return action(*args, **kwargs)
        except OSError as error:
            raise failure(self._path, error) from error
