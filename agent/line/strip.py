"""What lies on the belt, seen in a thin strip of each frame: the runs along the belt that differ from it when empty.

numpy only. Lengths are pixels of the source along the direction in which the parts move, 0 where they come in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.line.settings import PartGateSettings

COLUMNS_MOST: Final = 320
ROWS_MOST: Final = 24
LEARN_FRAMES: Final = 25
# All of the strip has changed for so many frames: not parts, but light. The empty belt is learnt anew.
_RELEARN_AFTER: Final = 250
_ALL: Final = 0.9
_NARROWEST_COLUMNS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Something on the belt, from its rear to its front."""

    rear_px: float
    front_px: float

    @property
    def length_px(self) -> float:
        return self.front_px - self.rear_px


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A thumbnail of the band that is looked at.

    Args:
        pixels: (rows, columns, 3) uint8, columns along the belt.
        column_px: source pixels for one column.
        length_px: of the picture along the belt.
    """

    pixels: NDArray[np.uint8]
    column_px: float
    length_px: float


def strip_of(image_bgr: NDArray[np.uint8], settings: PartGateSettings) -> Strip:
    """Cut the strip out of a picture, (H, W, 3) uint8, by taking every so-manieth pixel."""
    along_x = settings.direction in {"right", "left"}
    turned = image_bgr if along_x else image_bgr.transpose(1, 0, 2)
    if settings.direction in {"left", "up"}:
        turned = turned[:, ::-1]
    across, length = turned.shape[:2]
    first = min(across - 1, int(settings.band[0] * across))
    last = max(first + 1, math.ceil(settings.band[1] * across))
    row_step = math.ceil((last - first) / ROWS_MOST)
    column_step = math.ceil(length / COLUMNS_MOST)
    pixels = np.ascontiguousarray(turned[first:last:row_step, ::column_step])
    return Strip(pixels=pixels, column_px=column_step, length_px=length)


class EmptyBelt:
    """How the belt looks with nothing on it; learnt from the first frames, and following slow changes of the light.

    What differs from it is never taken into it while it may be a part, however long it stands still. What does not move
    while parts move through the whole view is none: dirt, a label on the frame of the belt.
    """

    def __init__(self, settings: PartGateSettings) -> None:
        self._settings = settings
        self._seen: list[NDArray[np.uint8]] = []
        self._belt: NDArray[np.uint8] | None = None
        self._before: NDArray[np.uint8] | None = None
        self._still_px: NDArray[np.float32] | None = None
        self._all_changed = 0

    @property
    def is_learning(self) -> bool:
        """Whether the belt is not known yet; parts are not seen so long."""
        return self._belt is None

    def forget(self) -> None:
        """Learn the belt anew."""
        self._seen.clear()
        self._belt = self._before = self._still_px = None
        self._all_changed = 0

    def runs(self, strip: Strip, moved_px: float) -> list[Run] | None:
        """Return what lies on the belt, from the front backwards; None while the belt is being learnt.

        Args:
            moved_px: how far the belt moved since the frame before last, as far as that is known.
        """
        pixels = strip.pixels
        if self._belt is None or self._belt.shape != pixels.shape:
            self._learn(pixels)
            return None
        belt = self._belt
        changed = _differ(pixels, belt, self._settings.threshold)
        share = changed.mean(axis=0)
        self._follow(pixels, belt, changed, moved_px, strip)
        self._all_changed = self._all_changed + 1 if float(changed.mean()) > _ALL else 0
        if self._all_changed >= _RELEARN_AFTER:
            self.forget()
            return None
        return _runs_of(share, self._settings.on_share, self._settings.off_share, strip)

    def _learn(self, pixels: NDArray[np.uint8]) -> None:
        if self._belt is not None or (self._seen and self._seen[0].shape != pixels.shape):
            self.forget()
        self._seen.append(pixels)
        if len(self._seen) >= LEARN_FRAMES:
            self._belt = np.median(np.stack(self._seen), axis=0).astype(np.uint8)
            self._seen.clear()

    def _follow(
        self,
        pixels: NDArray[np.uint8],
        belt: NDArray[np.uint8],
        changed: NDArray[np.bool_],
        moved_px: float,
        strip: Strip,
    ) -> None:
        """Move the empty belt by one grey level towards what is seen where nothing lies on it."""
        empty = ~changed[:, :, np.newaxis]
        belt += ((pixels > belt) & empty).astype(np.uint8)
        belt -= ((pixels < belt) & empty).astype(np.uint8)
        before, self._before = self._before, pixels
        if before is None or self._still_px is None:
            self._still_px = np.zeros(changed.shape, np.float32)
            return
        still = changed & ~_differ(pixels, before, self._settings.threshold)
        self._still_px = np.where(still, self._still_px + abs(moved_px), 0.0).astype(np.float32)
        fixed = self._still_px > 2 * strip.length_px
        if fixed.any():
            belt[fixed] = pixels[fixed]


def _differ(one: NDArray[np.uint8], other: NDArray[np.uint8], threshold: int) -> NDArray[np.bool_]:
    """Tell which pixels, (rows, columns), differ by at least `threshold` in any channel."""
    apart = np.maximum(one, other) - np.minimum(one, other)
    return np.asarray(apart.max(axis=2) >= max(1, threshold))


def _runs_of(share: NDArray[np.float64], on_share: float, off_share: float, strip: Strip) -> list[Run]:
    """Columns at or above `off_share` that hang together, one of them at least at `on_share`; the foremost first."""
    low = np.concatenate(([False], share >= min(off_share, on_share), [False]))
    edges = np.flatnonzero(low[1:] != low[:-1])
    found = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - start >= _NARROWEST_COLUMNS and float(share[start:end].max()) >= on_share:
            front_px = min(end * strip.column_px, strip.length_px)
            found.append(Run(rear_px=start * strip.column_px, front_px=front_px))
    return found[::-1]
