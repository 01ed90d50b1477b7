"""How the agent's last run ended, told from marks in the outbox: what a power cut may have cost is said, not hidden."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Final, Protocol

_RUNNING_KEY: Final = "running_since_boot"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# See agent/uplink/flusher.py: what is younger when the power goes may not be on the disk yet.
SYNC_WITHIN_MS: Final = 100


class Ending(enum.StrEnum):
    """How a run ended."""

    FIRST = "first"  # there was none
    CLEAN = "clean"
    KILLED = "killed"  # the process died; what it had handed to the kernel is there
    POWER_CUT = "power_cut"  # the machine died: the records of the last moment may be gone


class Marks(Protocol):
    """The agent's own marks: the outbox."""

    def meta_get(self, key: str) -> str | None: ...
    def meta_set(self, key: str, value: str) -> None: ...


def former(marks: Marks, boot_id: str | None = None) -> Ending:
    """Return how the last run ended.

    Args:
        boot_id: of the machine's run, by default the kernel's own; where it is unknown a crash counts as a power cut.
    """
    now = boot_id if boot_id is not None else _machine_boot()
    mark = marks.meta_get(_RUNNING_KEY)
    if mark is None:
        return Ending.FIRST
    if mark == "":
        return Ending.CLEAN
    return Ending.KILLED if mark == now != "unknown" else Ending.POWER_CUT


def begin(marks: Marks, boot_id: str | None = None) -> Ending:
    """Return how the last run ended, and note that a new one has begun; call it once nothing keeps it from running.

    A start that fails before, for a camera or a setting, is no run: it must not look like a crash to the next one.

    Raises:
        LinesideError: `storage.full` where the mark finds no room.
    """
    now = boot_id if boot_id is not None else _machine_boot()
    ended = former(marks, now)
    marks.meta_set(_RUNNING_KEY, now)
    return ended


def end(marks: Marks) -> None:
    """Note that the run ends in good order; call it last."""
    marks.meta_set(_RUNNING_KEY, "")


def _machine_boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or "unknown"
    except OSError:
        return "unknown"
