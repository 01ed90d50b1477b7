"""Kept pictures: encoded on a thread of their own while the model runs, and spooled for the fleet."""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Frame
from wire.errors import LinesideError
from wire.sampling import Draw

log = logging.getLogger(__name__)

JPEG_QUALITY: Final = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOfPart:
    """Whose picture one is.

    Args:
        draw: of the part; None where the picture is kept outside of the sampling plan.
        at: when it was triggered.
        gate_rate: of the sampling plan in force.
    """

    draw: Draw | None
    at: datetime
    gate_rate: float = 0.0


class Spool(Protocol):
    """Where encoded pictures wait for the fleet."""

    def offer(self, digest: str, data: bytes, part: PictureOfPart) -> bool: ...


def jpeg(image_bgr: NDArray[np.uint8]) -> tuple[bytes, str]:
    """Encode a picture.

    Args:
        image_bgr: (H, W, 3) uint8.

    Returns:
        The JPEG file and its SHA-256.

    Raises:
        LinesideError: `source.unreadable` where the encoder refuses the picture.
    """
    done, data = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise LinesideError("source.unreadable", f"A picture of shape {image_bgr.shape} cannot be encoded.")
    content = data.tobytes()
    return content, hashlib.sha256(content).hexdigest()


class PictureKeeper:
    """Whether a part's picture is kept is drawn before it is judged, so encoding runs beside the model."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")

    def keep(self, frame: Frame, part: PictureOfPart) -> Future[str | None]:
        """Encode and spool a frame; its digest, or None where there was no room for it."""
        return self._pool.submit(self._keep, frame, part)

    def close(self) -> None:
        """Finish what was begun."""
        self._pool.shutdown()

    def _keep(self, frame: Frame, part: PictureOfPart) -> str | None:
        try:
            data, digest = jpeg(frame.image_bgr)
        except (LinesideError, cv2.error) as error:
            log.warning("A picture of %s was not kept: %s", frame.camera, error, extra={"event": "picture.dropped"})
            return None
        return digest if self._spool.offer(digest, data, part) else None
