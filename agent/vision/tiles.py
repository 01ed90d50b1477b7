"""Tiles: windows that cover a picture, and what becomes of the things found in several of them (pure).

A thing that lies across a tile's edge is seen in part by one tile and, if tiles overlap by its size, wholly by
another. The part is recognised by where it ends, at an edge inside the picture, and dropped in favour of the whole,
whatever their scores are; then overlaps are merged as they are without tiles.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.vision import nms
from agent.vision.candidates import Candidates, Field, Masks, Outputs, Unusable
from agent.vision.geometry import Geometry, Rect
from wire.model_input import Merge, TileOf, Tiling

# A box that ends this near to a tile's edge, as a share of the tile, is taken to be cut off by it.
_EDGE_SHARE = 0.02
# So much of a part must lie inside the whole it is taken for a part of.
_COVERED_SHARE = 0.6


def canvas_size(tiling: Tiling, *, width_px: int, height_px: int) -> tuple[int, int]:
    """Return the width and height of what tiles are cut from, for a region of the given size."""
    if tiling.of is TileOf.SOURCE:
        return width_px, height_px
    wide, high = tiling.resized_width_px, tiling.resized_height_px
    if wide is None:
        wide = max(1, round(width_px * (high or height_px) / height_px))
    if high is None:
        high = max(1, round(height_px * wide / width_px))
    return wide, high


def tile_count(tiling: Tiling, *, width_px: int, height_px: int) -> int:
    """Return how many tiles cover a canvas."""
    return len(_starts(width_px, tiling)) * len(_starts(height_px, tiling))


def cut(tiling: Tiling, *, width_px: int, height_px: int) -> tuple[Rect, ...]:
    """Return the tiles of a canvas, row by row; the last of each row and column ends with the canvas.

    All tiles have one size; on a side that is shorter than a tile, it is that side's.
    """
    width, height = min(tiling.tile_px, width_px), min(tiling.tile_px, height_px)
    return tuple(
        Rect(left_px=left, top_px=top, width_px=width, height_px=height)
        for top in _starts(height_px, tiling)
        for left in _starts(width_px, tiling)
    )


def _starts(length_px: int, tiling: Tiling) -> list[int]:
    last = max(0, length_px - tiling.tile_px)
    starts = list(range(0, last + 1, tiling.stride_px))
    return starts if starts[-1] == last else [*starts, last]


def rows_of(outputs: Outputs, count: int) -> list[Outputs] | Unusable:
    """Return the outputs of each picture of a batch, as if it had been run alone.

    Args:
        count: pictures in the batch.
    """
    if count == 1:
        return [outputs]
    for output in outputs:
        if output.ndim == 0 or output.shape[0] != count:
            return Unusable(
                reason=f"The output {output.shape} does not have one row for each of {count} tiles; tiling.batch must "
                "be 1 for this model."
            )
    return [[output[row : row + 1] for output in outputs] for row in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one tile shows, on the canvas.

    Args:
        candidates: with boxes in canvas pixels.
        cut_off: (n,) bool; the box ends at an edge of the tile inside the canvas.
    """

    candidates: Candidates
    cut_off: NDArray[np.bool_]


def sight_of(
    candidates: Candidates, placed: Geometry, tile: Rect, *, canvas: tuple[int, int], background: Collection[int] = ()
) -> Sight:
    """Move a tile's candidates to the canvas; of candidates without boxes, the tile is the box.

    Args:
        candidates: of this tile, in network pixels.
        placed: where the tile lies in the network's input.
        canvas: its width and height.
        background: class ids that are no finding of a classifier.
    """
    if candidates.boxes_xyxy is None:
        kept = np.flatnonzero(~np.isin(candidates.class_ids, list(background)))
        box = [tile.left_px, tile.top_px, tile.left_px + tile.width_px, tile.top_px + tile.height_px]
        return Sight(
            candidates=Candidates(
                boxes_xyxy=np.tile(np.array(box, dtype=np.float32), (len(kept), 1)),
                scores=candidates.scores[kept],
                class_ids=candidates.class_ids[kept],
            ),
            cut_off=np.zeros(len(kept), dtype=np.bool_),
        )
    boxes = placed.to_source(candidates.boxes_xyxy)
    near_x, near_y = max(1.0, _EDGE_SHARE * tile.width_px), max(1.0, _EDGE_SHARE * tile.height_px)
    cut_off = np.zeros(len(boxes), dtype=np.bool_)
    if tile.left_px > 0:
        cut_off |= boxes[:, 0] <= near_x
    if tile.top_px > 0:
        cut_off |= boxes[:, 1] <= near_y
    if tile.left_px + tile.width_px < canvas[0]:
        cut_off |= boxes[:, 2] >= tile.width_px - near_x
    if tile.top_px + tile.height_px < canvas[1]:
        cut_off |= boxes[:, 3] >= tile.height_px - near_y
    boxes += np.array([tile.left_px, tile.top_px] * 2, dtype=np.float32)
    masks = None if candidates.masks is None else _OnCanvas(candidates.masks, placed, tile)
    return Sight(candidates=replace(candidates, boxes_xyxy=boxes, masks=masks), cut_off=cut_off)


def merge(
    candidates: Candidates,
    cut_off: NDArray[np.bool_],
    *,
    how: Merge,
    iou_threshold: float,
    class_agnostic: bool,
) -> tuple[Candidates, NDArray[np.int64]]:
    """Return candidates and the indices of those that stay, the highest score first.

    Args:
        candidates: of all tiles, with boxes on the canvas.
        cut_off: (n,) bool, see `Sight`.
        how: `nms` keeps the best of boxes that are one; `union` joins them, and has no masks.
        iou_threshold: boxes whose intersection over union is greater are one.
        class_agnostic: boxes of different labels may be one too.
    """
    order = np.argsort(-candidates.scores, kind="stable")[: nms.MAX_CANDIDATES]
    order = order[~_parts(candidates, order, cut_off[order], class_agnostic)]
    best = _without_masks(candidates, order)
    if how is Merge.UNION:
        joined = _joined(best, iou_threshold, class_agnostic)
        return joined, np.argsort(-joined.scores, kind="stable")
    return candidates, order[nms.suppress(best, iou_threshold=iou_threshold, class_agnostic=class_agnostic)]


def _parts(
    candidates: Candidates, order: NDArray[np.int64], cut_off: NDArray[np.bool_], class_agnostic: bool
) -> NDArray[np.bool_]:
    """Tell which of the ordered candidates are parts of a whole that another tile saw."""
    boxes = _boxes(candidates)[order]
    classes = candidates.class_ids[order]
    wholes = np.flatnonzero(~cut_off)
    found = np.zeros(len(order), dtype=np.bool_)
    if len(wholes) == 0:
        return found
    for index in np.flatnonzero(cut_off):
        covered = _intersections(boxes[index], boxes[wholes]) >= _COVERED_SHARE * _areas(boxes[index : index + 1])
        found[index] = bool((covered & (class_agnostic | (classes[wholes] == classes[index]))).any())
    return found


def _joined(candidates: Candidates, iou_threshold: float, class_agnostic: bool) -> Candidates:
    """Return one enclosing box for each group of boxes that overlap, directly or by way of others."""
    boxes, areas = _boxes(candidates), _areas(_boxes(candidates))
    left = np.ones(len(boxes), dtype=np.bool_)
    groups: list[NDArray[np.intp]] = []
    for first in range(len(boxes)):
        if not left[first]:
            continue
        left[first] = False
        group, pending = [first], [first]
        while pending:
            index = pending.pop()
            shared = _intersections(boxes[index], boxes)
            one = left & (shared > iou_threshold * (areas + areas[index] - shared)) & (shared > 0)
            if not class_agnostic:
                one &= candidates.class_ids == candidates.class_ids[index]
            new = np.flatnonzero(one)
            left[new] = False
            group.extend(new.tolist())
            pending.extend(new.tolist())
        groups.append(np.array(group))
    # The candidates stand in the order of their scores, so a group's first is its best.
    best = np.array([group[0] for group in groups], dtype=np.intp)
    around = [np.concatenate([boxes[group, :2].min(axis=0), boxes[group, 2:].max(axis=0)]) for group in groups]
    return Candidates(
        boxes_xyxy=np.array(around, dtype=np.float32).reshape(-1, 4),
        scores=candidates.scores[best],
        class_ids=candidates.class_ids[best],
    )


def _intersections(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    result: NDArray[np.float32] = np.maximum(sides, np.float32(0.0)).prod(axis=1)
    return result


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return result


def _boxes(candidates: Candidates) -> NDArray[np.float32]:
    if candidates.boxes_xyxy is None:
        raise ValueError("candidates on a canvas have boxes")
    return candidates.boxes_xyxy


def _without_masks(candidates: Candidates, indices: NDArray[np.int64]) -> Candidates:
    return Candidates(
        boxes_xyxy=_boxes(candidates)[indices],
        scores=candidates.scores[indices],
        class_ids=candidates.class_ids[indices],
    )


class _OnCanvas:
    """The masks of one tile's candidates, moved when they are asked for."""

    def __init__(self, masks: Masks, placed: Geometry, tile: Rect) -> None:
        self._masks, self._placed, self._tile = masks, placed, tile

    def at(self, index: int) -> Field | None:
        mask = self._masks.at(index)
        if mask is None:
            return None
        placed, tile = self._placed, self._tile
        left, top, right, bottom = mask.region_xyxy
        region = (
            (left - placed.left_px) / placed.scale_x + tile.left_px,
            (top - placed.top_px) / placed.scale_y + tile.top_px,
            (right - placed.left_px) / placed.scale_x + tile.left_px,
            (bottom - placed.top_px) / placed.scale_y + tile.top_px,
        )
        return replace(mask, region_xyxy=region)


def joined_cut_off(sights: Sequence[Sight]) -> NDArray[np.bool_]:
    """Return `cut_off` of several tiles as one, in their order."""
    return np.concatenate([sight.cut_off for sight in sights])
