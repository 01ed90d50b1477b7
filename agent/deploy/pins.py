"""Versions a person wants kept on this device whatever else is collected: `pins.json`, written by the command line."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from agent.deploy.durable import Disk, failure
from wire import codec
from wire.errors import LinesideError
from wire.ids import Digest

MAX_PINS: Final = 64
_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PinFile:
    """What the file holds."""

    pins: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=MAX_PINS)] = ()


class Pins:
    """The pinned versions. Any process may read; those that write take turns.

    Args:
        root: the store's folder.
    """

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self._path = root / "pins.json"
        self._disk = disk or Disk()

    def read(self) -> frozenset[str]:
        """Return the digests of the pinned versions.

        Raises:
            LinesideError: `storage.corrupt` where the file cannot be read; then nothing may be collected, for what is
                pinned is not known.
        """
        try:
            with self._path.open("rb") as stream:
                data = stream.read(_MAX_BYTES)
            return frozenset(codec.decode(data, PinFile).pins)
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise failure(self._path, error) from error
        except LinesideError as error:
            raise LinesideError(
                "storage.corrupt",
                f"{self._path} is damaged: {error.message} Nothing is collected until it is whole.",
                "Remove the file, then pin again what must stay: lineside models pin MODEL@RELEASE.",
            ) from error

    def pin(self, digest: str) -> bool:
        """Keep a version; return whether it was not kept yet.

        Raises:
            LinesideError: `resource.conflict` where `MAX_PINS` are kept already; what `read` raises; `storage.full`.
        """
        return self._change(digest, wanted=True)

    def unpin(self, digest: str) -> bool:
        """Keep a version no longer; return whether it was kept.

        Raises:
            LinesideError: what `read` raises, `storage.full`.
        """
        return self._change(digest, wanted=False)

    def _change(self, digest: str, *, wanted: bool) -> bool:
        lock = self._path.with_suffix(".lock")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise failure(lock, error) from error
        try:
            self._disk.hand_over(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = self.read()
            after = before | {digest} if wanted else before - {digest}
            if after == before:
                return False
            if len(after) > MAX_PINS:
                raise LinesideError(
                    "resource.conflict",
                    f"{MAX_PINS} versions are pinned already.",
                    "See `lineside models list`, and unpin one that is no longer needed.",
                )
            self._disk.write(self._path, codec.encode(PinFile(pins=tuple(sorted(after)))))
        finally:
            os.close(descriptor)
        return True
