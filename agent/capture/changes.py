"""Does a camera's picture still change? Noise alone changes it; one that stays equal to the last bit is not looking."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SAMPLE_ROWS: Final = 16


class ChangeWatch:
    """Compares each picture with the one before it, mostly by a few of its rows."""

    def __init__(self) -> None:
        self._sample: NDArray[np.uint8] | None = None
        self._checksum: int | None = None

    def changed(self, image_bgr: NDArray[np.uint8]) -> bool:
        """Return whether any pixel of (H, W, 3) uint8 differs from the picture before.

        The checksum of the whole picture is only made where the sample is equal, so the first of several equal pictures
        after a change outside the sample may still count as equal.
        """
        sample = image_bgr[:: max(1, image_bgr.shape[0] // _SAMPLE_ROWS)]
        before, self._sample = self._sample, sample.copy()
        if before is None or before.shape != sample.shape or not np.array_equal(before, sample):
            self._checksum = None
            return True
        checksum_before, self._checksum = self._checksum, zlib.crc32(np.ascontiguousarray(image_bgr).data)
        return checksum_before is not None and checksum_before != self._checksum
