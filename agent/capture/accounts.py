"""Where the frames of one view went, and how the view is: what a feed tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from agent.capture.demand import ViewDemand
from agent.capture.frame import Vital


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCounts:
    """Where a source's frames went since the feed was opened.

    Args:
        frames_in: that the source had, those included that it could not hand on.
        used: judged.
        not_triggered: taken, and belonging to no part.
        dropped: per reason: "replaced", "overflow" (no room), "unreadable", "stale" (gathered before a stream was
            opened), "lost" (the camera's own count says so), "restarted", "closed".
        waiting: not taken yet, or taken and not released yet.
    """

    frames_in: int
    used: int
    not_triggered: int
    dropped: dict[str, int]
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedHealth:
    """How one view is now.

    Args:
        connected: frames come, or could come at any moment.
        trouble: why none come, empty where nothing is wrong.
        frame_age_ms: since the newest frame arrived, None before the first.
        restarts: of the camera's process.
        raised: what has been wrong with the picture for long enough to say so.
        process_id: of the camera's process, None where the source has none.
    """

    connected: bool
    trouble: str = ""
    frame_age_ms: float | None = None
    restarts: int = 0
    raised: tuple[Vital, ...] = ()
    process_id: int | None = None


@runtime_checkable
class Supervised(Protocol):
    """What a live source can do beside giving frames; any thread may ask."""

    @property
    def trouble(self) -> str:
        """Why no frames come; empty where nothing is wrong."""

    @property
    def restarts(self) -> int:
        """How often its process had to be started anew."""

    @property
    def process_id(self) -> int | None:
        """Of the process that runs now."""

    def dropped(self) -> Mapping[str, int]:
        """Frames that the camera gave and that were not handed on, per reason; they only grow."""

    def demand(self, demand: ViewDemand) -> None:
        """Lock the camera; frames exposed otherwise carry Vital.SETTINGS from now on."""
