"""A frame, what a source says instead of one, and the seam every source keeps."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class TimeClass(enum.StrEnum):
    """What a source knows about when a frame was exposed."""

    HARDWARE_TRIGGERED = "hardware_triggered"  # the line's trigger fired the shutter
    DEVICE_TIMESTAMPED = "device_timestamped"  # the camera stamps each exposure
    ARRIVAL_ONLY = "arrival_only"  # only the time of arrival is known
    RECORDED = "recorded"  # a file: frames have an order and no live time


class Vital(enum.StrEnum):
    """What can be wrong with a picture or its camera."""

    FROZEN = "frozen"
    BLACK = "black"
    SATURATED = "saturated"
    BLURRED = "blurred"
    MOVED = "moved"
    WRONG_SIZE = "wrong_size"
    CORRUPT = "corrupt"
    SETTINGS = "settings"  # exposure, gain or white balance read back are not those it was locked to


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One picture of one view.

    Args:
        camera: name of the source.
        number: counts the source's frames from 0, gaps included.
        exposed_utc: wall clock of the exposure.
        exposed_ns: monotonic clock of the exposure, comparable with a trigger's time on this device.
        image_bgr: (H, W, 3) uint8.
        vitals: what is wrong with this very picture; a part that shows on it has no verdict.
        free: gives the pixels back to whoever owns them; called once, by the feed, when nobody looks at them any more.
    """

    camera: str
    number: int
    exposed_utc: datetime
    exposed_ns: int
    image_bgr: NDArray[np.uint8]
    vitals: tuple[Vital, ...] = ()
    free: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFrame:
    """No frame came in time, or the source has trouble.

    Args:
        expected: nothing is wrong; the source gives frames only now and then, and could give one at any moment.
    """

    reason: str
    expected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The source has no more frames and never will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What a source told of itself when it was opened; None where it does not know."""

    camera: str
    time_class: TimeClass
    live: bool
    width_px: int | None = None
    height_px: int | None = None
    frames_per_s: float | None = None
    frame_count: int | None = None


class Source(Protocol):
    """Where frames come from. One thread uses it at a time."""

    def open(self) -> SourceInfo:
        """Open it; raises LinesideError `source.unavailable` with the reason and what to do."""

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        """Return the next frame; files never time out."""

    def close(self) -> None:
        """Close it; closing twice is harmless."""
