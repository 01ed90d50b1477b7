"""NanoDet: class scores of each cell, and for each side of its box a distribution over distances.

NanoDet-Plus has one output, (1, n, classes + 4 * bins), all strides together; the first NanoDet has one for class
scores and one for distributions for each stride, (1, n, classes) and (1, n, 4 * bins), or maps with channels first.
A side's distance from the cell's point is the mean of its distribution (softmax over bins 0, 1, 2, ...), in strides.
Source: RangiLyu/nanodet, nanodet/model/head/nanodet_plus_head.py; Li et al., "Generalized Focal Loss", 2020.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import boxes, reading
from agent.vision.decoders.contract import Decoder, Number, Numbers, OutputList
from wire.manifest import Task

CLASSES = OutputList(
    name="classes", default=(), help="The class scores, one output for each stride; none: one for all."
)
BOXES = OutputList(name="boxes", default=(), help="The distributions, one output for each stride.")
STRIDES = Numbers(name="strides", default=(8, 16, 32, 64), help="Pixels from cell to cell, of each grid in turn.")
BINS = Number(
    name="bins", default=8, least=2, most=64, whole=True, help="Distances a distribution is over (reg_max + 1)."
)
MIDDLE = Number(
    name="middle", default=0.0, least=0.0, most=1.0, help="A cell's point, in cells: 0 in NanoDet-Plus, 0.5 in NanoDet."
)


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the boxes of all cells whose best class reaches the threshold."""
    bins = int(BINS.of(params))
    if CLASSES.of(params):
        scores = _rows(outputs, params, CLASSES.of(params), params.class_count)
        sides = _rows(outputs, params, BOXES.of(params), 4 * bins)
    else:
        rows = reading.output(outputs, params, 0, (None, params.class_count + 4 * bins))
        scores, sides = rows[:, : params.class_count], rows[:, params.class_count :]
    cells, strides = boxes.grid(params, STRIDES.of(params))
    if not len(scores) == len(sides) == len(cells):
        return Unusable(reason=f"{len(scores)} class scores and {len(sides)} boxes for {len(cells)} cells.")
    reading.probabilities(scores, "Class scores")
    near, class_ids, best = boxes.labelled(scores, params.score_threshold, every=False)
    shares = reading.softmax(sides[near].reshape(-1, 4, bins))
    distances = shares @ np.arange(bins, dtype=np.float32) * strides[near]
    points = (cells[near] + np.float32(MIDDLE.of(params))) * strides[near]
    corners = np.concatenate([points - distances[:, :2], points + distances[:, 2:]], axis=1)
    return reading.found(corners, best, class_ids)


def _rows(outputs: Outputs, params: DecoderParams, which: tuple[int | str, ...], width: int) -> NDArray[np.float32]:
    """Return the rows of all strides, one after the other; maps with channels first become rows."""
    parts = []
    for one in which:
        if reading.raw(outputs, params, one).ndim == 4:
            parts.append(reading.output(outputs, params, one, (width, None, None)).reshape(width, -1).T)
        else:
            parts.append(reading.output(outputs, params, one, (None, width)))
    return np.concatenate(parts) if parts else np.zeros((0, width), dtype=np.float32)


DECODER = Decoder(
    decode=decode,
    task=Task.DETECT,
    summary="NanoDet, NanoDet-Plus: class scores and box distributions of each cell.",
    options=(CLASSES, BOXES, STRIDES, BINS, MIDDLE),
    makes_boxes=True,
    merges_overlaps=True,
)
