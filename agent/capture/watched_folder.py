"""A folder that another program puts pictures into: each new, finished file is a frame."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.capture.camera import Exposure
from agent.capture.camera_messages import Opened
from agent.capture.folder import SUFFIXES, read_picture
from agent.capture.frame import NoFrame, TimeClass, Vital
from wire.desired import CameraSettings
from wire.errors import LinesideError

_POLL_S: Final = 0.02
_SETTLED_S: Final = 0.04
_UNFINISHED_S: Final = 1.0
_MOST_FILES: Final = 20_000
_TAIL_BYTES: Final = 4096
_ENDS: Final = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}

Mark = tuple[int, int]  # time of the last change in ns, size in bytes


class WatchedFolder:
    """Pictures that are there when it is opened are old and passed over; a file written over is a new picture.

    Args:
        remove: delete each picture once it has been read, so that the folder does not fill.
    """

    time_class = TimeClass.ARRIVAL_ONLY
    steady = False
    settling_frames = 0

    def __init__(self, path: str, *, remove: bool = False) -> None:
        self._folder = Path(path)
        self._remove = remove
        self._seen: dict[str, Mark] = {}
        self._pending: dict[str, tuple[Mark, float]] = {}
        self._current: Path | None = None

    def open(self) -> Opened:
        """Note what lies there already.

        Raises:
            LinesideError: `source.unavailable`.
        """
        self._seen = self._list()
        return Opened(backend="folder")

    def grab(self, timeout_s: float) -> Exposure | NoFrame:
        """Return the oldest new picture that nobody writes to any more.

        Raises:
            LinesideError: `source.unavailable` where the folder is gone.
        """
        until = time.monotonic() + timeout_s
        while (found := self._next()) is None:
            if time.monotonic() >= until:
                return NoFrame(reason="no new picture", expected=True)
            time.sleep(_POLL_S)
        return found

    def retrieve(self, into: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:  # noqa: ARG002
        """Read the picture."""
        if self._current is None:
            return None
        image = read_picture(self._current)
        if self._remove:
            self._current.unlink(missing_ok=True)
        self._current = None
        return None if isinstance(image, str) else image

    def lock(self, settings: CameraSettings) -> str:  # noqa: ARG002
        """Say that files have no camera."""
        return "pictures in a folder cannot be told exposure, gain or white balance"

    def close(self) -> None:
        """Nothing is held open."""

    def _next(self) -> Exposure | None:
        now = time.monotonic()
        files = self._list()
        self._seen = {name: mark for name, mark in self._seen.items() if name in files}
        self._pending = {name: pending for name, pending in self._pending.items() if name in files}
        for name, mark in sorted(files.items(), key=lambda entry: (entry[1][0], entry[0])):
            if self._seen.get(name) == mark:
                continue
            pending = self._pending.get(name)
            if pending is None or pending[0] != mark:
                self._pending[name] = (mark, now)
                return None  # those behind it wait: frames keep their order
            waited_s = now - pending[1]
            path = self._folder / name
            finished = waited_s >= _SETTLED_S and _is_finished(path)
            if not finished and waited_s < _UNFINISHED_S:
                return None
            del self._pending[name]
            self._seen[name] = mark
            self._current = path
            return Exposure(exposed_ns=time.monotonic_ns(), vitals=() if finished else (Vital.CORRUPT,))
        return None

    def _list(self) -> dict[str, Mark]:
        found: dict[str, Mark] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or os.path.splitext(entry.name)[1].lower() not in SUFFIXES:  # noqa: PTH122
                        continue
                    if len(found) >= _MOST_FILES:
                        raise LinesideError(
                            "source.unavailable",
                            f"{self._folder} holds over {_MOST_FILES} pictures.",
                            "Clear it; options = { remove = true } deletes each picture once it has been read.",
                        )
                    try:
                        status = entry.stat()
                    except FileNotFoundError:  # moved away meanwhile
                        continue
                    if status.st_size and entry.is_file():
                        found[entry.name] = (status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise LinesideError(
                "source.unavailable", f"The folder {self._folder} cannot be read: {error.strerror}.", "Check the path."
            ) from error
        return found


def _is_finished(path: Path) -> bool:
    """Return whether the file ends as its format does; formats without an end are taken as they are."""
    end = _ENDS.get(path.suffix.lower())
    if end is None:
        return True
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return end in file.read(_TAIL_BYTES)
    except OSError:
        return False
