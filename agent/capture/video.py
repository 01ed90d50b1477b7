"""A video file as a source: every frame is grabbed, only those that are used are retrieved."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass
from agent.clock import Clock, SystemClock
from wire.errors import LinesideError


class VideoSource:
    """Frames 0, n, 2n, ... of a file; grabbing costs most of the decoding, retrieving the rest.

    Args:
        path: of the file.
        camera: name the frames carry.
        every_nth: 1 retrieves every frame.
    """

    def __init__(self, path: Path | str, camera: str, *, every_nth: int = 1, clock: Clock | None = None) -> None:
        self._path = Path(path)
        self._camera = camera
        self._every_nth = max(1, every_nth)
        self._clock = clock or SystemClock()
        self._capture: cv2.VideoCapture | None = None
        self._grabbed = False
        self._number = 0

    def open(self) -> SourceInfo:
        """Open the file and grab its first frame, so that what cannot be decoded is known now.

        Raises:
            LinesideError: `source.unavailable` where there is no file, `source.unreadable` where it is no video.
        """
        if not self._path.is_file():
            raise LinesideError("source.unavailable", f"There is no file {self._path}.", "Check the path.")
        # The name of the back end keeps OpenCV from trying others; one thread decodes faster than the models run.
        capture = cv2.VideoCapture(str(self._path.resolve()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not capture.isOpened() or not capture.grab():
            capture.release()
            raise LinesideError(
                "source.unreadable", f"{self._path} holds no video that can be decoded.", "Try to play the file."
            )
        self._capture, self._grabbed, self._number = capture, True, 0
        return SourceInfo(
            camera=self._camera,
            time_class=TimeClass.RECORDED,
            live=False,
            width_px=_known(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            height_px=_known(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            frames_per_s=capture.get(cv2.CAP_PROP_FPS) or None,
            frame_count=_known(capture.get(cv2.CAP_PROP_FRAME_COUNT)),
        )

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:  # noqa: ARG002  (files never time out)
        """Return the next frame that is used."""
        if self._capture is None:
            return Ended()
        while not self._grabbed:
            if not self._capture.grab():
                return Ended()
            self._number += 1
            self._grabbed = self._number % self._every_nth == 0
        self._grabbed = False
        number, exposed_ns, exposed_utc = self._number, self._clock.monotonic_ns(), self._clock.now_utc()
        retrieved, image = self._capture.retrieve()
        if not retrieved:
            return NoFrame(reason=f"frame {number} cannot be decoded")
        return Frame(
            camera=self._camera,
            number=number,
            exposed_utc=exposed_utc,
            exposed_ns=exposed_ns,
            image_bgr=np.asarray(image, dtype=np.uint8),
        )

    def close(self) -> None:
        """Close the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _known(value: float) -> int | None:
    return int(value) if value > 0 else None
