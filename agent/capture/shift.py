"""How far a camera looks beside the view it was commissioned with, whatever passes in front of it.

The shift is found by phase correlation (Kuglin and Hines 1975) of two thumbnails. Two things keep a passing part from
being taken for a moving camera: what stands still keeps a peak of its own at its place, and the reference's textured
patches vote: a shift counts only when far more of them are found there than where they were.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

LEAST_SIDE_PX: Final = 20  # of a view, for two patches beside each other
_MIN_PEAK: Final = 8.0  # in standard deviations of the correlation surface: chance reaches about 5 on 14,400 places
_MIN_PEAK_HERE: Final = 5.0
_MIN_PEAK_SHARE: Final = 0.5  # of the peak at the old place, which is left of it by edges along the shift
_MIN_FIT: Final = 0.5  # correlation of a patch with its like
_MIN_BETTER: Final = 0.2  # of two places, to vote for one: an edge along the shift fits at both
_MIN_VOTES: Final = 3
_MAJORITY: Final = 3
_PATCH_PX: Final = 10
_MIN_TEXTURE: Final = 1.5
_LARGEST_SHARE: Final = 0.45  # beyond this too little of both views overlaps


class Place(enum.StrEnum):
    """Where a picture's view lies."""

    HERE = "here"  # where the reference is, within the limit
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"  # the picture has too little in common with the reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A picture held against the reference view.

    Args:
        x_px, y_px: how far its content lies to the right of and below the reference's, in source pixels; right to about
            one thumbnail pixel (8 source pixels at 720p, 12 at 1080p).
    """

    place: Place
    x_px: float
    y_px: float


class ShiftMeter:
    """Measures shifts against one reference view.

    Args:
        view: (h, w) uint8 grey, as in `Sample`, both sides at least 20.
        step_px: source pixels for each of its pixels.
        limit_px: in source pixels; shifts up to here are none.
    """

    def __init__(self, view: NDArray[np.uint8], *, step_px: float, limit_px: float) -> None:
        self._step_px = step_px
        patches = _patches(view.astype(np.float32))
        sizes = np.linalg.norm(patches, axis=1, keepdims=True)
        self._textured = np.flatnonzero(sizes[:, 0] > _MIN_TEXTURE * _PATCH_PX)
        self._patches = patches[self._textured] / sizes[self._textured]
        tops, lefts = np.divmod(self._textured, view.shape[1] // _PATCH_PX)
        self._tops, self._lefts = tops * _PATCH_PX, lefts * _PATCH_PX
        # Even sides make one packing of spectra.
        high, wide = self._high, self._wide = view.shape[0] // 2 * 2, view.shape[1] // 2 * 2
        self._window = cv2.createHanningWindow((wide, high), cv2.CV_32F)
        self._spectrum = self._spectrum_of(view)
        down = np.minimum(np.arange(high), high - np.arange(high))[:, np.newaxis]
        across = np.minimum(np.arange(wide), wide - np.arange(wide))[np.newaxis]
        # A peak lies on whole thumbnail pixels, so half of one is allowed for.
        near = np.hypot(down, across) <= limit_px / step_px + 0.5
        far = ~near & (across <= wide * _LARGEST_SHARE) & (down <= high * _LARGEST_SHARE)
        self._near, self._far = near.astype(np.uint8), far.astype(np.uint8)

    def measure(self, view: NDArray[np.uint8]) -> Shift:
        """Hold a picture's view, of the reference's shape, against the reference."""
        surface = self._surface(view)
        spread = float(cv2.meanStdDev(surface)[1].item())
        here, at_here = self._peak(surface, self._near)
        there, at_there = self._peak(surface, self._far)
        place, at = Place.UNKNOWN, at_here
        if spread > 0.0:
            for_here = for_there = 0
            if there >= max(_MIN_PEAK * spread, _MIN_PEAK_SHARE * here):
                for_here, for_there = self._votes(view, at_here, at_there)
            if for_there >= _MIN_VOTES and for_there > _MAJORITY * for_here:
                place, at = Place.ELSEWHERE, at_there
            elif here >= _MIN_PEAK_HERE * spread and here > there and for_here >= for_there:
                place = Place.HERE
        return Shift(place=place, x_px=at[0] * self._step_px, y_px=at[1] * self._step_px)

    def _spectrum_of(self, view: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the spectrum as OpenCV packs that of real numbers: half the work of complex ones."""
        even = view[: self._high, : self._wide]
        values = (even - np.float32(cv2.mean(even)[0])) * self._window
        return np.asarray(cv2.dft(values), dtype=np.float32)

    def _surface(self, view: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the correlation at each shift, (h, w), summed over 3 x 3 places: peaks lie between pixels."""
        product = np.asarray(cv2.mulSpectrums(self._spectrum_of(view), self._spectrum, 0, conjB=True), dtype=np.float32)
        product /= _sizes(product)
        around = cv2.copyMakeBorder(cv2.idft(product), 1, 1, 1, 1, cv2.BORDER_WRAP)
        return np.asarray(cv2.blur(around, (3, 3))[1:-1, 1:-1], dtype=np.float32)

    @staticmethod
    def _peak(surface: NDArray[np.float32], where: NDArray[np.uint8]) -> tuple[float, tuple[int, int]]:
        high, wide = surface.shape
        _, height, _, (x, y) = cv2.minMaxLoc(surface, where)
        return height, (x if x <= wide // 2 else x - wide, y if y <= high // 2 else y - high)

    def _votes(self, view: NDArray[np.uint8], here: tuple[int, int], there: tuple[int, int]) -> tuple[int, int]:
        """Let the reference's patches vote for where they are found in a picture."""
        at_here, at_there = self._fits(view, here), self._fits(view, there)
        for_here = int(np.count_nonzero((at_here > _MIN_FIT) & (at_here > at_there + _MIN_BETTER)))
        for_there = int(np.count_nonzero((at_there > _MIN_FIT) & (at_there > at_here + _MIN_BETTER)))
        return for_here, for_there

    def _fits(self, view: NDArray[np.uint8], at: tuple[int, int]) -> NDArray[np.float32]:
        """Return the correlation of each textured patch with what lies at a shift from it; -1: outside the picture."""
        x, y = at
        moved = np.roll(view, (-y, -x), axis=(0, 1)).astype(np.float32)
        patches = _patches(moved)[self._textured]
        fits = np.einsum("np,np->n", patches, self._patches) / (np.linalg.norm(patches, axis=1) + 1e-6)
        inside = (
            (self._lefts + x >= 0)
            & (self._lefts + x + _PATCH_PX <= view.shape[1])
            & (self._tops + y >= 0)
            & (self._tops + y + _PATCH_PX <= view.shape[0])
        )
        return np.where(inside, fits, np.float32(-1.0)).astype(np.float32, copy=False)


def _sizes(spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the magnitude beside each number of a packed spectrum with even sides, never 0.

    In OpenCV's packing the first and the last column hold real numbers at their ends and pairs (real, imaginary)
    between, from top to bottom; all columns between hold pairs from left to right.
    """
    squares = spectrum * spectrum
    squares[:, 1:-1:2] += squares[:, 2:-1:2]
    squares[:, 2:-1:2] = squares[:, 1:-1:2]
    ends = squares[:, :: squares.shape[1] - 1]
    ends[1:-1:2] += ends[2:-1:2]
    ends[2:-1:2] = ends[1:-1:2]
    sizes: NDArray[np.float32] = np.sqrt(squares)
    sizes += np.float32(1e-3 * cv2.mean(sizes)[0] + 1e-9)
    return sizes


def _patches(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return whole patches with their mean taken away, (n, 100), row by row."""
    rows, columns = values.shape[0] // _PATCH_PX, values.shape[1] // _PATCH_PX
    whole = values[: rows * _PATCH_PX, : columns * _PATCH_PX]
    patches = whole.reshape(rows, _PATCH_PX, columns, _PATCH_PX).transpose(0, 2, 1, 3)
    flat: NDArray[np.float32] = patches.reshape(rows * columns, -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat
