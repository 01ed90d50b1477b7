"""Layouts without a shared model, as plain loops in double precision; shares no code with the product."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.support.reference_decoders import Boxes, around, sigmoid, softmax


def yolov5(rows: np.ndarray, threshold: float) -> Boxes:
    found: Boxes = []
    for row in rows.tolist():
        class_id = max(range(len(row) - 5), key=lambda index: row[5 + index])
        score = row[4] * row[5 + class_id]
        if score >= threshold:
            found.append((class_id, score, around(*row[:4])))
    return found


def every_label(rows: np.ndarray, threshold: float) -> Boxes:
    """YOLOv5 rows again, each label by itself."""
    return [
        (class_id, row[4] * value, around(*row[:4]))
        for row in rows.tolist()
        for class_id, value in enumerate(row[5:])
        if row[4] * value >= threshold
    ]


def detr_softmax(logits: np.ndarray, boxes: np.ndarray, threshold: float, width: int, height: int) -> Boxes:
    found: Boxes = []
    for values, (x, y, w, h) in zip(logits.tolist(), boxes.tolist(), strict=True):
        shares = softmax(values)[:-1]
        class_id = max(range(len(shares)), key=lambda index: shares[index])
        if shares[class_id] >= threshold:
            found.append((class_id, shares[class_id], around(x * width, y * height, w * width, h * height)))
    return found


def detr_sigmoid(logits: np.ndarray, boxes: np.ndarray, threshold: float, width: int, height: int) -> Boxes:
    return [
        (class_id, sigmoid(value), around(x * width, y * height, w * width, h * height))
        for values, (x, y, w, h) in zip(logits.tolist(), boxes.tolist(), strict=True)
        for class_id, value in enumerate(values)
        if sigmoid(value) >= threshold
    ]


def nanodet(
    rows: np.ndarray, classes: int, bins: int, strides: Sequence[int], middle: float, threshold: float, side: int
) -> Boxes:
    found: Boxes = []
    place = 0
    for stride in strides:
        cells = math.ceil(side / stride)
        for y in range(cells):
            for x in range(cells):
                row = rows[place].tolist()
                place += 1
                class_id = max(range(classes), key=lambda index: row[index])
                if row[class_id] < threshold:
                    continue
                sides = []
                for edge in range(4):
                    shares = softmax(row[classes + edge * bins : classes + (edge + 1) * bins])
                    sides.append(sum(index * share for index, share in enumerate(shares)) * stride)
                px, py = (x + middle) * stride, (y + middle) * stride
                found.append((class_id, row[class_id], [px - sides[0], py - sides[1], px + sides[2], py + sides[3]]))
    assert place == len(rows)
    return found


def bilinear(values: np.ndarray, row: float, column: float) -> float:
    """The value at a place counted in cells, whose middles are at .5; beyond the outermost middles nothing changes."""
    row, column = (
        min(max(place - 0.5, 0.0), size - 1.0) for place, size in zip((row, column), values.shape, strict=True)
    )
    top, left = int(row), int(column)
    bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
    dy, dx = row - top, column - left
    above = float(values[top, left]) * (1 - dx) + float(values[top, right]) * dx
    below = float(values[bottom, left]) * (1 - dx) + float(values[bottom, right]) * dx
    return above * (1 - dy) + below * dy


def seg_mask(
    coefficients: np.ndarray,
    prototypes: np.ndarray,
    box_source: Sequence[float],
    source: tuple[int, int],
    network: tuple[int, int],
) -> np.ndarray:
    """(height, width) of a source that was stretched to the network: scale the sums up, cut them at the box."""
    sums = sum(float(c) * plane.astype(np.float64) for c, plane in zip(coefficients, prototypes, strict=True))
    wide, high = source
    mask = np.zeros((high, wide), dtype=bool)
    for y in range(high):
        for x in range(wide):
            if box_source[0] <= x + 0.5 < box_source[2] and box_source[1] <= y + 0.5 < box_source[3]:
                row = (y + 0.5) * network[1] / high * sums.shape[0] / network[1]
                column = (x + 0.5) * network[0] / wide * sums.shape[1] / network[0]
                mask[y, x] = bilinear(sums, row, column) > 0
    return mask


def unrolled(runs: Sequence[int], width: int, height: int) -> np.ndarray:
    """(height, width) bool from run lengths that start with zeros."""
    flat: list[bool] = []
    for index, run in enumerate(runs):
        flat.extend([index % 2 == 1] * run)
    return np.array(flat, dtype=bool).reshape(height, width)


def flooded(inside: np.ndarray) -> list[set[tuple[int, int]]]:
    """The connected regions (eight neighbours) as sets of (row, column)."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(inside), strict=True)}
    regions = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            row, column = edge.pop()
            region.add((row, column))
            for near in [(row + dy, column + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    edge.append(near)
        regions.append(region)
    return regions
