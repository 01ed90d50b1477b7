"""A camera on the network: RTSP or RTSPS, over TCP, with time-outs on everything."""

from __future__ import annotations

import os
import time
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.address import redact
from agent.capture.arrival import ArrivalClock
from agent.capture.camera import Exposure
from agent.capture.camera_messages import Opened
from agent.capture.decoder_damage import DamageWatch
from agent.capture.decoder_log import DecoderLog
from agent.capture.frame import NoFrame, TimeClass, Vital
from wire.desired import CameraSettings
from wire.errors import LinesideError

# No packet may be lost silently (TCP); nothing is gathered before the first picture (nobuffer), and the frame rate is
# not guessed from the stream, which would cost seconds at each start.
OPTIONS: Final = "rtsp_transport;tcp|fflags;nobuffer|fpsprobesize;0"
_LATE_SHARE: Final = 0.95
_FRAME_TYPE: Final = 69  # cv2.CAP_PROP_FRAME_TYPE, which older releases do not name


class RtspCamera:
    """One connection.

    Args:
        url: with user and password, where it needs them.
    """

    time_class = TimeClass.ARRIVAL_ONLY
    steady = True
    settling_frames = 0

    def __init__(self, url: str, *, open_timeout_s: float, read_timeout_s: float) -> None:
        self._url = url
        self._name = redact(url)
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s
        self._arrivals = ArrivalClock()
        self._capture: cv2.VideoCapture | None = None
        self._damage = DamageWatch()
        self._log: DecoderLog | None = None
        self._is_set_up = False

    def open(self) -> Opened:
        """Connect, and wait for what tells how the stream is decoded.

        Raises:
            LinesideError: `source.unavailable`.
        """
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = OPTIONS
        self._log = DecoderLog()
        # The name of the back end keeps OpenCV from trying others, some of which know no time-outs.
        began = time.monotonic()
        capture = cv2.VideoCapture(
            self._url,
            cv2.CAP_FFMPEG,
            [
                *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(self._open_timeout_s * 1000)),
                *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(self._read_timeout_s * 1000)),
                *(cv2.CAP_PROP_N_THREADS, 1),
            ],
        )
        if not capture.isOpened():
            capture.release()
            silent = time.monotonic() - began > self._open_timeout_s * _LATE_SHARE
            raise LinesideError(
                "source.unavailable",
                f"{self._name} did not answer within {self._open_timeout_s:g} s."
                if silent
                else f"{self._name} refused to be opened.",
                "Check that the camera is on, the address and the network."
                if silent
                else "Check the address and its path, user and password, and how many may watch at once.",
            )
        self._capture = capture
        return Opened(
            width_px=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)) or None,
            height_px=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) or None,
            frames_per_s=capture.get(cv2.CAP_PROP_FPS) or None,
            backend=capture.getBackendName(),
        )

    def grab(self, timeout_s: float) -> Exposure | NoFrame:  # noqa: ARG002  (the connection has a time-out of its own)
        """Wait for the next frame for as long as the read time-out.

        Raises:
            LinesideError: `source.unavailable` where none came, the other side hung up, or the pictures are of another
                size now: then only a new connection gives them as they are.
        """
        if self._capture is None or self._log is None:
            raise LinesideError("source.unavailable", f"{self._name} is not open.")
        began = time.monotonic()
        grabbed = self._capture.grab()
        arrived_ns = time.monotonic_ns()
        # After a time-out the decoder gives up the frame it kept back; that one is older than it looks.
        if time.monotonic() - began > self._read_timeout_s * _LATE_SHARE:
            raise LinesideError("source.unavailable", f"{self._name} gave no frame for {self._read_timeout_s:g} s.")
        if not grabbed:
            raise LinesideError("source.unavailable", f"{self._name} ended the stream.")
        said = self._log.read()
        if said.was_set_up and self._is_set_up:
            raise LinesideError("source.unavailable", f"{self._name} changed the format of its pictures.")
        self._is_set_up = True  # for the first frame
        stands_alone = self._capture.get(_FRAME_TYPE) == ord("I")
        damaged = self._damage.see(complained=said.complained, stands_alone=stands_alone)
        arrival = self._arrivals.stamp(arrived_ns, self._capture.get(cv2.CAP_PROP_POS_MSEC))
        vitals = (Vital.CORRUPT,) if damaged else ()
        return Exposure(exposed_ns=arrival.at_ns, stale=arrival.stale, vitals=vitals)

    def retrieve(self, into: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        """Convert the frame; straight into `into` where it has that size."""
        if self._capture is None:
            return None
        retrieved, image = self._capture.retrieve() if into is None else self._capture.retrieve(into)
        return np.asarray(image, dtype=np.uint8) if retrieved else None

    def lock(self, settings: CameraSettings) -> str:  # noqa: ARG002
        """Say that a stream cannot be told anything."""
        return "a stream over RTSP cannot be told exposure, gain or white balance; lock them on the camera's own page"

    def close(self) -> None:
        """Hang up."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
