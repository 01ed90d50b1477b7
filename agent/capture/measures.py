"""What vitals measure of a picture: a thumbnail of single pixels, thin bands of whole rows, and numbers from both.

A thumbnail takes single pixels (nearest neighbour), because averaging reads every pixel of the picture: at 1080p this
costs 0.02 ms instead of a millisecond. What is lost on a thumbnail is fine detail, so sharpness and corruption are
measured on the bands, at full resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

THUMBNAIL_WIDTH_PX: Final = 160
BANDS: Final = 24
BAND_ROWS: Final = 4
DARK_BELOW: Final = 16
SATURATED_ABOVE: Final = 250
_FINE_PX: Final = 2
_COARSE_PX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is looked at of one picture.

    Args:
        thumbnail: (h, w) uint8 grey, at most 160 px wide, every `step`-th pixel of the picture.
        bands: (rows, W) uint8 grey, thin bands of neighbouring rows at full resolution.
        width_px, height_px: of the picture.
    """

    thumbnail: NDArray[np.uint8]
    bands: NDArray[np.uint8]
    width_px: int
    height_px: int

    @property
    def step(self) -> float:
        """Source pixels for each thumbnail pixel."""
        return self.width_px / self.thumbnail.shape[1]


def sample(image_bgr: NDArray[np.uint8]) -> Sample:
    """Take the sample of a picture, (H, W, 3) uint8; the picture itself may be overwritten afterwards."""
    height, width = image_bgr.shape[:2]
    step = -(-width // THUMBNAIL_WIDTH_PX)
    size = (max(width // step, 1), max(height // step, 1))
    small = cv2.resize(image_bgr, size, interpolation=cv2.INTER_NEAREST)
    distance = max(height // BANDS, BAND_ROWS)
    count = max(height // distance, 1)
    rows = image_bgr[: count * distance].reshape(count, -1, width, 3)[:, :BAND_ROWS]
    return Sample(
        thumbnail=np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), dtype=np.uint8),
        bands=np.asarray(cv2.cvtColor(rows.reshape(-1, width, 3), cv2.COLOR_BGR2GRAY), dtype=np.uint8),
        width_px=width,
        height_px=height,
    )


def dark_share(thumbnail: NDArray[np.uint8]) -> float:
    """Return the share of pixels below 16."""
    return float(np.count_nonzero(thumbnail < DARK_BELOW)) / thumbnail.size


def saturated_share(thumbnail: NDArray[np.uint8]) -> float:
    """Return the share of pixels above 250."""
    return float(np.count_nonzero(thumbnail > SATURATED_ABOVE)) / thumbnail.size


def sharpness(bands: NDArray[np.uint8]) -> float:
    """Return the energy of differences over 2 pixels, as a share of that over 16: light and contrast cancel out."""
    if bands.shape[1] <= _COARSE_PX:
        return 0.0
    fine = cv2.norm(bands[:, _FINE_PX:], bands[:, :-_FINE_PX], cv2.NORM_L2SQR)
    coarse = cv2.norm(bands[:, _COARSE_PX:], bands[:, :-_COARSE_PX], cv2.NORM_L2SQR)
    return float(fine / coarse) if coarse else 0.0
