"""Graphs that end in what was found: boxes, (1, n, 4), labels, (1, n), and scores, (1, n), as separate outputs.

torchvision's detectors end so, RT-DETR with its post-processing, and TensorFlow's object detection (box_order "yxyx",
box_units "fraction", labels from 1). Things are named once; overlaps are merged only where the manifest has `nms-iou`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import boxes, reading
from agent.vision.decoders.contract import Choice, Decoder, Number, Output
from wire.manifest import Task

BOXES = Output(name="boxes", default=0, help="The boxes.")
LABELS = Output(name="labels", default=1, help="The class ids.")
SCORES = Output(name="scores", default=2, help="The scores.")
COUNT = Output(name="count", default=None, help="How many of the rows are filled, where the graph says so.")
FIRST_LABEL = Number(
    name="first_label", default=0, least=-1000, most=1000, whole=True, help="Class id that the first label has."
)
ORDER = Choice(name="box_order", choices=boxes.FORMATS, default="xyxy", help="What the four numbers of a box are.")


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the rows whose score reaches the threshold."""
    scores = reading.output(outputs, params, SCORES.of(params), (None,), may_be_empty=True)
    values = reading.output(outputs, params, BOXES.of(params), (len(scores), 4), may_be_empty=True)
    labels = reading.output(outputs, params, LABELS.of(params), (len(scores),), may_be_empty=True)
    if COUNT.of(params) is not None:
        stated = float(reading.output(outputs, params, COUNT.of(params), (1,))[0])
        if not 0 <= stated <= len(scores) or stated != int(stated):
            return Unusable(reason=f"The graph says that it found {stated:g} things, and has {len(scores)} rows.")
        count = int(stated)
        scores, values, labels = scores[:count], values[:count], labels[:count]
    found = boxes.in_pixels(boxes.corners(values, ORDER.of(params)), params)
    return rows_of(found, scores, labels - np.float32(FIRST_LABEL.of(params)), params)


def rows_of(
    boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.float32], params: DecoderParams
) -> Candidates:
    """Return the rows that reach the threshold; rows without any score only fill the output up.

    Args:
        boxes_xyxy: (n, 4) float32 in network pixels.
        labels: (n,) float32, each a whole number.

    Raises:
        UnreadableError: scores are no probabilities, or a row names a label that the manifest does not have.
    """
    reading.probabilities(scores, "Scores")
    near = np.flatnonzero((scores >= params.score_threshold) & (scores > 0.0))
    named = labels[near]
    if ((named < 0) | (named >= params.class_count) | (named != np.floor(named))).any():
        raise reading.UnreadableError(f"A row has a label that is none of 0 to {params.class_count - 1}.")
    return reading.found(boxes_xyxy[near], scores[near], named.astype(np.int64))


DECODER = Decoder(
    decode=decode,
    task=Task.DETECT,
    summary="Graphs that end in boxes, labels and scores.",
    options=(BOXES, LABELS, SCORES, COUNT, FIRST_LABEL, ORDER, boxes.UNITS),
    makes_boxes=True,
)
