"""YOLOv8, YOLOv9, YOLO11 and YOLOv5u: boxes and classes without objectness, transposed, (1, 4 + classes, n).

A column is center x, center y, width, height, class scores. Source: ultralytics, utils/nms.py, non_max_suppression.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import boxes, reading
from agent.vision.decoders.contract import Choice, Decoder, Output
from wire.manifest import Task

OUTPUT = Output(name="output", default=0, help="The boxes and class scores.")
LAYOUT = Choice(
    name="layout",
    choices=("columns", "rows"),
    default="columns",
    help="A box is a column, (1, 4 + classes, n), as exported; or a row, (1, n, 4 + classes), where it was transposed.",
)


class Selected(NamedTuple):
    """What reaches the threshold: (n, 4) boxes in network pixels, classes, scores, (n, extra) further values."""

    boxes_xyxy: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    extra: NDArray[np.float32]


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the boxes whose best class, or each of whose classes, reaches the threshold."""
    found = selected(outputs, params, 0)
    return reading.found(found.boxes_xyxy, found.scores, found.class_ids)


def selected(outputs: Outputs, params: DecoderParams, extra: int) -> Selected:
    """Return the boxes that reach the threshold.

    Args:
        extra: values that follow each box's class scores.

    Raises:
        UnreadableError: the output has another shape, or its scores are no probabilities.
    """
    values = 4 + params.class_count + extra
    if LAYOUT.of(params) == "columns":
        columns = reading.output(outputs, params, OUTPUT.of(params), (values, None))
    else:
        columns = reading.output(outputs, params, OUTPUT.of(params), (None, values)).T
    best = columns[4 : 4 + params.class_count].max(axis=0)
    reading.probabilities(best, "Class scores")
    # Few of thousands of boxes remain, so only those are transposed.
    few = np.take(columns, np.flatnonzero(best >= params.score_threshold), axis=1).T
    near, class_ids, scores = boxes.labelled(
        few[:, 4 : 4 + params.class_count], params.score_threshold, every=boxes.MULTI_LABEL.of(params)
    )
    corners = boxes.corners(few[near, :4], "cxcywh")
    return Selected(boxes.in_pixels(corners, params), class_ids, scores, few[near, 4 + params.class_count :])


OPTIONS = (OUTPUT, LAYOUT, boxes.UNITS, boxes.MULTI_LABEL)
DECODER = Decoder(
    decode=decode,
    task=Task.DETECT,
    summary="YOLOv8, YOLOv9, YOLO11, YOLOv5u: transposed boxes and classes, (1, 4 + classes, n).",
    options=OPTIONS,
    makes_boxes=True,
    merges_overlaps=True,
)
