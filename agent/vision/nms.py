"""Non-maximum suppression: of boxes that overlap too much, the one with the highest score stays.

Double precision and a plain quotient, so that the answer is the same wherever it is computed: boxes that overlap by
exactly the threshold both stay, and of equal scores the first one goes first.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates

# The pairwise comparison grows with the square: a network that sees this many things sees nothing.
MAX_CANDIDATES: Final = 3000
# An intersection over union is never greater.
NEVER: Final = 1.0
# Up to here all pairs are compared at once; beyond, each box that stays is compared with those that are left.
_AT_ONCE: Final = 256
_LEAST: Final = np.finfo(np.float64).tiny


def suppress(candidates: Candidates, *, iou_threshold: float, class_agnostic: bool) -> NDArray[np.int64]:
    """Return the indices of the candidates that stay, the highest score first.

    Args:
        candidates: with boxes or without; without, all stay.
        iou_threshold: boxes whose intersection over union is greater count as one; from 1 on, all stay.
        class_agnostic: compare boxes of different classes too.
    """
    boxes = candidates.boxes_xyxy
    order = np.argsort(-candidates.scores, kind="stable")
    if boxes is None:
        return order
    order = order[:MAX_CANDIDATES]
    if len(order) < 2 or iou_threshold >= NEVER:
        return order
    sides = boxes[order].T.astype(np.float64)
    classes = None if class_agnostic else candidates.class_ids[order]
    return order[
        _by_matrix(sides, classes, iou_threshold)
        if len(order) <= _AT_ONCE
        else _one_by_one(sides, classes, iou_threshold)
    ]


def _by_matrix(
    sides: NDArray[np.float64], classes: NDArray[np.int64] | None, iou_threshold: float
) -> NDArray[np.bool_]:
    x1, y1, x2, y2 = sides
    areas = (x2 - x1) * (y2 - y1)
    wide = np.minimum.outer(x2, x2) - np.maximum.outer(x1, x1)
    high = np.minimum.outer(y2, y2) - np.maximum.outer(y1, y1)
    rivals = _too_near(wide, high, areas[:, np.newaxis] + areas, iou_threshold)
    if classes is not None:
        rivals &= classes[:, np.newaxis] == classes
    stays = np.ones(len(areas), dtype=bool)
    # Only a box that is near another one, itself aside, can drive one out.
    for index in np.flatnonzero(np.count_nonzero(rivals, axis=1) > 1):
        if stays[index]:
            stays[index + 1 :] &= ~rivals[index, index + 1 :]
    return stays


def _one_by_one(
    sides: NDArray[np.float64], classes: NDArray[np.int64] | None, iou_threshold: float
) -> NDArray[np.bool_]:
    x1, y1, x2, y2 = sides
    areas = (x2 - x1) * (y2 - y1)
    stays = np.ones(len(areas), dtype=bool)
    for index in range(len(areas)):
        if not stays[index]:
            continue
        rest = slice(index + 1, None)
        wide = np.minimum(x2[index], x2[rest]) - np.maximum(x1[index], x1[rest])
        high = np.minimum(y2[index], y2[rest]) - np.maximum(y1[index], y1[rest])
        near = _too_near(wide, high, areas[index] + areas[rest], iou_threshold)
        if classes is not None:
            near &= classes[rest] == classes[index]
        stays[rest] &= ~near
    return stays


def _too_near(
    wide: NDArray[np.float64], high: NDArray[np.float64], areas: NDArray[np.float64], iou_threshold: float
) -> NDArray[np.bool_]:
    shared = np.maximum(wide, 0.0) * np.maximum(high, 0.0)
    near: NDArray[np.bool_] = shared / np.maximum(areas - shared, _LEAST) > iou_threshold
    return near
