"""Connected regions of a map: where neighbouring cells (of the eight around each) belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

# A map with more regions is noise; the largest are kept, in cells.
MAX_REGIONS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """The regions of one map, the largest first.

    Args:
        numbers: (rows, columns) int32; 0 is outside, others are `ids`.
        ids: (n,) int64.
        boxes_cells: (n, 4) int64, x1, y1, x2, y2 in cells.
        means, peaks: (n,) float32, of the values under each region.
    """

    numbers: NDArray[np.int32]
    ids: NDArray[np.int64]
    boxes_cells: NDArray[np.int64]
    means: NDArray[np.float32]
    peaks: NDArray[np.float32]


def find(inside: NDArray[np.bool_], values: NDArray[np.float32]) -> Regions:
    """Return the connected regions of the cells that are inside.

    Args:
        inside: (rows, columns).
        values: (rows, columns) float32.
    """
    count, marked, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
    numbers: NDArray[np.int32] = np.asarray(marked, dtype=np.int32)
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[:MAX_REGIONS] + 1
    cells = numbers.ravel()
    sums = np.bincount(cells, weights=values.ravel(), minlength=count)
    peaks = np.full(count, -np.inf, dtype=np.float32)
    np.maximum.at(peaks, cells, values.ravel())
    start = stats[order][:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]]
    size = stats[order][:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    return Regions(
        numbers=numbers,
        ids=order.astype(np.int64),
        boxes_cells=np.concatenate([start, start + size], axis=1).astype(np.int64),
        means=(sums[order] / stats[order, cv2.CC_STAT_AREA]).astype(np.float32),
        peaks=peaks[order],
    )
