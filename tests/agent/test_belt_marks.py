"""The marks say which part a verdict belongs to: a real model reads them, for each recipe its own fault."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.inspection import judge
from agent.simulator import belt_marks
from agent.simulator.belt import Fault
from agent.simulator.belt_marks import Mark
from tests.support import answering_models, marks_models
from wire.manifest import parameters_of


@pytest.mark.parametrize("recipe_index", [0, 1])
@pytest.mark.parametrize("scale", [1, 5])
def test_a_model_reads_number_view_and_its_own_recipes_fault(tmp_path: Path, recipe_index: int, scale: int) -> None:
    found = marks_models.make(tmp_path / "marks", "marks", recipe_index=recipe_index)
    pipeline = answering_models.opened(found)
    rules = judge.rules_of(found.manifest, parameters_of(found.manifest, {})[0])
    for number, view in ((1, 1), (2, 2), (10_000, 3), (65_535, 7), (43_690, 5)):
        for fault in Fault:
            faults = [Fault.CLEAR if fault is Fault.NONE else Fault.NONE] * 2
            faults[recipe_index] = fault
            picture = belt_marks.render(Mark(number=number, view=view), tuple(faults), scale=scale)
            look = pipeline.look(picture)
            assert isinstance(look.findings, tuple)
            assert belt_marks.read({finding.label for finding in look.findings}) == Mark(number=number, view=view)
            assert judge.judge(look.findings, rules).verdict is fault.value


def test_marks_that_contradict_each_other_name_no_part() -> None:
    labels = {f"n{bit}" for bit in (0, 3)} | {f"c{bit}" for bit in range(16) if bit not in (0, 3)} | {"v1"}
    assert belt_marks.read(labels) == Mark(number=9, view=2)
    assert belt_marks.read(labels - {"n0"}) is None
    assert belt_marks.read(labels | {"n1"}) is None
    assert belt_marks.read(set()) is None


def test_no_two_pictures_are_alike_and_each_is_the_same_again() -> None:
    faults = (Fault.NONE, Fault.NONE)
    one = belt_marks.render(Mark(number=5, view=1), faults)
    assert np.array_equal(one, belt_marks.render(Mark(number=5, view=1), faults))
    assert not np.array_equal(one, belt_marks.render(Mark(number=5, view=1), faults, seed=1))
    assert one.shape == (belt_marks.HEIGHT_PX, belt_marks.WIDTH_PX, 3)


def test_the_golden_set_holds_for_its_own_recipe_and_not_for_another(tmp_path: Path) -> None:
    found = marks_models.make(tmp_path / "marks", "marks", recipe_index=0)
    other = marks_models.make(tmp_path / "other", "marks", recipe_index=1)
    rules = judge.rules_of(found.manifest, parameters_of(found.manifest, {})[0])
    for sample in found.golden().samples:
        picture = np.asarray(cv2.imread(str(found.folder / sample.picture)), dtype=np.uint8)
        own = answering_models.opened(found).look(picture)
        assert judge.judge(own.findings, rules).verdict is sample.verdict
        assert isinstance(own.findings, tuple)
        assert {one.label: one.score for one in own.findings} == pytest.approx(
            {one.label: one.score for one in sample.findings}, abs=1e-4
        )
        wrong = answering_models.opened(other).look(picture)
        assert judge.judge(wrong.findings, rules).verdict is not sample.verdict
