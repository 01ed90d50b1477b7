"""Who this device is to the fleet: the credential that enrolment left on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from wire import codec
from wire.enrolment import Enrolment
from wire.errors import LinesideError

_FILE_NAME: Final = "enrolment.json"
_ROOM_BYTES: Final = 4096
_ENROL: Final = (
    "Get a claim token from the fleet (lineside-fleet claim create) and run: lineside enroll --config FILE --token -"
)


def read(data_dir: Path, device: str) -> Enrolment:
    """Return what enrolment left.

    Raises:
        LinesideError: `config.missing_file` before enrolment, `config.invalid_value` where it is another device's,
            `storage.corrupt` where it is damaged.
    """
    path = data_dir / _FILE_NAME
    try:
        enrolment = codec.decode(path.read_bytes(), Enrolment)
    except FileNotFoundError as error:
        raise LinesideError(
            "config.missing_file",
            f"{path}: this device is not enrolled.",
            _ENROL,
        ) from error
    except LinesideError as error:
        raise LinesideError("storage.corrupt", f"{path} is damaged: {error.message}", _ENROL) from error
    except OSError as error:
        raise LinesideError(
            "config.missing_file", f"{path}: cannot be read ({error.strerror}).", "Check the path and its permissions."
        ) from error
    if enrolment.device != device:
        raise LinesideError(
            "config.invalid_value",
            f"{path} belongs to {enrolment.device}, the settings name {device}.",
            "Correct [device] id, or enrol this device again.",
        )
    return enrolment


def name(data_dir: Path) -> str:
    """Return the name under which this device is enrolled.

    Raises:
        LinesideError: `config.missing_file` before enrolment, `storage.corrupt` where it is damaged.
    """
    path = data_dir / _FILE_NAME
    try:
        return codec.decode(path.read_bytes(), Enrolment).device
    except OSError as error:
        raise LinesideError("config.missing_file", f"{path}: this device is not enrolled.", _ENROL) from error
    except LinesideError as error:
        raise LinesideError("storage.corrupt", f"{path} is damaged: {error.message}", _ENROL) from error


def reserve(data_dir: Path) -> None:
    """Make sure that `write` will find a folder and room; raises OSError where it would not."""
    data_dir.mkdir(parents=True, exist_ok=True)
    _write_through(_temporary(data_dir), bytes(_ROOM_BYTES))


def write(data_dir: Path, enrolment: Enrolment) -> Path:
    """Keep what enrolment gave, readable by this user only; replaces an older one as a whole."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / _FILE_NAME
    temporary = _temporary(data_dir)
    _write_through(temporary, codec.encode(enrolment))
    temporary.replace(path)
    return path


def _temporary(data_dir: Path) -> Path:
    return (data_dir / _FILE_NAME).with_suffix(".tmp")


def _write_through(path: Path, data: bytes) -> None:
    """Write over what is there, so that room once reserved is used."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
