"""Files made at commissioning, beside each other in one folder for each view: its references, its calibration."""

from __future__ import annotations

from pathlib import Path

from agent.deploy.durable import Disk, failure
from wire import ids
from wire.errors import LinesideError


def root_of(data_dir: Path) -> Path:
    """Return the folder that an agent and its commands mean, in the agent's data folder."""
    return data_dir / "commissioned"


def folder_of(root: Path, station: str, view: str) -> Path:
    """Return the folder of a view.

    Raises:
        LinesideError: `usage.invalid` where a name is none.
    """
    return root / checked(station) / checked(view)


def checked(name: str) -> str:
    """Return a name that may stand in a path.

    Raises:
        LinesideError: `usage.invalid` where it may not.
    """
    if not ids.is_name(name):
        raise LinesideError("usage.invalid", f"{name!r} is no name.", "Names have small letters, digits and hyphens.")
    return name


def read(path: Path) -> bytes | None:
    """Return the content of a file, None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failure(path, error) from error


def write(path: Path, data: bytes) -> None:
    """Write a file durably; after a power cut it is the old one or the new one."""
    Disk().write(path, data)


def remove(path: Path) -> bool:
    """Remove a file; False where there was none."""
    there = path.is_file()
    Disk().remove(path)
    return there
