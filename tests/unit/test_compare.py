"""Two models on the same pictures: which findings are one, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from agent.vision import compare, compare_pictures
from wire.inspection import Box, Finding, Verdict

OK, NG = Verdict.OK, Verdict.NG


def seen(label: str, x: float | None = 0.0, score: float = 0.5, width: float = 10.0) -> Finding:
    box = None if x is None else Box(x1_px=x, y1_px=0.0, x2_px=x + width, y2_px=10.0)
    return Finding(label=label, score=score, box=box)


@pytest.mark.parametrize(
    ("a", "b", "counts"),
    [
        ((), (), (0, 0, 0, 0)),
        ((seen("x"),), (seen("x", 1),), (1, 0, 0, 0)),
        ((seen("x"),), (seen("x", 9),), (0, 0, 1, 1)),
        ((seen("x"),), (seen("y", 1),), (0, 1, 0, 0)),
        ((seen("x"), seen("x", 1)), (seen("x", 1),), (1, 0, 1, 0)),
        ((seen("x"), seen("y")), (seen("y"), seen("x")), (2, 0, 0, 0)),
        ((seen("x", None),), (seen("x", None),), (1, 0, 0, 0)),
        ((seen("x", None),), (seen("y", None),), (0, 1, 0, 0)),
        ((seen("x", None),), (seen("x"),), (0, 0, 1, 1)),
    ],
)
def test_findings_are_one_by_label_and_place(
    a: tuple[Finding, ...], b: tuple[Finding, ...], counts: tuple[int, int, int, int]
) -> None:
    found = compare.match(a, b)
    assert (len(found.same), len(found.relabelled), len(found.only_a), len(found.only_b)) == counts
    assert found.agrees is (counts[1:] == (0, 0, 0))


def test_the_nearest_box_is_paired_first() -> None:
    found = compare.match((seen("x", 0), seen("x", 4)), (seen("x", 3.5),))
    assert found.same == ((seen("x", 4), seen("x", 3.5)),)


def test_a_summary_counts_what_was_seen() -> None:
    tally = compare.Tally()
    assert tally.add(OK, OK, compare.match((seen("x", score=0.5),), (seen("x", score=0.7),)))
    assert not tally.add(NG, OK, compare.match((seen("x"),), ()))
    assert not tally.add(OK, OK, compare.match((seen("x"),), (seen("y"),)))
    summary = tally.summary()
    assert (summary["pictures"], summary["verdict_agreement"], summary["picture_agreement"]) == (3, 0.666667, 0.333333)
    assert summary["finding_agreement"] == 0.333333
    assert summary["verdicts"] == [{"a": "NG", "b": "OK", "pictures": 1}, {"a": "OK", "b": "OK", "pictures": 2}]
    assert summary["labels"] == [
        {"label": "x", "both": 1, "only_a": 1, "only_b": 0},
        {"label": "y", "both": 0, "only_a": 0, "only_b": 0},
    ]
    assert summary["relabelled"] == [{"a": "x", "b": "y", "findings": 1}]
    assert summary["score_shift"] == {"mean": 0.2, "median_size": 0.2, "p95_size": 0.2, "largest_size": 0.2}
    empty = compare.Tally().summary()
    assert (empty["verdict_agreement"], empty["score_shift"]) == (None, None)


@pytest.mark.parametrize("size", [(40, 60), (2000, 3000), (1, 1)])
def test_both_views_are_drawn_beside_each_other(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), dtype=np.uint8)
    drawn = compare_pictures.side_by_side(image, ("a", OK, ()), ("b ä", NG, (seen("x"), seen("y", None))))
    assert drawn.dtype == np.uint8
    left, right = np.hsplit(drawn, 2)
    assert left.shape == right.shape
    assert max(drawn.shape) <= 2 * compare_pictures.MAX_SIDE_PX
    assert not np.array_equal(left, right)
