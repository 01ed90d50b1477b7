"""The reference view: how a camera saw its place when it was commissioned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.capture import measures


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a view's pictures are held against.

    Args:
        thumbnail: (h, w) uint8 grey.
        width_px, height_px: of the picture it was taken from.
        sharpness: of that picture.
    """

    thumbnail: NDArray[np.uint8]
    width_px: int
    height_px: int
    sharpness: float


def of_picture(image_bgr: NDArray[np.uint8]) -> Reference:
    """Return the reference that one picture, (H, W, 3) uint8, gives."""
    seen = measures.sample(image_bgr)
    return Reference(
        thumbnail=seen.thumbnail,
        width_px=seen.width_px,
        height_px=seen.height_px,
        sharpness=measures.sharpness(seen.bands),
    )
