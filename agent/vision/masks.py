"""Masks in source pixels: a field is interpolated at the middle of each pixel, and is the mask where it is positive.

Source of the rule: ultralytics, utils/ops.py, process_mask_native (scale the values, then cut them), with bilinear
interpolation between the middles of the cells, as OpenCV and PyTorch (align_corners=False) place them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Field
from agent.vision.geometry import Geometry

MAX_CORNERS: Final = 64
_BAND_PIXELS: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A mask in source pixels.

    Args:
        pixels: (height, width) bool, from the pixel (left_px, top_px) on.
    """

    pixels: NDArray[np.bool_]
    left_px: int
    top_px: int

    @property
    def area_px(self) -> int:
        return int(np.count_nonzero(self.pixels))

    def tight(self) -> Mask | None:
        """Return the mask without empty rows and columns at its sides; None where nothing is left."""
        rows, columns = np.flatnonzero(self.pixels.any(axis=1)), np.flatnonzero(self.pixels.any(axis=0))
        if not len(rows):
            return None
        top, left = int(rows[0]), int(columns[0])
        return Mask(
            pixels=self.pixels[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1],
            left_px=self.left_px + left,
            top_px=self.top_px + top,
        )

    def runs(self) -> tuple[int, ...]:
        """Return the run lengths, row by row, starting with a run of zeros (which may be 0 long)."""
        flat = self.pixels.ravel()
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        ends = np.concatenate([[0], changes, [flat.size]])
        lengths = np.diff(ends).tolist()
        return (0, *lengths) if flat.size and flat[0] else tuple(lengths)

    def polygon(self) -> tuple[tuple[float, float], ...] | None:
        """Return the outline of the largest part through the middles of its outermost pixels, at most 64 corners."""
        outlines, _ = cv2.findContours(self.pixels.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        if not outlines:
            return None
        outline = max(outlines, key=cv2.contourArea)
        tolerance_px = 1.0
        corners = cv2.approxPolyDP(outline, tolerance_px, closed=True)
        while len(corners) > MAX_CORNERS:
            tolerance_px *= 2.0
            corners = cv2.approxPolyDP(outline, tolerance_px, closed=True)
        if len(corners) < 3:
            return None
        x, y = self.left_px + 0.5, self.top_px + 0.5
        return tuple((float(corner[0][0]) + x, float(corner[0][1]) + y) for corner in corners)


def pixels_of(field: Field, box_xyxy: tuple[float, float, float, float], geometry: Geometry) -> Mask | None:
    """Return a candidate's mask; None where it covers no pixel of the source.

    Args:
        box_xyxy: of the candidate, in source pixels, clipped to the source. A cropped mask has the pixels of this box,
            widened to whole ones, and none whose middle lies outside it.
    """
    window = box_xyxy if field.cropped else _to_source(field.region_xyxy, geometry)
    left, top = math.floor(window[0]), math.floor(window[1])
    width, height = math.ceil(window[2]) - left, math.ceil(window[3]) - top
    if width <= 0 or height <= 0:
        return None
    middles = np.array([[left + 0.5, top + 0.5, left + width - 0.5, top + height - 0.5]], dtype=np.float32)
    first_x, first_y, last_x, last_y = geometry.to_network(middles).astype(np.float64)[0].tolist()
    x1, y1, x2, y2 = field.region_xyxy
    rows, columns = field.values.shape
    across = (np.linspace(first_x, last_x, width) - x1) / (x2 - x1) * columns - 0.5
    down = (np.linspace(first_y, last_y, height) - y1) / (y2 - y1) * rows - 0.5
    with np.errstate(all="ignore"):  # what is no number is not positive
        pixels = _positive(field.values, down, across)
    if not field.cropped:
        return Mask(pixels=pixels, left_px=left, top_px=top).tight()
    middle_x, middle_y = np.arange(width) + left + 0.5, np.arange(height) + top + 0.5
    pixels &= (middle_x >= window[0]) & (middle_x < window[2])
    pixels &= ((middle_y >= window[1]) & (middle_y < window[3]))[:, np.newaxis]
    return Mask(pixels=pixels, left_px=left, top_px=top) if pixels.any() else None


def _to_source(box_xyxy: tuple[float, float, float, float], geometry: Geometry) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = geometry.to_source(np.array([box_xyxy], dtype=np.float32))[0].tolist()
    return x1, y1, x2, y2


def _positive(values: NDArray[np.float32], down: NDArray[np.float64], across: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where the values, interpolated at places given in cells, are positive, (len(down), len(across))."""
    above, below, share = _between(down, values.shape[0])
    left, right, part = _between(across, values.shape[1])
    rows = values[:, left] * (np.float32(1.0) - part) + values[:, right] * part
    pixels = np.empty((len(down), len(across)), dtype=bool)
    band = max(_BAND_PIXELS // max(len(across), 1), 1)
    for start in range(0, len(down), band):
        one = slice(start, start + band)
        weight = share[one, np.newaxis]
        pixels[one] = rows[above[one]] * (np.float32(1.0) - weight) + rows[below[one]] * weight > 0.0
    return pixels


def _between(places: NDArray[np.float64], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the cells before and after each place, and how near it is to the one after."""
    clamped = np.clip(places, 0.0, count - 1)
    before = np.floor(clamped).astype(np.intp)
    return before, np.minimum(before + 1, count - 1), (clamped - before).astype(np.float32)
