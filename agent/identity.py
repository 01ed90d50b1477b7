"""Who this device is to the fleet: the credential that enrolment left on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from wire import codec
from wire.enrolment import Enrolment
from wire.errors import LinesideError

_FILE_NAME: Final = "enrolment.json"


def read(data_dir: Path, device: str) -> Enrolment:
    """Return what enrolment left.

    Raises:
        LinesideError: `config.missing_file` before enrolment, `config.invalid_value` where it is another device's.
    """
    path = data_dir / _FILE_NAME
    try:
        enrolment = codec.decode(path.read_bytes(), Enrolment)
    except FileNotFoundError as error:
        raise LinesideError(
            "config.missing_file",
            f"{path}: this device is not enrolled.",
            "Get a claim token from the fleet (lineside-fleet claim create) and run: lineside enroll --token TOKEN.",
        ) from error
    except OSError as error:
        raise LinesideError("config.missing_file", f"{path}: cannot be read ({error.strerror}).") from error
    if enrolment.device != device:
        raise LinesideError(
            "config.invalid_value",
            f"{path} belongs to {enrolment.device}, the settings name {device}.",
            "Correct [device] id, or enrol this device again.",
        )
    return enrolment


def write(data_dir: Path, enrolment: Enrolment) -> Path:
    """Keep what enrolment gave, readable by this user only; replaces an older one as a whole."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / _FILE_NAME
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(codec.encode(enrolment))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    return path
