"""The boards of DeepPCB's official test part that the shared data holds: patches, whole boards, counts and intervals.

Protocol of the patches, as the classifiers' authors cut theirs: a window of 64 pixels for each labelled box, centred
on the box and moved inside the board (`jitter_px` moves it at random, up to so many pixels each way), and six windows
a board that keep 8 pixels away from every labelled box. The authors' jitter is 16 pixels; theirs were all 500 boards.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LABELS = ("normal", "open", "short", "mousebite", "spur", "copper", "pinhole")
PATCH_PX = 64
NORMALS_A_BOARD = 6
MARGIN_PX = 8
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One board under test with its defect-free twin.

    Args:
        image_bgr, template_bgr: (640, 640, 3) uint8, aligned.
        defects: box in pixels and label of each.
    """

    id: str
    group: str
    image_bgr: NDArray[np.uint8]
    template_bgr: NDArray[np.uint8]
    defects: tuple[tuple[Box, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A window of a board and what is in its middle."""

    board: str
    label: str
    image_bgr: NDArray[np.uint8]


def boards(shared_data: Path, limit: int | None = None) -> list[Board]:
    """Read the boards of the official test part; with a limit, as many spread evenly over them."""
    pictures = shared_data / "pictures"
    with (pictures / "index.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if (row["dataset"], row["origin_split"]) == ("deeppcb", "test")]
    rows.sort(key=lambda row: row["file"])
    if limit is not None:
        rows = [rows[index * len(rows) // limit] for index in range(limit)]
    return [_board(pictures, row) for row in rows]


def _board(pictures: Path, row: dict[str, str]) -> Board:
    defects = []
    for line in (pictures / row["label_file"]).read_text(encoding="utf-8").splitlines():
        x1, y1, x2, y2, kind = (int(text) for text in line.split())
        defects.append(((float(x1), float(y1), float(x2), float(y2)), LABELS[kind]))
    return Board(
        id=Path(row["file"]).stem,
        group=row["group"],
        image_bgr=_read(pictures / row["file"]),
        template_bgr=_read(pictures / row["extra_file"]),
        defects=tuple(defects),
    )


def _read(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    return np.asarray(image, dtype=np.uint8)


def patches(found: Sequence[Board], *, jitter_px: int = 0, seed: int = 42, normals: str = "board") -> list[Patch]:
    """Cut the patches of boards.

    Args:
        normals: "board" cuts defect-free windows of the board under test, "template" the same windows of its twin.
    """
    cut: list[Patch] = []
    for board in found:
        # Seeded per board, so that a subset of the boards has the patches it has among all of them.
        draw = random.Random(f"{seed} {board.id}")
        height, width = board.image_bgr.shape[:2]
        for (x1, y1, x2, y2), label in board.defects:
            center_x = int(x1 + x2) // 2 + draw.randint(-jitter_px, jitter_px)
            center_y = int(y1 + y2) // 2 + draw.randint(-jitter_px, jitter_px)
            left = min(max(center_x - PATCH_PX // 2, 0), width - PATCH_PX)
            top = min(max(center_y - PATCH_PX // 2, 0), height - PATCH_PX)
            cut.append(Patch(board=board.id, label=label, image_bgr=_window(board.image_bgr, left, top)))
        of = board.image_bgr if normals == "board" else board.template_bgr
        cut.extend(
            Patch(board=board.id, label="normal", image_bgr=_window(of, left, top))
            for left, top in _free(board, draw, width, height)
        )
    return cut


def _window(image: NDArray[np.uint8], left: int, top: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image[top : top + PATCH_PX, left : left + PATCH_PX])


def _free(board: Board, draw: random.Random, width: int, height: int) -> Iterator[tuple[int, int]]:
    made = 0
    for _ in range(100):
        left, top = draw.randint(0, width - PATCH_PX), draw.randint(0, height - PATCH_PX)
        if any(
            left < x2 + MARGIN_PX
            and left + PATCH_PX > x1 - MARGIN_PX
            and top < y2 + MARGIN_PX
            and top + PATCH_PX > y1 - MARGIN_PX
            for (x1, y1, x2, y2), _ in board.defects
        ):
            continue
        yield left, top
        made += 1
        if made == NORMALS_A_BOARD:
            return


def template_difference(board: Board) -> list[Box]:
    """Find defects by comparing a board with its twin: difference, threshold, opening, connected areas.

    The parameters were set once, not tuned on these boards: grey levels over 127, an opening of 3 x 3, areas of at
    least 20 pixels.
    """
    difference = cv2.cvtColor(cv2.absdiff(board.image_bgr, board.template_bgr), cv2.COLOR_BGR2GRAY)
    marked = cv2.threshold(difference, 127, 255, cv2.THRESH_BINARY)[1]
    opened = cv2.morphologyEx(marked, cv2.MORPH_OPEN, np.ones((3, 3), dtype=np.uint8))
    _, _, areas, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    return [
        (float(x), float(y), float(x + width), float(y + height))
        for x, y, width, height, pixels in areas[1:]
        if pixels >= 20
    ]


def hits(one: Box, other: Box) -> bool:
    """Tell whether one of two boxes has the other's middle inside it."""
    return _inside(one, other) or _inside(other, one)


def _inside(outer: Box, inner: Box) -> bool:
    x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]


def iou(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, wide) * max(0.0, high)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def wilson(good: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a share of independent trials (Wilson, 1927)."""
    share = good / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (middle - half) / (1 + z * z / total), (middle + half) / (1 + z * z / total)


def by_board(pairs: dict[str, tuple[int, int]], *, rounds: int = 4000, seed: int = 1) -> tuple[float, float]:
    """Return the 95 % interval of a share by drawing whole boards with replacement: what is on a board is akin.

    Args:
        pairs: good and total of each board.
    """
    table = np.array(list(pairs.values()), dtype=np.int64)
    drawn = np.random.default_rng(seed).integers(0, len(table), (rounds, len(table)))
    sums = table[drawn].sum(axis=1)
    shares = sums[:, 0] / np.maximum(sums[:, 1], 1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def share(pairs: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Return a share with both intervals, from good and total of each board."""
    good, total = (sum(pair[place] for pair in pairs.values()) for place in (0, 1))
    if total == 0:
        return {"good": 0, "total": 0, "share": None}
    return {
        "good": good,
        "total": total,
        "share": round(good / total, 4),
        "wilson": [round(edge, 4) for edge in wilson(good, total)],
        "by_board": [round(edge, 4) for edge in by_board(pairs)],
    }


def count(patches_: Sequence[Patch], right: Callable[[int], bool], of: Callable[[Patch], bool]) -> dict[str, Any]:
    """Return the share of the chosen patches that are right.

    Args:
        right: of the patch at an index.
        of: chooses.
    """
    pairs: dict[str, tuple[int, int]] = {}
    for index, patch in enumerate(patches_):
        if of(patch):
            good, total = pairs.get(patch.board, (0, 0))
            pairs[patch.board] = (good + right(index), total + 1)
    return share(pairs)
