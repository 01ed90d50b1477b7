"""Suppression equals comparing every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.vision import nms
from agent.vision.candidates import Candidates


def iou(a: list[float], b: list[float]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, wide) * max(0.0, high)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


def by_pairs(candidates: Candidates, threshold: float, class_agnostic: bool) -> list[int]:
    assert candidates.boxes_xyxy is not None
    boxes, classes = candidates.boxes_xyxy.tolist(), candidates.class_ids.tolist()
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -candidates.scores[i]):
        rivals = [other for other in kept if class_agnostic or classes[other] == classes[index]]
        if all(iou(boxes[index], boxes[other]) <= threshold for other in rivals):
            kept.append(index)
    return kept


@pytest.mark.parametrize("class_agnostic", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_it_keeps_what_comparing_every_pair_keeps(seed: int, class_agnostic: bool) -> None:
    random = np.random.default_rng(seed)
    corners = random.random((120, 2)) * 200
    candidates = Candidates(
        boxes_xyxy=np.concatenate([corners, corners + 10 + random.random((120, 2)) * 80], axis=1).astype(np.float32),
        scores=random.random(120).astype(np.float32),
        class_ids=random.integers(0, 4, 120),
    )

    kept = nms.suppress(candidates, iou_threshold=0.45, class_agnostic=class_agnostic)

    assert kept.tolist() == by_pairs(candidates, 0.45, class_agnostic)


def test_nothing_in_nothing_out() -> None:
    empty = Candidates(
        boxes_xyxy=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), class_ids=np.zeros(0, np.int64)
    )

    assert nms.suppress(empty, iou_threshold=0.5, class_agnostic=False).tolist() == []


def test_a_flood_of_boxes_is_bounded() -> None:
    count = nms.MAX_CANDIDATES + 500
    side = np.arange(count, dtype=np.float32) * 20
    apart = np.stack([side, side, side + 10, side + 10], axis=1)
    candidates = Candidates(
        boxes_xyxy=apart, scores=np.linspace(0.1, 0.9, count, dtype=np.float32), class_ids=np.zeros(count, np.int64)
    )

    kept = nms.suppress(candidates, iou_threshold=0.5, class_agnostic=True)

    assert len(kept) == nms.MAX_CANDIDATES
    assert kept[0] == count - 1


# Few places, sizes, scores and classes, so that equal scores, equal boxes and overlaps of exactly the threshold abound.
BOXES = st.lists(
    st.tuples(
        st.integers(-8, 8),
        st.integers(-8, 8),
        st.integers(0, 8),
        st.integers(0, 8),
        st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
        st.integers(0, 3),
    ),
    max_size=40,
)
COPIES = st.sampled_from([1, 1, 1, 12])  # enough to need several blocks


@settings(max_examples=300, deadline=None)
@given(
    boxes=BOXES,
    copies=COPIES,
    threshold=st.sampled_from([0.0, 0.1, 1 / 3, 0.45, 0.5, 0.7, 0.999]),
    agnostic=st.booleans(),
)
def test_it_equals_brute_force_across_ties(
    boxes: list[tuple[int, int, int, int, float, int]], copies: int, threshold: float, agnostic: bool
) -> None:
    spread = [(x + 100 * copy, y, w, h, s, c) for copy in range(copies) for x, y, w, h, s, c in boxes]
    candidates = Candidates(
        boxes_xyxy=np.array([[x, y, x + w, y + h] for x, y, w, h, _, _ in spread], np.float32).reshape(-1, 4),
        scores=np.array([box[4] for box in spread], np.float32),
        class_ids=np.array([box[5] for box in spread], np.int64),
    )

    kept = nms.suppress(candidates, iou_threshold=threshold, class_agnostic=agnostic)

    assert kept.tolist() == by_pairs(candidates, threshold, agnostic)


def test_boxes_left_of_the_picture_do_not_meet_those_of_another_class() -> None:
    """Moving each class aside by the largest coordinate, as is usual, would put these two on top of each other."""
    candidates = Candidates(
        boxes_xyxy=np.array([[0, 0, 10, 10], [-11, 0, -1, 10]], np.float32),
        scores=np.array([0.9, 0.8], np.float32),
        class_ids=np.array([0, 1], np.int64),
    )

    assert nms.suppress(candidates, iou_threshold=0.5, class_agnostic=False).tolist() == [0, 1]


def test_a_threshold_of_one_merges_nothing() -> None:
    candidates = Candidates(
        boxes_xyxy=np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32),
        scores=np.array([0.8, 0.9], np.float32),
        class_ids=np.array([0, 0], np.int64),
    )

    assert nms.suppress(candidates, iou_threshold=nms.NEVER, class_agnostic=True).tolist() == [1, 0]
