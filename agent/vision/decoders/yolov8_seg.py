"""YOLOv8 and YOLO11 segmentation: boxes with coefficients, (1, 4 + classes + k, n), and prototypes, (1, k, h, w).

A mask is where the sum of coefficient * prototype is positive, inside the box.
Source: ultralytics, utils/ops.py, process_mask_native.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Field, Outputs, Unusable
from agent.vision.decoders import reading, yolov8
from agent.vision.decoders.contract import Decoder, Output
from wire.manifest import Task

PROTOTYPES = Output(name="prototypes", default=1, help="The prototypes of the masks.")


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the boxes that reach the threshold, with masks for those that will be asked for."""
    prototypes = reading.output(outputs, params, PROTOTYPES.of(params), (None, None, None))
    found = yolov8.selected(outputs, params, prototypes.shape[0])
    masks = PrototypeMasks(prototypes, found.extra, found.boxes_xyxy, params)
    return reading.found(found.boxes_xyxy, found.scores, found.class_ids, masks)


class PrototypeMasks:
    """Masks as sums of prototypes, computed only for the cells under a box.

    Args:
        prototypes: (k, rows, columns) float32, over the whole network input.
        coefficients: (n, k) float32.
        boxes_xyxy: (n, 4) float32 in network pixels.
    """

    def __init__(
        self,
        prototypes: NDArray[np.float32],
        coefficients: NDArray[np.float32],
        boxes_xyxy: NDArray[np.float32],
        params: DecoderParams,
    ) -> None:
        self._prototypes = prototypes
        self._coefficients = coefficients
        self._boxes_xyxy = boxes_xyxy
        self._cell_px = (params.width_px / prototypes.shape[2], params.height_px / prototypes.shape[1])

    def at(self, index: int) -> Field | None:
        x1, y1, x2, y2 = self._boxes_xyxy[index].tolist()
        wide, high = self._cell_px
        rows, columns = self._prototypes.shape[1:]
        left, right = _cells(x1 / wide, x2 / wide, columns)
        top, bottom = _cells(y1 / high, y2 / high, rows)
        if left >= right or top >= bottom:
            return None
        with np.errstate(all="ignore"):  # values too great to be added cover nothing
            values = np.tensordot(self._coefficients[index], self._prototypes[:, top:bottom, left:right], axes=1)
        return Field(values=values, region_xyxy=(left * wide, top * high, right * wide, bottom * high))


def _cells(start: float, end: float, count: int) -> tuple[int, int]:
    """Return the cells under a span and one more on each side, from which the values at its ends are interpolated."""
    return max(math.floor(start) - 1, 0), min(math.ceil(end) + 1, count)


DECODER = Decoder(
    decode=decode,
    task=Task.SEGMENT,
    summary="YOLOv8-seg, YOLO11-seg: boxes with mask coefficients, and prototypes.",
    options=(*yolov8.OPTIONS, PROTOTYPES),
    makes_boxes=True,
    merges_overlaps=True,
    makes_masks=True,
)
