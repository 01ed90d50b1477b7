"""The seam to whoever can wake a device: a hint that its desired document changed; losing it costs only time."""

from __future__ import annotations

from typing import Protocol


class Announcer(Protocol):
    """Wakes devices."""

    def wake(self, device: str, desired_revision: int) -> None:
        """Hint that the desired document has a new revision; never waits and never raises."""


class RecordingAnnouncer:
    """Remembers the hints; for tests."""

    def __init__(self) -> None:
        self.wakes: list[tuple[str, int]] = []

    def wake(self, device: str, desired_revision: int) -> None:
        """Remember the hint."""
        self.wakes.append((device, desired_revision))
