"""YOLOv5 and YOLOv7: rows of box, objectness and classes, (1, n, 5 + classes).

A row is center x, center y, width, height, objectness, class scores; score = objectness * class.
Source: ultralytics/yolov5, utils/general.py, non_max_suppression.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import boxes, reading
from agent.vision.decoders.contract import Decoder, Output
from wire.manifest import Task

OUTPUT = Output(name="output", default=0, help="The rows.")


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the boxes whose score reaches the threshold."""
    rows = reading.output(outputs, params, OUTPUT.of(params), (None, 5 + params.class_count))
    near, class_ids, scores = scored(rows, params)
    found = boxes.corners(rows[near, :4], "cxcywh")
    return reading.found(boxes.in_pixels(found, params), scores, class_ids)


def scored(
    rows: NDArray[np.float32], params: DecoderParams
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]:
    """Return (row, class, score) of the rows whose objectness * class reaches the threshold.

    Args:
        rows: (n, 5 + classes) float32.

    Raises:
        UnreadableError: objectness or classes are no probabilities.
    """
    objectness = rows[:, 4]
    reading.probabilities(objectness, "Objectness")
    # A class score is at most 1, so a row below this objectness cannot reach the threshold.
    near = np.flatnonzero(objectness >= params.score_threshold * (1.0 - 1e-6))
    classes = rows[near, 5:]
    reading.probabilities(classes, "Class scores")
    scores = reading.clipped(classes) * reading.clipped(objectness[near])[:, np.newaxis]
    chosen, class_ids, best = boxes.labelled(scores, params.score_threshold, every=boxes.MULTI_LABEL.of(params))
    return near[chosen], class_ids, best


DECODER = Decoder(
    decode=decode,
    task=Task.DETECT,
    summary="YOLOv5, YOLOv7: rows of box, objectness and classes, (1, n, 5 + classes).",
    options=(OUTPUT, boxes.UNITS, boxes.MULTI_LABEL),
    makes_boxes=True,
    merges_overlaps=True,
)
