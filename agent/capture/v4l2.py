"""A local camera through the kernel's video interface (V4L2). Proven against a fake only (docs/how-to/cameras.md)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Final, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.camera import Exposure, is_off
from agent.capture.camera_messages import Opened
from agent.capture.frame import NoFrame, TimeClass
from agent.capture.settings import V4l2Settings
from wire.desired import CameraSettings
from wire.errors import LinesideError

_MANUAL_EXPOSURE: Final = 1.0  # V4L2_EXPOSURE_MANUAL
_US_PER_UNIT: Final = 100.0  # V4L2_CID_EXPOSURE_ABSOLUTE counts in 100 microseconds
_DRIVER_BUFFERS: Final = 4
_OLDEST_STAMP_S: Final = 5.0


class Capture(Protocol):
    """What is used of cv2.VideoCapture."""

    def isOpened(self) -> bool: ...  # noqa: N802
    def grab(self) -> bool: ...
    def retrieve(self, image: NDArray[np.uint8] | None = None) -> tuple[bool, NDArray[np.uint8]]: ...
    def get(self, property_id: int) -> float: ...
    def set(self, property_id: int, value: float) -> bool: ...
    def release(self) -> None: ...


def open_device(path: str) -> Capture:
    """Open a device file, with the kernel's interface by name."""
    return cast("Capture", cv2.VideoCapture(path, cv2.CAP_V4L2))


class V4l2Camera:
    """One device from opening to loss.

    Args:
        path: best one of /dev/v4l/by-id, which stays the same whatever port the camera hangs on.
        stamped: the kernel's time stamps are used as exposure times; without it only the arrival is known.
        opener: for tests.
    """

    steady = True
    settling_frames = _DRIVER_BUFFERS

    def __init__(
        self,
        path: str,
        settings: V4l2Settings,
        *,
        read_timeout_s: float,
        stamped: bool = True,
        opener: Callable[[str], Capture] = open_device,
    ) -> None:
        self.time_class = TimeClass.DEVICE_TIMESTAMPED if stamped else TimeClass.ARRIVAL_ONLY
        self._path = path
        self._settings = settings
        self._read_timeout_s = read_timeout_s
        self._opener = opener
        self._capture: Capture | None = None

    def open(self) -> Opened:
        """Open the device with the size, rate and pixel format it must have.

        Raises:
            LinesideError: `source.unavailable` where it is not there, or does not take them.
        """
        # The only time-out this back end knows is one for the whole process, in whole seconds.
        os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(math.ceil(self._read_timeout_s))
        capture = self._opener(self._path)
        if not capture.isOpened():
            capture.release()
            raise LinesideError(
                "source.unavailable",
                f"{self._path} cannot be opened.",
                "Is it plugged in, and may this user read it (group video)? `ls -l /dev/v4l/by-id` lists cameras.",
            )
        try:
            self._set_format(capture)
        except LinesideError:
            capture.release()
            raise
        self._capture = capture
        return Opened(
            width_px=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)) or None,
            height_px=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) or None,
            frames_per_s=capture.get(cv2.CAP_PROP_FPS) or None,
            backend="V4L2",
        )

    def grab(self, timeout_s: float) -> Exposure | NoFrame:  # noqa: ARG002  (see open)
        """Wait for the next frame.

        Raises:
            LinesideError: `source.unavailable` where none came, or its time stamp cannot be one of this device's clock.
        """
        if self._capture is None or not self._capture.grab():
            raise LinesideError("source.unavailable", f"{self._path} gave no frame for {self._read_timeout_s:g} s.")
        arrived_ns = time.monotonic_ns()
        if self.time_class is TimeClass.ARRIVAL_ONLY:
            return Exposure(exposed_ns=arrived_ns)
        stamped_ns = int(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        if not 0 <= arrived_ns - stamped_ns <= _OLDEST_STAMP_S * 1e9:
            raise LinesideError(
                "source.unavailable",
                f"{self._path} stamps its frames with another clock than this device's.",
                'Say so: options = { time_class = "arrival_only" }.',
            )
        return Exposure(exposed_ns=stamped_ns)

    def retrieve(self, into: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        """Convert the frame; straight into `into` where it has that size."""
        if self._capture is None:
            return None
        retrieved, image = self._capture.retrieve() if into is None else self._capture.retrieve(into)
        return np.asarray(image, dtype=np.uint8) if retrieved else None

    def lock(self, settings: CameraSettings) -> str:
        """Turn the automatics off, set, and read back."""
        capture = self._capture
        if capture is None:
            return "the camera is not open"
        differing: list[str] = []

        def demand(name: str, property_id: int, value: float, unit: float = 1.0) -> None:
            if is_off(value, capture.get(property_id) * unit, settings.tolerance):
                capture.set(property_id, value / unit)
            found = capture.get(property_id) * unit
            if is_off(value, found, settings.tolerance):
                differing.append(f"{name} is {found:g} instead of {value:g}")

        if settings.exposure_us is not None:
            demand("automatic exposure", cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL_EXPOSURE)
            demand("exposure_us", cv2.CAP_PROP_EXPOSURE, settings.exposure_us, _US_PER_UNIT)
        if settings.gain_db is not None:
            demand("gain_db", cv2.CAP_PROP_GAIN, settings.gain_db)
        if settings.white_balance_k is not None:
            demand("automatic white balance", cv2.CAP_PROP_AUTO_WB, 0.0)
            demand("white_balance_k", cv2.CAP_PROP_WB_TEMPERATURE, settings.white_balance_k)
        return ", ".join(differing)

    def close(self) -> None:
        """Give the device back."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _set_format(self, capture: Capture) -> None:
        wanted = self._settings
        asked: list[tuple[str, int, float]] = []
        if wanted.pixel_format is not None:
            code = cv2.VideoWriter.fourcc(*wanted.pixel_format)
            asked.append(("pixel format", cv2.CAP_PROP_FOURCC, float(code)))
        if wanted.width_px is not None:
            asked.append(("width", cv2.CAP_PROP_FRAME_WIDTH, float(wanted.width_px)))
        if wanted.height_px is not None:
            asked.append(("height", cv2.CAP_PROP_FRAME_HEIGHT, float(wanted.height_px)))
        if wanted.frames_per_s is not None:
            asked.append(("frame rate", cv2.CAP_PROP_FPS, wanted.frames_per_s))
        for _, property_id, value in asked:
            capture.set(property_id, value)
        for name, property_id, value in asked:
            found = capture.get(property_id)
            if is_off(value, found, 0.01):
                raise LinesideError(
                    "source.unavailable",
                    f"{self._path} does not take the {name} it is set to (asked {value:g}, has {found:g}).",
                    f"`v4l2-ctl -d {self._path} --list-formats-ext` lists what it can.",
                )
