"""FastestDet: one anchor-free grid, (1, 5 + n, rows, columns).

Channel 0 is the objectness, 1 and 2 the centre's offset in cells (before tanh), 3 and 4 width and height as fractions
of the picture (before the sigmoid), 5.. the class scores. score = objectness ** 0.6 * class ** 0.4.
Source: dog-qiuqiu/FastestDet, example/onnx-runtime/runtime.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable

OPTIONS: dict[str, tuple[str, ...]] = {}
_OBJECT_POWER = np.float32(0.6)
_CLASS_POWER = np.float32(0.4)
_ROUNDING = 1e-3
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the boxes of all cells whose score reaches the threshold."""
    output = outputs[0]
    if output.ndim != 4 or output.shape[0] != 1 or output.shape[1] != 5 + params.class_count:
        return Unusable(reason=f"The output {output.shape} is not (1, {5 + params.class_count}, rows, columns).")
    if not np.isfinite(output).all():
        return Unusable(reason="The output holds values that are no numbers.")
    rows, columns = output.shape[2:]
    cells: NDArray[np.float32] = output.reshape(output.shape[1], -1).astype(np.float32, copy=False)
    objectness = cells[0]
    if objectness.size and (objectness.min() < -_ROUNDING or objectness.max() > 1.0 + _ROUNDING):
        return Unusable(reason="The objectness is not between 0 and 1.")
    # A class score is at most 1, so a cell below this objectness cannot reach the threshold.
    near = np.flatnonzero(objectness >= (params.score_threshold ** (1.0 / 0.6)) * (1.0 - 1e-6))
    classes = cells[5:, near]
    class_ids = classes.argmax(axis=0)
    best = classes[class_ids, np.arange(near.size)]
    if best.size and best.max() > 1.0 + _ROUNDING:
        return Unusable(reason="The class scores are not between 0 and 1.")
    scores = np.clip(objectness[near], _ZERO, _ONE) ** _OBJECT_POWER * np.clip(best, _ZERO, _ONE) ** _CLASS_POWER
    passed = scores >= params.score_threshold
    near, class_ids, scores = near[passed], class_ids[passed], scores[passed]
    return Candidates(
        boxes_xyxy=_boxes(cells[1:5, near], near, rows, columns, params), scores=scores, class_ids=class_ids
    )


def _boxes(
    values: NDArray[np.float32], cells: NDArray[np.intp], rows: int, columns: int, params: DecoderParams
) -> NDArray[np.float32]:
    center_x = (np.tanh(values[0]) + (cells % columns).astype(np.float32)) / np.float32(columns)
    center_y = (np.tanh(values[1]) + (cells // columns).astype(np.float32)) / np.float32(rows)
    half_width, half_height = _half_sigmoid(values[2]), _half_sigmoid(values[3])
    boxes = np.stack(
        [center_x - half_width, center_y - half_height, center_x + half_width, center_y + half_height], axis=1
    )
    size = np.array([params.width_px, params.height_px] * 2, dtype=np.float32)
    result: NDArray[np.float32] = boxes * size
    return result


def _half_sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return sigmoid(v) / 2 without overflow: sigmoid(v) = (1 + tanh(v / 2)) / 2."""
    half: NDArray[np.float32] = (_ONE + np.tanh(values * np.float32(0.5))) * np.float32(0.25)
    return half
