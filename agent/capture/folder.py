"""A folder of pictures, or one picture, as a source: in the order of their names, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass
from agent.clock import Clock, SystemClock
from wire.errors import LinesideError

SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MAX_PICTURE_BYTES: Final = 256 * 1024 * 1024


class FolderSource:
    """The pictures directly in a folder; a name that starts with a dot is passed over.

    Args:
        path: of the folder or of one picture.
        camera: name the frames carry.
        every_nth: 1 reads every picture.
    """

    def __init__(self, path: Path | str, camera: str, *, every_nth: int = 1, clock: Clock | None = None) -> None:
        self._path = Path(path)
        self._camera = camera
        self._every_nth = max(1, every_nth)
        self._clock = clock or SystemClock()
        self._pictures: list[Path] = []
        self._next = 0

    def open(self) -> SourceInfo:
        """List the pictures.

        Raises:
            LinesideError: `source.unavailable` where the path does not exist, `source.unreadable` where it holds none.
        """
        if self._path.is_file():
            self._pictures = [self._path]
        elif self._path.is_dir():
            found = (path for path in self._path.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
            self._pictures = sorted(path for path in found if not path.name.startswith("."))
        else:
            raise LinesideError("source.unavailable", f"There is no folder or picture {self._path}.", "Check the path.")
        if not self._pictures:
            raise LinesideError(
                "source.unreadable",
                f"{self._path} holds no pictures.",
                f"Pictures end in {', '.join(sorted(SUFFIXES))}.",
            )
        self._next = 0
        return SourceInfo(
            camera=self._camera, time_class=TimeClass.RECORDED, live=False, frame_count=len(self._pictures)
        )

    def name_of(self, number: int) -> str:
        """Return the file name of a frame."""
        return self._pictures[number].name

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:  # noqa: ARG002  (files never time out)
        """Return the next picture; NoFrame says why one cannot be read; the next one follows."""
        number = self._next
        if number >= len(self._pictures):
            return Ended()
        self._next += self._every_nth
        image = read_picture(self._pictures[number])
        if isinstance(image, str):
            return NoFrame(reason=image)
        return Frame(
            camera=self._camera,
            number=number,
            exposed_utc=self._clock.now_utc(),
            exposed_ns=self._clock.monotonic_ns(),
            image_bgr=image,
        )

    def close(self) -> None:
        """Forget the list."""
        self._pictures = []


def read_picture(path: Path) -> NDArray[np.uint8] | str:
    """Return a picture as (H, W, 3) uint8 BGR, or the reason why it cannot be read."""
    try:
        if path.stat().st_size > MAX_PICTURE_BYTES:
            return f"{path.name} is over {MAX_PICTURE_BYTES} bytes"
        data = np.fromfile(path, dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    except cv2.error as error:  # a header that announces more pixels than OpenCV takes
        return f"{path.name} cannot be decoded: {error.err}"
    if image is None:
        return f"{path.name} is not a picture that can be decoded"
    return np.asarray(image, dtype=np.uint8)
