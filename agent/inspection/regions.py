"""Which findings belong to a region of the picture: by the centre of their box, or by the share of it that is inside.

A finding without a box speaks of the whole picture and counts as a box around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from wire.inspection import Box, Finding
from wire.rules import Belongs, Region

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSize:
    """Size of the picture that findings were made in, source pixels."""

    width_px: int
    height_px: int


def size_of(image_bgr: NDArray[Any]) -> PictureSize:
    """Return a picture's size; `image_bgr` is (H, W, 3)."""
    height_px, width_px = image_bgr.shape[:2]
    return PictureSize(width_px=width_px, height_px=height_px)


def belongs(finding: Finding, region: Region, size: PictureSize) -> bool:
    """Tell whether a finding belongs to a region; see `wire.rules.Region`."""
    box = finding.box or Box(x1_px=0.0, y1_px=0.0, x2_px=float(size.width_px), y2_px=float(size.height_px))
    corners = [(x * size.width_px, y * size.height_px) for x, y in region.corners]
    if region.belongs is Belongs.CENTRE:
        return _holds(corners, ((box.x1_px + box.x2_px) / 2, (box.y1_px + box.y2_px) / 2))
    area = (box.x2_px - box.x1_px) * (box.y2_px - box.y1_px)
    return area > 0 and area_inside(corners, box) >= region.min_overlap * area


def area_inside(corners: Sequence[Point], box: Box) -> float:
    """Return how much of a box lies inside a polygon, square pixels.

    The polygon is cut along the box's four edges (Sutherland and Hodgman, 1974); what is left of one that is not
    convex may hang together by edges without area, which add nothing.
    """
    kept = list(corners)
    for axis, limit, sign in ((0, box.x1_px, 1.0), (0, box.x2_px, -1.0), (1, box.y1_px, 1.0), (1, box.y2_px, -1.0)):
        kept = _cut(kept, axis, limit, sign)
    return abs(sum(_cross(kept[index - 1], corner) for index, corner in enumerate(kept))) / 2


def _cut(corners: Sequence[Point], axis: int, limit: float, sign: float) -> list[Point]:
    kept: list[Point] = []
    for index, end in enumerate(corners):
        start = corners[index - 1]
        inside_start, inside_end = sign * (start[axis] - limit) >= 0, sign * (end[axis] - limit) >= 0
        if inside_start is not inside_end:
            share = (limit - start[axis]) / (end[axis] - start[axis])
            kept.append((start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])))
        if inside_end:
            kept.append(end)
    return kept


def _cross(one: Point, other: Point) -> float:
    return one[0] * other[1] - one[1] * other[0]


def _holds(corners: Sequence[Point], point: Point) -> bool:
    """Tell whether a point is in a polygon: a ray to the right crosses its sides an odd number of times."""
    x, y = point
    inside = False
    for index, (x2, y2) in enumerate(corners):
        x1, y1 = corners[index - 1]
        if (y1 > y) is not (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            inside = not inside
    return inside
