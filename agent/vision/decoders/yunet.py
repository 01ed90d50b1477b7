"""YuNet: for each stride a class score, an objectness and a box, (1, n, 1), (1, n, 1), (1, n, 4).

score = sqrt(class * objectness); center = (value + cell) * stride, size = exp(value) * stride. The key points, where
the graph has them, are not read. Source: OpenCV, modules/objdetect/src/face_detect.cpp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import boxes, reading
from agent.vision.decoders.contract import Decoder, Numbers, OutputList
from wire.manifest import Task

CLASSES = OutputList(name="classes", default=(0, 1, 2), help="The class scores, one output for each stride.")
OBJECTNESS = OutputList(name="objectness", default=(3, 4, 5), help="The objectness, one output for each stride.")
BOXES = OutputList(name="boxes", default=(6, 7, 8), help="The boxes, one output for each stride.")
STRIDES = Numbers(name="strides", default=(8, 16, 32), help="Pixels from cell to cell, of each grid in turn.")


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the boxes whose score reaches the threshold."""
    classes = _together(outputs, params, CLASSES, params.class_count)
    objectness = _together(outputs, params, OBJECTNESS, 1)
    values = _together(outputs, params, BOXES, 4)
    cells, strides = boxes.grid(params, STRIDES.of(params))
    if not len(classes) == len(objectness) == len(values) == len(cells):
        return Unusable(
            reason=f"The outputs have {len(classes)}, {len(objectness)} and {len(values)} rows; "
            f"the grids have {len(cells)} cells."
        )
    reading.probabilities(classes, "Class scores")
    reading.probabilities(objectness, "Objectness")
    scores = np.sqrt(reading.clipped(classes) * reading.clipped(objectness))
    near, class_ids, best = boxes.labelled(scores, params.score_threshold, every=False)
    centers = (values[near, :2] + cells[near]) * strides[near]
    sizes = np.exp(values[near, 2:]) * strides[near]
    return reading.found(boxes.corners(np.concatenate([centers, sizes], axis=1), "cxcywh"), best, class_ids)


def _together(outputs: Outputs, params: DecoderParams, which: OutputList, width: int) -> NDArray[np.float32]:
    return np.concatenate([reading.output(outputs, params, one, (None, width)) for one in which.of(params)])


DECODER = Decoder(
    decode=decode,
    task=Task.DETECT,
    summary="YuNet: class score, objectness and box of each cell, three outputs for each stride.",
    options=(CLASSES, OBJECTNESS, BOXES, STRIDES),
    makes_boxes=True,
    merges_overlaps=True,
)
