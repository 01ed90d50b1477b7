"""The lock by which a person or another system says that the line must not be touched now; it always has an end."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec

from agent.deploy.durable import Disk
from wire import codec
from wire.errors import LinesideError
from wire.inspection import Utc

log = logging.getLogger(__name__)

FILE_NAME: Final = "line-busy.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineBusy:
    """The line is busy.

    Args:
        until: it frees itself then.
        why: for whoever wonders.
    """

    until: Utc
    why: Annotated[str, msgspec.Meta(max_length=200)] = ""


def read(data_dir: Path, now_utc: datetime) -> LineBusy | None:
    """Return the lock in force; one that is over, or that cannot be read, is none."""
    try:
        found = codec.decode((data_dir / FILE_NAME).read_bytes(), LineBusy)
    except FileNotFoundError:
        return None
    except (OSError, LinesideError) as error:
        log.debug("The lock of the line is of no use: %s", error)
        return None
    return found if now_utc < found.until else None


def take(data_dir: Path, lock: LineBusy, disk: Disk | None = None) -> None:
    """Set the lock, in place of another one.

    Raises:
        LinesideError: `storage.full` or `storage.corrupt`.
    """
    (disk or Disk()).write(data_dir / FILE_NAME, codec.encode(lock))


def free(data_dir: Path) -> None:
    """Remove the lock, where there is one.

    Raises:
        LinesideError: `storage.corrupt`.
    """
    Disk().remove(data_dir / FILE_NAME)
