"""What the shared models' outputs mean, as plain loops in double precision, written from the layouts' descriptions.

Nothing here comes from the product, so that both must be wrong in the same way for a test to miss it. Each decoder
returns (class, score, [x1, y1, x2, y2] in network pixels) of every box that reaches the threshold, in output order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np

Boxes: TypeAlias = list[tuple[int, float, list[float]]]


def stretched(image: np.ndarray, width: int, height: int) -> tuple[np.ndarray, float, float, float, float]:
    """The picture in the network's size, and x scale, y scale, x offset, y offset."""
    return cv2.resize(image, (width, height)), width / image.shape[1], height / image.shape[0], 0.0, 0.0


def letterboxed(
    image: np.ndarray, width: int, height: int, *, centered: bool, pad: int
) -> tuple[np.ndarray, float, float, float, float]:
    """YOLOX's or Ultralytics' letterbox: as large as fits, the rest grey."""
    ratio = min(width / image.shape[1], height / image.shape[0])
    wide, high = image.shape[1] * ratio, image.shape[0] * ratio
    wide, high = (round(wide), round(high)) if centered else (int(wide + 1e-9), int(high + 1e-9))
    left, top = ((width - wide) // 2, (height - high) // 2) if centered else (0, 0)
    canvas = np.full((height, width, 3), pad, dtype=np.uint8)
    canvas[top : top + high, left : left + wide] = cv2.resize(image, (wide, high))
    return canvas, wide / image.shape[1], high / image.shape[0], float(left), float(top)


def tensor(canvas_bgr: np.ndarray, *, rgb: bool, mean: float, std: float) -> np.ndarray:
    """(1, 3, height, width) float32, computed in double precision."""
    ordered = canvas_bgr[:, :, ::-1] if rgb else canvas_bgr
    return ((ordered.astype(np.float64) - mean) / std).astype(np.float32).transpose(2, 0, 1)[np.newaxis].copy()


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def fastestdet(outputs: list[Any], threshold: float, width: int, height: int) -> Boxes:
    grid = outputs[0][0].tolist()
    rows, columns = len(grid[0]), len(grid[0][0])
    found: Boxes = []
    for row in range(rows):
        for column in range(columns):
            cell = [channel[row][column] for channel in grid]
            class_id = max(range(len(cell) - 5), key=lambda index: cell[5 + index])
            score = cell[0] ** 0.6 * cell[5 + class_id] ** 0.4
            if score >= threshold:
                x, y = (column + math.tanh(cell[1])) / columns, (row + math.tanh(cell[2])) / rows
                w, h = sigmoid(cell[3]), sigmoid(cell[4])
                found.append((class_id, score, around(x * width, y * height, w * width, h * height)))
    return found


def yolox(outputs: list[Any], threshold: float, width: int, height: int) -> Boxes:
    rows = outputs[0][0].tolist()
    found: Boxes = []
    place = 0
    for stride in (8, 16, 32):
        for y in range(height // stride):
            for x in range(width // stride):
                row = rows[place]
                place += 1
                class_id = max(range(len(row) - 5), key=lambda index: row[5 + index])
                score = row[4] * row[5 + class_id]
                if score >= threshold:
                    size = math.exp(row[2]) * stride, math.exp(row[3]) * stride
                    found.append((class_id, score, around((row[0] + x) * stride, (row[1] + y) * stride, *size)))
    assert place == len(rows)
    return found


def yolov8(outputs: list[Any], threshold: float, width: int, height: int) -> Boxes:
    lines = outputs[0][0].tolist()
    found: Boxes = []
    for place in range(len(lines[0])):
        class_id, score = 0, -1.0
        for index in range(4, len(lines)):
            if lines[index][place] > score:
                class_id, score = index - 4, lines[index][place]
        if score >= threshold:
            found.append((class_id, score, around(*(lines[index][place] for index in range(4)))))
    return found


def ultraface(outputs: list[Any], threshold: float, width: int, height: int) -> Boxes:
    scores, boxes = outputs[0][0].tolist(), outputs[1][0].tolist()
    return [
        (1, pair[1], [box[0] * width, box[1] * height, box[2] * width, box[3] * height])
        for pair, box in zip(scores, boxes, strict=True)
        if pair[1] >= threshold
    ]


def yunet(outputs: list[Any], threshold: float, width: int, height: int) -> Boxes:
    found: Boxes = []
    for index, stride in enumerate((8, 16, 32)):
        classes, objects, boxes = (outputs[index + 3 * kind][0].tolist() for kind in range(3))
        columns = width // stride
        for place, ((cls,), (obj,), box) in enumerate(zip(classes, objects, boxes, strict=True)):
            score = math.sqrt(min(max(cls, 0.0), 1.0) * min(max(obj, 0.0), 1.0))
            if score >= threshold:
                x, y = (place % columns + box[0]) * stride, (place // columns + box[1]) * stride
                found.append((0, score, around(x, y, math.exp(box[2]) * stride, math.exp(box[3]) * stride)))
    return found


def around(x: float, y: float, wide: float, high: float) -> list[float]:
    return [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    shared = wide * high
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def suppressed(found: Boxes, iou_threshold: float, *, class_agnostic: bool) -> Boxes:
    """The highest score first; each later box stays if it is not too near one that stayed."""
    kept: Boxes = []
    for one in sorted(found, key=lambda box: -box[1]):
        rivals = [other for other in kept if class_agnostic or other[0] == one[0]]
        if all(overlap(one[2], other[2]) <= iou_threshold for other in rivals):
            kept.append(one)
    return kept


def in_source(box: list[float], place: tuple[float, float, float, float], image: np.ndarray) -> list[float]:
    """A box of the network's pixels in those of the picture, within the picture."""
    scale_x, scale_y, left, top = place
    high, wide = image.shape[:2]
    x1, y1, x2, y2 = box
    x = [min(max((value - left) / scale_x, 0.0), float(wide)) for value in (x1, x2)]
    y = [min(max((value - top) / scale_y, 0.0), float(high)) for value in (y1, y2)]
    return [x[0], y[0], x[1], y[1]]


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


Reference: TypeAlias = Callable[[list[Any], float, int, int], Boxes]
