"""Simulated parts: the same part is the same picture, and the known truth is what the picture shows."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from agent.simulator import parts


def test_a_part_is_planned_and_drawn_alike_each_time() -> None:
    first, again = parts.plan_part(7, 12, 0.5), parts.plan_part(7, 12, 0.5)
    assert first == again
    assert np.array_equal(parts.render(first), parts.render(again))


def test_another_process_draws_the_same_part_without_those_before_it() -> None:
    program = (
        "import hashlib, json; from agent.simulator import parts; p = parts.plan_part(7, 30, 1.0);"
        "print(json.dumps([hashlib.sha256(parts.render(p)).hexdigest(), [list(d.box) for d in p.truth.defects]]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    for number in range(30):
        parts.render(parts.plan_part(7, number, 1.0))
    part = parts.plan_part(7, 30, 1.0)
    own = [hashlib.sha256(parts.render(part)).hexdigest(), [list(d.box) for d in part.truth.defects]]
    assert json.loads(done.stdout) == own


def test_parts_of_other_runs_and_numbers_differ() -> None:
    pictures = {parts.render(parts.plan_part(seed, number, 0.0)).tobytes() for seed in (1, 2) for number in range(5)}
    assert len(pictures) == 10


def test_pictures_have_the_promised_shape() -> None:
    picture = parts.render(parts.plan_part(1, 1, 0.5))
    assert picture.shape == (240, 320, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.4, 1.0])
def test_the_share_of_defective_parts_is_near_the_asked_one(rate: float) -> None:
    count = 4000
    bad = sum(parts.plan_part(11, number, rate).truth.is_ng for number in range(count))
    assert abs(bad - rate * count) <= 4 * math.sqrt(count * rate * (1 - rate))


def test_every_kind_of_defect_occurs_about_as_often_as_it_should() -> None:
    kinds = Counter(d.kind for number in range(2000) for d in parts.plan_part(3, number, 1.0).truth.defects)
    total = sum(kinds.values())
    assert 0.40 < kinds[parts.DefectKind.SCRATCH] / total < 0.50
    assert 0.25 < kinds[parts.DefectKind.DENT] / total < 0.35
    assert 0.20 < kinds[parts.DefectKind.MISSING_HOLE] / total < 0.30


def test_a_defect_changes_pixels_inside_its_box_and_nowhere_else() -> None:
    for number in range(150):
        part = parts.plan_part(5, number, 1.0)
        changed = np.abs(parts.render(part).astype(np.int16) - parts.render(part.without_defects())).max(axis=2)
        outside = changed.copy()
        for defect in part.truth.defects:
            x1, y1, x2, y2 = defect.box
            rows, columns = slice(math.floor(y1), math.ceil(y2)), slice(math.floor(x1), math.ceil(x2))
            assert changed[rows, columns].max() >= 12, (number, defect)
            outside[rows, columns] = 0
        assert outside.max() == 0, number


def test_boxes_lie_in_the_picture_and_have_an_area() -> None:
    for number in range(500):
        for defect in parts.plan_part(9, number, 1.0).truth.defects:
            x1, y1, x2, y2 = defect.box
            assert 0 <= x1 < x2 <= parts.WIDTH_PX
            assert 0 <= y1 < y2 <= parts.HEIGHT_PX
            assert (x2 - x1) * (y2 - y1) >= 30


def test_a_part_without_defects_is_ok_and_with_any_is_ng() -> None:
    part = parts.plan_part(5, 3, 1.0)
    assert part.truth.is_ng
    assert not part.without_defects().truth.is_ng
    assert part.without_defects().truth.defects == ()
