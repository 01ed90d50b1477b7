"""What vitals measure of a picture: a thumbnail of single pixels, a few whole rows, and numbers from both.

A thumbnail takes single pixels (nearest neighbour), because averaging reads every pixel of the picture: at 1080p this
costs hundredths of a millisecond instead of several. What is lost on a thumbnail is fine detail, so sharpness and
corruption are measured on the bands, at full resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

THUMBNAIL_WIDTH_PX: Final = 160
ROWS: Final = 24
DARK_BELOW: Final = 16
SATURATED_ABOVE: Final = 250
_COARSE_PX: Final = 16
_RAMP: Final = (2**2 - 1) / (_COARSE_PX**2 - 1)  # what a picture without any detail, a plain ramp, would measure
_CELL_PX: Final = 16  # a macroblock of H.264 and MPEG-4
_SMEARED_PART: Final = 6
_STRUCTURE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is looked at of one picture; a copy, so the picture may be overwritten.

    Args:
        thumbnail_bgr: (h, w, 3) uint8, at most 160 px wide: single pixels of the picture.
        thumbnail: (h, w) uint8, the same in grey.
        view: (h, w) uint8 grey, each pixel the mean of four of the picture's: what shifts are measured on.
        rows: (n, W) uint8 grey: at most 47 whole rows of the picture, evenly from top to bottom.
        width_px, height_px: of the picture.
    """

    thumbnail_bgr: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]
    view: NDArray[np.uint8]
    rows: NDArray[np.uint8]
    width_px: int
    height_px: int


def sample(image_bgr: NDArray[np.uint8]) -> Sample:
    """Take the sample of a picture, (H, W, 3) uint8."""
    height, width = image_bgr.shape[:2]
    step = -(-width // THUMBNAIL_WIDTH_PX)
    wide, high = max(width // step, 1), max(height // step, 1)
    if step == 1:
        small = image_bgr.copy()
        view = thumbnail = _grey(small)
    else:
        double = cv2.resize(image_bgr, (wide * 2, high * 2), interpolation=cv2.INTER_NEAREST)
        small = np.asarray(cv2.resize(double, (wide, high), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
        thumbnail = _grey(small)
        view = np.asarray(cv2.resize(_grey(double), (wide, high), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return Sample(
        thumbnail_bgr=small,
        thumbnail=thumbnail,
        view=view,
        rows=_rows(image_bgr),
        width_px=width,
        height_px=height,
    )


def dark_share(thumbnail: NDArray[np.uint8]) -> float:
    """Return the share of pixels below 16."""
    return int(np.count_nonzero(thumbnail < DARK_BELOW)) / thumbnail.size


def saturated_share(thumbnail: NDArray[np.uint8]) -> float:
    """Return the share of pixels above 250."""
    return int(np.count_nonzero(thumbnail > SATURATED_ABOVE)) / thumbnail.size


def sharpness(rows: NDArray[np.uint8]) -> float:
    """Return how much of a picture's contrast over 16 pixels is already there over 2; 0: no detail at all.

    With E(d) the mean square of the differences between pixels d apart in a row: (E(2) - E(1)) / (E(16) - E(1)), less
    what a plain ramp gives. A sensor's noise adds the same to every E(d) and cancels out, and so do brightness and
    contrast: a measure of detail alone would call a noisy picture sharp and a dim one blurred.

    Args:
        rows: (n, W) uint8 grey.
    """
    if rows.shape[1] <= _COARSE_PX:
        return 0.0
    noise = _difference(rows, 1)
    coarse = _difference(rows, _COARSE_PX) - noise
    return max((_difference(rows, 2) - noise) / coarse - _RAMP, 0.0) if coarse > 0.0 else 0.0


def smeared_share(rows: NDArray[np.uint8]) -> float:
    """Return the share of 16 px cells of the rows that repeat, to one grey level, over a sixth of the picture or more.

    This is how a decoder fills what it could not decode: it carries the row above down, column by column. Cells
    without any structure (an empty background) count as whole.

    Args:
        rows: (n, W) uint8 grey.
    """
    count, width = rows.shape
    cells = width // _CELL_PX
    length = max(count // _SMEARED_PART, 2)
    if count <= length or not cells:
        return 0.0
    whole = rows[:, : cells * _CELL_PX]
    change = _of_cells(cv2.dilate, cv2.absdiff(whole[1:], whole[:-1]))
    structure = cv2.subtract(_of_cells(cv2.dilate, whole[1:]), _of_cells(cv2.erode, whole[1:]))
    smeared = _in_runs(change <= 1, length) & (structure >= _STRUCTURE)
    return float(np.count_nonzero(smeared)) / smeared.size


def filled_share(seen: Sample) -> float:
    """Return the share of the picture in exactly the grey or green of a decoder that has nothing to show."""
    # Luma and chroma 128 become a grey of 128 to 130; all three 0 become a pure green.
    grey = cv2.inRange(seen.thumbnail_bgr, (126, 126, 126), (132, 132, 132))
    green = cv2.inRange(seen.thumbnail_bgr, (0, 60, 0), (2, 255, 2))
    filled = cv2.bitwise_or(grey, green)[1:, 1:]
    if not filled.size or not cv2.countNonZero(filled):
        return 0.0
    # A grey object has noise; in a filled area neighbours are equal, too.
    equal = cv2.compare(seen.thumbnail[1:, 1:], seen.thumbnail[:-1, :-1], cv2.CMP_EQ)
    return cv2.countNonZero(cv2.bitwise_and(filled, equal)) / filled.size


def _grey(image_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def _rows(image_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    distance = max(image_bgr.shape[0] // ROWS, 1)
    return _grey(np.ascontiguousarray(image_bgr[distance // 2 :: distance]))


def _of_cells(how: Callable[..., Any], rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the largest (cv2.dilate) or smallest (cv2.erode) value of each 16 px cell of each row, (n, W / 16)."""
    reached = how(rows, np.ones((1, _CELL_PX), dtype=np.uint8), anchor=(0, 0))
    return np.ascontiguousarray(reached[:, ::_CELL_PX], dtype=np.uint8)


def _difference(rows: NDArray[np.uint8], distance_px: int) -> float:
    before, after = rows[:, :-distance_px], rows[:, distance_px:]
    return float(cv2.norm(after, before, cv2.NORM_L2SQR)) / before.size


def _in_runs(marked: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Return what of (n, cells) lies in a vertical run of at least `length` marks."""
    count = marked.shape[0] - length + 1
    whole = marked[:count].copy()
    for offset in range(1, length):
        whole &= marked[offset : offset + count]
    found = np.zeros_like(marked)
    for offset in range(length):
        found[offset : offset + count] |= whole
    return found
