"""YOLOX: rows of box, objectness and classes, (1, n, 5 + classes), raw as exported or decoded in the graph.

Raw boxes belong to the cells of a grid for each stride: center = (value + cell) * stride, size = exp(value) * stride.
Shapes do not tell raw from decoded, so the manifest does. Source: Megvii-BaseDetection/YOLOX,
yolox/utils/demo_utils.py.
"""

from __future__ import annotations

import numpy as np

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import boxes, reading, yolov5
from agent.vision.decoders.contract import Choice, Decoder, Numbers
from wire.manifest import Task

BOXES = Choice(name="boxes", choices=("raw", "decoded"), default="raw", help="Whether the graph applies the grid.")
STRIDES = Numbers(name="strides", default=(8, 16, 32), help="Pixels from cell to cell, of each grid in turn.")


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the boxes whose score reaches the threshold."""
    rows = reading.output(outputs, params, yolov5.OUTPUT.of(params), (None, 5 + params.class_count))
    near, class_ids, scores = yolov5.scored(rows, params)
    values = rows[near, :4]
    if BOXES.of(params) == "raw":
        cells, strides = boxes.grid(params, STRIDES.of(params))
        if len(cells) != len(rows):
            return Unusable(reason=f"The output has {len(rows)} rows; the grids have {len(cells)} cells.")
        centers = (values[:, :2] + cells[near]) * strides[near]
        values = np.concatenate([centers, np.exp(values[:, 2:]) * strides[near]], axis=1)
    return reading.found(boxes.corners(values, "cxcywh"), scores, class_ids)


DECODER = Decoder(
    decode=decode,
    task=Task.DETECT,
    summary="YOLOX: rows of box, objectness and classes, raw or decoded.",
    options=(yolov5.OUTPUT, BOXES, STRIDES, boxes.MULTI_LABEL),
    makes_boxes=True,
    merges_overlaps=True,
)
