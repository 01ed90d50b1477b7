"""What box decoders share: the orders boxes come in, the best class or every class, the middles of a grid's cells."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import DecoderParams
from agent.vision.decoders.contract import Choice, Flag

FORMATS: Final = ("xyxy", "cxcywh", "yxyx", "xywh")
UNITS: Final = Choice(
    name="box_units",
    choices=("pixels", "fraction"),
    default="pixels",
    help="Boxes are in pixels of the network's input, or fractions of its width and height.",
)
FRACTIONS: Final = Choice(name=UNITS.name, choices=UNITS.choices, default="fraction", help=UNITS.help)
MULTI_LABEL: Final = Flag(
    name="multi_label",
    default=False,
    help="Each label that reaches the threshold is a finding of its own, not only a box's best one.",
)


def corners(boxes: NDArray[np.float32], order: str) -> NDArray[np.float32]:
    """Return boxes as x1, y1, x2, y2.

    Args:
        boxes: (n, 4) float32.
        order: one of `FORMATS`.
    """
    if order == "xyxy":
        return boxes
    if order == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    start, size = boxes[:, :2], boxes[:, 2:]
    if order == "cxcywh":
        start = start - size * np.float32(0.5)
    return np.concatenate([start, start + size], axis=1)


def in_pixels(boxes_xyxy: NDArray[np.float32], params: DecoderParams, units: Choice = UNITS) -> NDArray[np.float32]:
    """Return boxes in network pixels."""
    if units.of(params) == "pixels":
        return boxes_xyxy
    size = np.array([params.width_px, params.height_px] * 2, dtype=np.float32)
    result: NDArray[np.float32] = boxes_xyxy * size
    return result


def labelled(
    scores: NDArray[np.float32], threshold: float, *, every: bool
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]:
    """Return (box, class, score) of what reaches the threshold, in the order of the boxes.

    Args:
        scores: (n, classes) float32; at least one class.
        every: each class that reaches the threshold, not only a box's best one.
    """
    if every:
        boxes, classes = np.nonzero(scores >= threshold)
        return boxes, classes, scores[boxes, classes]
    best = scores.max(axis=1)
    boxes = np.flatnonzero(best >= threshold)
    return boxes, scores[boxes].argmax(axis=1), best[boxes]


def grid(params: DecoderParams, strides: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return each cell's column and row, (n, 2), and its stride, (n, 1); both are kept, and cannot be written to."""
    return _grid(params.width_px, params.height_px, strides)


@functools.lru_cache(maxsize=16)
def _grid(width_px: int, height_px: int, strides: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Go row by row, and one stride after the other.

    The last row and column of cells may reach over the edge of the input (NanoDet counts them; sizes that are
    multiples of the strides have none).
    """
    places, sizes = [], []
    for stride in strides:
        columns, rows = -(-width_px // stride), -(-height_px // stride)
        y, x = np.divmod(np.arange(rows * columns), columns)
        places.append(np.stack([x, y], axis=1))
        sizes.append(np.full((rows * columns, 1), stride))
    cells, spans = np.concatenate(places).astype(np.float32), np.concatenate(sizes).astype(np.float32)
    cells.flags.writeable = spans.flags.writeable = False
    return cells, spans
