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
_LEAST_WIDTH: Final = 0.4
_TINY: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is looked at of one picture; a copy, so the picture may be overwritten.

    Args:
        thumbnail_bgr: (h, w, 3) uint8, at most 160 px wide: single pixels of the picture.
        thumbnail: (h, w) uint8, the same in grey.
        view: (h, w) uint8 grey, each pixel the mean of two of the picture's: what shifts are measured on.
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
    # Two pixels beside each other lie in memory beside each other: the second costs next to nothing.
    double = np.asarray(
        cv2.resize(image_bgr, (min(wide * 2, width), high), interpolation=cv2.INTER_NEAREST), dtype=np.uint8
    )
    small = np.asarray(cv2.resize(double, (wide, high), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    return Sample(
        thumbnail_bgr=small,
        thumbnail=_grey(small),
        view=np.asarray(cv2.resize(_grey(double), (wide, high), interpolation=cv2.INTER_AREA), dtype=np.uint8),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """How fine a picture is, from the differences between pixels of a row.

    With E(d) the mean square of the differences between pixels d apart, fine = E(2) - E(1) less what a plain ramp of
    the same contrast gives, contrast = E(16) - E(1). A sensor's noise adds the same to every E(d) and cancels out; a
    measure that it enters calls a noisy picture sharp.

    Args:
        of_contrast: fine / contrast.
        of_light: fine / square of the mean brightness.
    """

    of_contrast: float
    of_light: float

    def relative_to(self, reference: Detail) -> float:
        """Return the sharpness as a share of a reference's.

        It is the larger of both measures: a large plain part adds contrast and takes nothing from the fine detail
        around it; an empty background has little detail, and little contrast.
        """
        return max(
            self.of_contrast / max(reference.of_contrast, _TINY),
            self.of_light / max(reference.of_light, _TINY),
        )


def detail(rows: NDArray[np.uint8]) -> Detail:
    """Measure how fine a picture is.

    Args:
        rows: (n, W) uint8 grey.
    """
    if rows.shape[1] <= _COARSE_PX:
        return Detail(of_contrast=0.0, of_light=0.0)
    noise = _difference(rows, 1)
    contrast = _difference(rows, _COARSE_PX) - noise
    fine = max(_difference(rows, 2) - noise - _RAMP * contrast, 0.0)
    light = cv2.mean(rows)[0]
    return Detail(
        of_contrast=fine / contrast if contrast > 0.0 else 0.0,
        of_light=fine / light**2 if light > 0.0 else 0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """How much of a picture looks like what a decoder delivers for what it could not decode, as shares of the picture.

    Args:
        smeared: the row above carried down, column by column. What has no structure (an empty background) counts as
            whole.
        filled: the very grey or green of a decoder that has nothing to show, without any noise.

    Both count over a sixth of the picture's height or more, and, as a decoder that lost its way spoils the row to its
    right end, over two fifths of its width or more: smaller places of this kind are in whole pictures, too.
    """

    smeared: float
    filled: float


def damage(seen: Sample) -> Damage:
    """Measure what looks like damage in a picture."""
    count, width = seen.rows.shape
    cells = width // _CELL_PX
    length = max(count // _SMEARED_PART, 2)
    if count <= length or not cells:
        return Damage(smeared=0.0, filled=0.0)
    whole = seen.rows[:, : cells * _CELL_PX]
    change = _of_cells(cv2.dilate, np.asarray(cv2.absdiff(whole[1:], whole[:-1]), dtype=np.uint8))
    repeated = _wide(_in_runs(change <= 1, length))
    if not repeated.any():
        return Damage(smeared=0.0, filled=0.0)
    structure = cv2.subtract(_of_cells(cv2.dilate, whole[1:]), _of_cells(cv2.erode, whole[1:]))
    smeared = int(np.count_nonzero(repeated & (structure >= _STRUCTURE))) / repeated.size
    plain = _wide(_in_runs((change == 0) & (structure == 0), length))
    filled = int(np.count_nonzero(plain)) / plain.size
    return Damage(smeared=smeared, filled=min(filled, _filled_share(seen.thumbnail_bgr)) if filled else 0.0)


def _filled_share(thumbnail_bgr: NDArray[np.uint8]) -> float:
    # Luma and chroma 128 become a grey of 128 to 130; all three 0 become a pure green.
    grey = cv2.inRange(thumbnail_bgr, (126, 126, 126), (132, 132, 132))
    green = cv2.inRange(thumbnail_bgr, (0, 60, 0), (2, 255, 2))
    return cv2.countNonZero(cv2.bitwise_or(grey, green)) / grey.size


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


def _wide(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what of (n, cells) lies in a row with marks over two fifths of its length."""
    wide: NDArray[np.bool_] = np.count_nonzero(marked, axis=1) >= _LEAST_WIDTH * marked.shape[1]
    return marked & wide[:, np.newaxis]


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
