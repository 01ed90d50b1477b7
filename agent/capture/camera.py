"""A live camera as its own process sees it: grabbed at once, decoded only when there is room for the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.capture.camera_messages import Opened
from agent.capture.frame import NoFrame, TimeClass, Vital
from wire.desired import CameraSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """A frame that was grabbed and not decoded yet.

    Args:
        exposed_ns: monotonic clock of this device; of a camera that stamps no exposures, of its arrival.
        stale: gathered before the camera was opened; it is counted and never looked at.
        lost: frames exposed before it that never came, by the camera's own count.
        vitals: what the camera itself knows to be wrong with it.
    """

    exposed_ns: int
    stale: bool = False
    lost: int = 0
    vitals: tuple[Vital, ...] = ()


class Camera(Protocol):
    """One camera from opening to loss; it is never opened twice, its process ends instead.

    Attributes:
        time_class: known before the camera is opened.
        steady: frames come all the time, so that their absence is a fault.
        settling_frames: frames after a change of settings that may still have been exposed before it.
    """

    time_class: TimeClass
    steady: bool
    settling_frames: int

    def open(self) -> Opened:
        """Open it; raises LinesideError `source.unavailable`."""

    def grab(self, timeout_s: float) -> Exposure | NoFrame:
        """Return the next frame's exposure, or why none came in time.

        Raises:
            LinesideError: the camera is lost.
        """

    def retrieve(self, into: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        """Decode the frame that was grabbed last.

        Args:
            into: memory of the size of the frame before; where the picture fits, it may be written there and returned.

        Returns:
            (H, W, 3) or (H, W) uint8; None where it cannot be decoded.
        """

    def lock(self, settings: CameraSettings) -> str:
        """Set what is not None, read it back, and return what differs, for people; empty where all is as asked."""

    def close(self) -> None:
        """Give the camera back."""


def is_off(asked: float, found: float, tolerance: float) -> bool:
    """Return whether a setting read back differs by more than a share of what was asked."""
    return not abs(found - asked) <= tolerance * abs(asked)
