"""FastestDet: one anchor-free grid, (1, 5 + n, rows, columns).

Channel 0 is the objectness, 1 and 2 the centre's offset in cells (before tanh), 3 and 4 width and height as fractions
of the picture (before the sigmoid), 5.. the class scores. score = objectness ** 0.6 * class ** 0.4.
Source: dog-qiuqiu/FastestDet, example/onnx-runtime/runtime.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import reading
from agent.vision.decoders.contract import Decoder, Output
from wire.manifest import Task

OUTPUT = Output(name="output", default=0, help="The grid.")
_OBJECT_POWER = np.float32(0.6)
_CLASS_POWER = np.float32(0.4)


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the boxes of all cells whose score reaches the threshold."""
    grid = reading.output(outputs, params, OUTPUT.of(params), (5 + params.class_count, None, None))
    rows, columns = grid.shape[1:]
    cells = grid.reshape(grid.shape[0], -1)
    objectness = cells[0]
    reading.probabilities(objectness, "Objectness")
    # A class score is at most 1, so a cell below this objectness cannot reach the threshold.
    near = np.flatnonzero(objectness >= (params.score_threshold ** (1.0 / 0.6)) * (1.0 - 1e-6))
    classes = cells[5:, near]
    class_ids = classes.argmax(axis=0)
    best = classes[class_ids, np.arange(near.size)]
    reading.probabilities(best, "Class scores")
    scores = reading.clipped(objectness[near]) ** _OBJECT_POWER * reading.clipped(best) ** _CLASS_POWER
    passed = scores >= params.score_threshold
    near, class_ids, scores = near[passed], class_ids[passed], scores[passed]
    return reading.found(_boxes(cells[1:5, near], near, rows, columns, params), scores, class_ids)


def _boxes(
    values: NDArray[np.float32], cells: NDArray[np.intp], rows: int, columns: int, params: DecoderParams
) -> NDArray[np.float32]:
    center_x = (np.tanh(values[0]) + (cells % columns).astype(np.float32)) / np.float32(columns)
    center_y = (np.tanh(values[1]) + (cells // columns).astype(np.float32)) / np.float32(rows)
    half_width, half_height = (reading.sigmoid(size) * np.float32(0.5) for size in values[2:4])
    boxes = np.stack(
        [center_x - half_width, center_y - half_height, center_x + half_width, center_y + half_height], axis=1
    )
    size = np.array([params.width_px, params.height_px] * 2, dtype=np.float32)
    result: NDArray[np.float32] = boxes * size
    return result


DECODER = Decoder(
    decode=decode,
    task=Task.DETECT,
    summary="FastestDet: one anchor-free grid, (1, 5 + classes, rows, columns).",
    options=(OUTPUT,),
    makes_boxes=True,
    merges_overlaps=True,
)
