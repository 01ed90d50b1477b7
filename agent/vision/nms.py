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
_BLOCK: Final = 256
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
    return order[_staying(sides, classes, iou_threshold)]


def _staying(sides: NDArray[np.float64], classes: NDArray[np.int64] | None, iou_threshold: float) -> NDArray[np.intp]:
    """Return the boxes that stay, of boxes in the order of their scores: block by block, each against what is left."""
    left = np.arange(sides.shape[1])
    kept: list[NDArray[np.intp]] = []
    while len(left):
        block, left = left[:_BLOCK], left[_BLOCK:]
        rivals = _rivals(sides, classes, block, block, iou_threshold)
        stays = np.ones(len(block), dtype=bool)
        # Only a box that is near another one, itself aside, can drive one out.
        for index in np.flatnonzero(np.count_nonzero(rivals, axis=1) > 1):
            if stays[index]:
                stays[index + 1 :] &= ~rivals[index, index + 1 :]
        kept.append(block[stays])
        if len(left):
            left = left[~_rivals(sides, classes, kept[-1], left, iou_threshold).any(axis=0)]
    return np.concatenate(kept)


def _rivals(
    sides: NDArray[np.float64],
    classes: NDArray[np.int64] | None,
    some: NDArray[np.intp],
    others: NDArray[np.intp],
    iou_threshold: float,
) -> NDArray[np.bool_]:
    """Return which boxes are too near which others, (len(some), len(others))."""
    x1, y1, x2, y2 = sides[:, some, np.newaxis]
    u1, v1, u2, v2 = sides[:, others]
    shared = np.maximum(np.minimum(x2, u2) - np.maximum(x1, u1), 0.0)
    shared *= np.maximum(np.minimum(y2, v2) - np.maximum(y1, v1), 0.0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    near: NDArray[np.bool_] = shared / np.maximum(union, _LEAST) > iou_threshold
    if classes is not None:
        near &= classes[some, np.newaxis] == classes[others]
    return near
