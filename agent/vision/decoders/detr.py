"""DETR and its kin before post-processing: class logits of each query, (1, q, classes), and boxes, (1, q, 4).

DETR takes a softmax over the classes and one more, "no object", the last. Deformable DETR, DINO and RT-DETR take a
sigmoid, and each class that reaches the threshold counts. Boxes are center x, center y, width, height as fractions.
Things are named once; overlaps are merged only where the manifest has `nms-iou`.
Source: facebookresearch/detr, models/detr.py, PostProcess; lyuwenyu/RT-DETR, rtdetr_postprocessor.py.
"""

from __future__ import annotations

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import boxes, reading
from agent.vision.decoders.contract import Choice, Decoder, Output
from wire.manifest import Task

LOGITS = Output(name="logits", default=0, help="The class logits of each query.")
BOXES = Output(name="boxes", default=1, help="The boxes.")
ACTIVATION = Choice(
    name="activation",
    choices=("softmax", "sigmoid", "none"),
    default="softmax",
    help='What makes probabilities of the logits; "softmax" expects one class more than there are labels, the last.',
)


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the queries that found something."""
    activation = ACTIVATION.of(params)
    count = params.class_count + (activation == "softmax")
    scores = reading.output(outputs, params, LOGITS.of(params), (None, count))
    values = reading.output(outputs, params, BOXES.of(params), (len(scores), 4))
    if activation == "softmax":
        scores = reading.softmax(scores)[:, :-1]
    elif activation == "sigmoid":
        scores = reading.sigmoid(scores)
    else:
        reading.probabilities(scores, "Class scores")
    near, class_ids, best = boxes.labelled(scores, params.score_threshold, every=activation != "softmax")
    corners = boxes.corners(values[near], "cxcywh")
    return reading.found(boxes.in_pixels(corners, params, boxes.FRACTIONS), best, class_ids)


DECODER = Decoder(
    decode=decode,
    task=Task.DETECT,
    summary="DETR, Deformable DETR, DINO, RT-DETR: class logits and boxes of each query.",
    options=(LOGITS, BOXES, ACTIVATION, boxes.FRACTIONS),
    makes_boxes=True,
)
