"""Vitals on real pictures: a wear run, tiles under six exposures, clips of fixed cameras, whole and spoiled.

A bounded part of what scripts/measure_vitals.py measures on all of them (docs/performance.md); the limits leave room
for other versions of the decoder.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.capture import reference as references
from agent.capture.frame import Vital
from tests.support import vital_cases

FEW = 30  # every so many pictures of a clip
# Of a moved camera a picture may not tell (the moved part of the scene is what it knew), and of a large part in front
# of a plain background the blur is not told: docs/explanation/vitals.md.
MISSED_SHARE = {Vital.MOVED: 0.45, Vital.BLURRED: 0.4}


@pytest.fixture(scope="module", params=vital_cases.FIXED_CLIPS)
def clip(request: pytest.FixtureRequest, shared_data: Path) -> list[vital_cases.Image]:
    return vital_cases.clip(shared_data, request.param, every=FEW)


@pytest.mark.parametrize("how", [how for how, (wanted, _) in vital_cases.SPOILED.items() if wanted is None])
def test_whole_pictures_of_a_fixed_camera_raise_no_false_alarm(clip: list[vital_cases.Image], how: str) -> None:
    outcome = vital_cases.spoiled(clip, how)

    assert outcome.shown >= 12
    assert outcome.false <= outcome.shown * 0.03, outcome


@pytest.mark.parametrize("how", [how for how, (wanted, _) in vital_cases.SPOILED.items() if wanted is not None])
def test_spoiled_pictures_are_told(clip: list[vital_cases.Image], how: str) -> None:
    wanted, _ = vital_cases.SPOILED[how]
    outcome = vital_cases.spoiled(clip, how)

    if how == "lower tenth smeared":
        assert outcome.missed == outcome.shown  # what is smaller than a sixth of the picture is not found
        return
    assert wanted is not None
    assert outcome.missed <= outcome.shown * MISSED_SHARE.get(wanted, 0.05), outcome
    assert outcome.false <= outcome.shown * 0.05, outcome


def test_a_frozen_camera_is_told_from_the_third_picture_on(clip: list[vital_cases.Image]) -> None:
    outcome = vital_cases.frozen(clip[:6])

    assert (outcome.missed, outcome.false) == (0, 0)


def test_the_wear_run_changes_size_at_picture_58_and_has_no_other_trouble(shared_data: Path) -> None:
    images = vital_cases.wear_run(shared_data)
    reference = references.of_pictures(images[:1], vital_cases.NOW)
    watch = vital_cases.VitalsWatch(vital_cases.VitalsSettings(), reference)

    told = [watch.see(image) for image in images]

    assert len(images) == 69
    assert [number for number, troubles in enumerate(told, 1) if troubles] == list(range(58, 70))
    assert set(told[57:]) == {(Vital.WRONG_SIZE,)}
    assert watch.raised == {Vital.WRONG_SIZE}


def test_blur_is_told_on_the_whole_wear_run_against_its_first_picture(shared_data: Path) -> None:
    images = vital_cases.wear_run(shared_data)
    reference = references.of_pictures(images[:1], vital_cases.NOW)
    soft = [vital_cases.blurred(image, 2.0) for image in images[: vital_cases.SIZE_CHANGE - 1]]

    outcome = vital_cases.run(soft, Vital.BLURRED, reference=reference)

    assert (outcome.shown, outcome.missed, outcome.false) == (57, 0, 0)


def test_six_exposures_of_a_tile_are_one_view_and_blur_is_told_under_each(shared_data: Path) -> None:
    shown = missed = 0
    moved = []
    for number, images in enumerate(vital_cases.tiles(shared_data)):
        reference = references.of_pictures(images[:1], vital_cases.NOW)
        whole = vital_cases.run(images[1:], None, reference=reference)
        assert set(whole.told) <= {"moved"}
        moved += [number] * whole.told["moved"]
        soft = [vital_cases.blurred(image, 3.0) for image in images[1:]]
        outcome = vital_cases.run(soft, Vital.BLURRED, reference=reference)
        shown, missed = shown + outcome.shown, missed + outcome.missed

    # One tile was cut 30 to 46 pixels apart by the makers of the data: that is a moved view, truly told.
    assert (shown, missed) == (137, 0)
    assert len(moved) == 3
    assert len(set(moved)) == 1
