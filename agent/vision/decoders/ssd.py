"""SSD and its kin: class scores, (1, n, classes), and decoded boxes, (1, n, 4), as two outputs.

One of the labels may be the background, which is never found.
"""

from __future__ import annotations

import numpy as np

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import boxes, reading
from agent.vision.decoders.contract import Choice, Decoder, Number, Output
from wire.manifest import Task

SCORES = Output(name="scores", default=0, help="The class scores.")
BOXES = Output(name="boxes", default=1, help="The boxes.")
BACKGROUND = Number(
    name="background", default=0, least=-1, whole=True, help="Index of the label that means nothing is there; -1: none."
)
ORDER = Choice(name="box_order", choices=boxes.FORMATS, default="xyxy", help="What the four numbers of a box are.")
ACTIVATION = Choice(
    name="activation",
    choices=("none", "softmax", "sigmoid"),
    default="none",
    help="What makes probabilities of the class scores.",
)


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the boxes whose score reaches the threshold."""
    scores = reading.output(outputs, params, SCORES.of(params), (None, params.class_count))
    values = reading.output(outputs, params, BOXES.of(params), (len(scores), 4))
    activation = ACTIVATION.of(params)
    if activation == "softmax":
        scores = reading.softmax(scores)
    elif activation == "sigmoid":
        scores = reading.sigmoid(scores)
    else:
        reading.probabilities(scores, "Class scores")
    background = int(BACKGROUND.of(params))
    if background >= params.class_count:
        return Unusable(reason=f"The background is label {background}; there are {params.class_count} labels.")
    if background >= 0:
        scores = np.delete(scores, background, axis=1)
        if not scores.shape[1]:
            return Unusable(reason="The background is the only label.")
    near, class_ids, best = boxes.labelled(scores, params.score_threshold, every=boxes.MULTI_LABEL.of(params))
    if background >= 0:
        class_ids = class_ids + (class_ids >= background)
    corners = boxes.corners(values[near], ORDER.of(params))
    return reading.found(boxes.in_pixels(corners, params, boxes.FRACTIONS), best, class_ids)


DECODER = Decoder(
    decode=decode,
    task=Task.DETECT,
    summary="SSD: class scores, (1, n, classes), and decoded boxes, (1, n, 4).",
    options=(SCORES, BOXES, BACKGROUND, ORDER, boxes.FRACTIONS, ACTIVATION, boxes.MULTI_LABEL),
    makes_boxes=True,
    merges_overlaps=True,
)
