"""Pictures as files: the form in which a kept frame is stored and sent."""

from __future__ import annotations

import hashlib
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from wire.errors import LinesideError

JPEG_QUALITY: Final = 90


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
