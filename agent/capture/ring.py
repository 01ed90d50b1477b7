"""Pictures in memory that two processes share: written by a camera's process, read where they lie by the agent.

The memory has no name in any folder: it is passed as a file descriptor and is gone with the last process that maps it,
however that process ended. It is sealed, so that a process gone mad cannot shrink it under the agent's feet.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.capture.camera_messages import Ring
from wire.errors import LinesideError

_PAGE_BYTES: Final = mmap.PAGESIZE
# A ring is only as large as its touched pages, yet a burst touches them all.
_MOST_BYTES: Final = 512 * 1024 * 1024
_FEWEST_SLOTS: Final = 4


class RingWriter:
    """The camera's side. A slot is written, told, and written again only after the reader has given it back."""

    def __init__(self, generation: int, frame_bytes: int, slots: int) -> None:
        slot_bytes = -(-frame_bytes // _PAGE_BYTES) * _PAGE_BYTES
        slots = max(_FEWEST_SLOTS, min(slots, _MOST_BYTES // slot_bytes))
        self.size = Ring(generation=generation, slots=slots, slot_bytes=slot_bytes)
        self.fd = _shared_memory(slots * slot_bytes)
        self._memory = mmap.mmap(self.fd, slots * slot_bytes)
        # The slot given back last is used first: its pages are in the cache, and pages never needed stay untouched.
        self._free = list(range(slots))

    @property
    def has_room(self) -> bool:
        return bool(self._free)

    def take(self) -> int | None:
        """Return a free slot, None where the reader has them all."""
        return self._free.pop() if self._free else None

    def give(self, slot: int) -> None:
        """Take a slot back."""
        if 0 <= slot < self.size.slots and slot not in self._free:
            self._free.append(slot)

    def picture(self, slot: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
        """Return a slot as (H, W, 3) uint8 to write into."""
        return _picture(self._memory, self.size, slot, height_px, width_px)

    def close(self) -> None:
        """Forget the memory; pictures that somebody still holds keep it."""
        os.close(self.fd)
        with contextlib.suppress(BufferError):
            self._memory.close()


class RingReader:
    """The agent's side; pictures cannot be written to, and keep the memory for as long as they live.

    Args:
        fd: comes with the message; it is closed here.

    Raises:
        LinesideError: `source.unavailable` where the memory is not what the message says.
    """

    def __init__(self, fd: int, size: Ring) -> None:
        try:
            length = size.slots * size.slot_bytes
            if not 0 < length <= os.fstat(fd).st_size or not _is_sealed(fd):
                raise LinesideError("source.unavailable", f"A camera's process gave memory that is not {length} bytes.")
            self._memory = mmap.mmap(fd, length, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise LinesideError(
                "source.unavailable", f"The memory of a camera's process cannot be shared: {error}."
            ) from error
        finally:
            os.close(fd)
        self.size = size

    def picture(self, slot: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
        """Return a slot as (H, W, 3) uint8, read-only.

        Raises:
            LinesideError: `source.unreadable` where there is no such slot or the picture is larger than one.
        """
        if not 0 <= slot < self.size.slots or not 0 < height_px * width_px * 3 <= self.size.slot_bytes:
            raise LinesideError("source.unreadable", f"No picture of {width_px} x {height_px} lies in slot {slot}.")
        return _picture(self._memory, self.size, slot, height_px, width_px)


def _picture(memory: mmap.mmap, size: Ring, slot: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
    return np.ndarray((height_px, width_px, 3), dtype=np.uint8, buffer=memory, offset=slot * size.slot_bytes)


def _shared_memory(length: int) -> int:
    """Return the descriptor of zeroed memory without a name."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            os.ftruncate(file.fileno(), length)
            return os.dup(file.fileno())
    fd = os.memfd_create("lineside-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, length)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


def _is_sealed(fd: int) -> bool:
    if not hasattr(os, "memfd_create"):
        return True
    return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
