"""Non-maximum suppression: of boxes that overlap too much, the one with the highest score stays."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates

# The pairwise comparison grows with the square: a network that sees this many things sees nothing.
MAX_CANDIDATES = 3000


def suppress(candidates: Candidates, *, iou_threshold: float, class_agnostic: bool) -> NDArray[np.int64]:
    """Return the indices of the candidates that stay, the highest score first.

    Args:
        candidates: with boxes; a score of 0 never stays.
        iou_threshold: boxes whose intersection over union is greater count as one.
        class_agnostic: compare boxes of different classes too.
    """
    boxes, scores = candidates.boxes_xyxy, candidates.scores
    if boxes is None or len(scores) == 0:
        return np.argsort(-scores, kind="stable")
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    chosen = boxes[order]
    rectangles = np.concatenate([chosen[:, :2], chosen[:, 2:] - chosen[:, :2]], axis=1)
    best = scores[order].tolist()
    if class_agnostic:
        kept = cv2.dnn.NMSBoxes(rectangles.tolist(), best, 0.0, iou_threshold)
    else:
        classes = candidates.class_ids[order].tolist()
        kept = cv2.dnn.NMSBoxesBatched(rectangles.tolist(), best, classes, 0.0, iou_threshold)
    # Batched suppression does not promise an order; positions in `order` are ranks by score.
    return order[np.sort(np.asarray(kept, dtype=np.int64).ravel())]
