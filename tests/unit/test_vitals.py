"""What is told of a picture, when it is raised and cleared, and what a reference view is."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.capture import measures
from agent.capture import reference as references
from agent.capture.frame import Vital
from agent.capture.reference import ReferenceStore
from agent.capture.settings import VitalsSettings
from agent.capture.vitals import VitalsWatch
from tests.support.vital_cases import blurred, filled, smeared
from wire.errors import LinesideError

NOW = dt.datetime(2026, 11, 21, 8, 30, tzinfo=dt.UTC)


def scene(seed: int = 0, *, width: int = 640, height: int = 360, noise: float = 2.0) -> NDArray[np.uint8]:
    """A still, structured scene under a sensor's noise; the seed is that of the noise alone."""
    layout = np.random.default_rng(99)
    image = np.full((height, width, 3), 90.0)
    for _ in range(60):
        x, y = int(layout.integers(width)), int(layout.integers(height))
        w, h = int(layout.integers(6, 60)), int(layout.integers(6, 60))
        image[y : y + h, x : x + w] = layout.integers(30, 220, 3)
    image += np.random.default_rng(seed).normal(0.0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def with_reference(settings: VitalsSettings | None = None) -> VitalsWatch:
    return VitalsWatch(settings or VitalsSettings(), references.of_pictures([scene(1)], NOW))


def test_a_whole_picture_has_no_trouble_with_and_without_a_reference() -> None:
    for watch in (VitalsWatch(VitalsSettings()), with_reference()):
        assert [watch.see(scene(seed)) for seed in range(2, 8)] == [()] * 6
        assert watch.raised == frozenset()


@pytest.mark.parametrize(
    ("spoiled", "vital"),
    [
        (scene(2) // 32, Vital.BLACK),
        (np.clip(scene(2) * 6.0, 0, 255).astype(np.uint8), Vital.SATURATED),
        (smeared(scene(2), 0.4), Vital.CORRUPT),
        (filled(scene(2), 0.4, (129, 129, 129)), Vital.CORRUPT),
        (filled(scene(2), 0.4, (0, 135, 0)), Vital.CORRUPT),
    ],
)
def test_black_saturated_and_corrupt_need_no_reference(spoiled: NDArray[np.uint8], vital: Vital) -> None:
    assert VitalsWatch(VitalsSettings()).see(spoiled) == (vital,)


def test_blur_is_told_against_the_reference_only_and_noise_does_not_hide_it() -> None:
    soft = blurred(scene(2, noise=0.0), 3.0)
    noisy = np.clip(soft + np.random.default_rng(3).normal(0.0, 6.0, soft.shape), 0, 255).astype(np.uint8)

    assert VitalsWatch(VitalsSettings()).see(soft) == ()
    assert with_reference().see(soft) == (Vital.BLURRED,)
    assert with_reference().see(noisy) == (Vital.BLURRED,)


@pytest.mark.parametrize(("x_px", "y_px", "moved"), [(0, 0, False), (12, 8, False), (40, 0, True), (-36, 30, True)])
def test_a_camera_that_moved_is_told_with_how_far(x_px: int, y_px: int, moved: bool) -> None:
    watch = with_reference()

    told = watch.see(np.roll(scene(2), (y_px, x_px), axis=(0, 1)))

    assert told == ((Vital.MOVED,) if moved else ())
    assert watch.last is not None
    assert watch.last.shift_px == pytest.approx((x_px, y_px), abs=4.0)


def test_a_part_that_passes_is_no_moving_camera() -> None:
    watch = with_reference()
    part = np.random.default_rng(5).integers(0, 255, (260, 240, 3), dtype=np.uint8)

    for left in range(0, 400, 40):
        image = scene(left)
        image[50:310, left : left + 240] = part
        assert watch.see(image) == ()


def test_a_large_part_that_lies_elsewhere_is_no_moving_camera() -> None:
    part = np.random.default_rng(5).integers(0, 255, (30, 40, 3), dtype=np.uint8).repeat(9, axis=0).repeat(9, axis=1)
    images = [scene(1), scene(2)]
    for image, left in zip(images, (100, 160), strict=True):
        image[40:310, left : left + 360] = part
    watch = VitalsWatch(VitalsSettings(), references.of_pictures(images[:1], NOW))

    assert watch.see(images[1]) == ()


def test_a_camera_that_moved_has_not_come_back_while_a_picture_cannot_tell() -> None:
    watch = with_reference(VitalsSettings(min_sharpness=0.0))
    moved = np.roll(scene(2), 60, axis=1)
    strange = np.random.default_rng(6).integers(0, 255, moved.shape, dtype=np.uint8)

    assert watch.see(moved) == (Vital.MOVED,)
    assert watch.see(strange) == (Vital.MOVED,)
    assert watch.see(scene(3)) == ()
    assert watch.see(strange) == ()


def test_equal_pictures_are_frozen_from_the_third_on_and_one_grey_level_is_enough_to_live() -> None:
    watch = VitalsWatch(VitalsSettings(raise_after=1, clear_after=1))
    still = scene(2)
    other = scene(4)

    assert [watch.see(still) for _ in range(4)] == [(), (), (Vital.FROZEN,), (Vital.FROZEN,)]
    assert watch.raised == {Vital.FROZEN}
    assert watch.see(other) == ()
    assert watch.raised == frozenset()


def test_pictures_of_a_scene_without_noise_may_be_equal_where_the_check_is_off() -> None:
    watch = VitalsWatch(VitalsSettings(frozen_after=0))

    assert [watch.see(scene(2)) for _ in range(5)] == [()] * 5


def test_black_pictures_that_are_equal_are_black_and_not_frozen() -> None:
    watch = VitalsWatch(VitalsSettings())

    assert [watch.see(np.zeros((360, 640, 3), dtype=np.uint8)) for _ in range(5)] == [(Vital.BLACK,)] * 5


def test_another_size_is_told_against_the_reference_and_against_the_settings() -> None:
    small = cv2.resize(scene(2), (320, 180))

    assert with_reference().see(small) == (Vital.WRONG_SIZE,)
    assert VitalsWatch(VitalsSettings(width_px=640)).see(small) == (Vital.WRONG_SIZE,)
    assert VitalsWatch(VitalsSettings(height_px=180)).see(small) == ()


def test_what_is_turned_off_is_not_told() -> None:
    off = VitalsSettings(
        frozen_after=0,
        max_dark_share=1.0,
        max_saturated_share=1.0,
        max_corrupt_share=1.0,
        min_sharpness=0.0,
        max_shift_px=0.0,
    )
    watch = with_reference(off)

    for image in (scene(2) // 32, smeared(scene(2), 0.4), blurred(scene(2), 4.0), np.roll(scene(2), 60, axis=1)):
        assert watch.see(image) == ()
    assert VitalsWatch(VitalsSettings(enabled=False)).see(scene(2) // 32) == ()


def test_a_trouble_is_raised_after_three_pictures_and_cleared_after_five_by_itself() -> None:
    watch = VitalsWatch(VitalsSettings())
    raised = []
    for seed in range(14):
        watch.see(scene(seed) // 32 if 2 <= seed < 6 else scene(seed))
        raised.append(Vital.BLACK in watch.raised)

    assert raised == [False] * 4 + [True] * 6 + [False] * 4


def test_a_single_bad_picture_is_told_and_raises_nothing() -> None:
    watch = VitalsWatch(VitalsSettings())
    told = [watch.see(scene(seed) // 32 if seed == 3 else scene(seed)) for seed in range(8)]

    assert told[3] == (Vital.BLACK,)
    assert watch.raised == frozenset()


def test_another_reference_starts_anew() -> None:
    watch = with_reference()
    aside = np.roll(scene(2), 60, axis=1)
    assert watch.see(aside) == (Vital.MOVED,)

    watch.use_reference(references.of_pictures([aside], NOW))
    assert watch.see(np.roll(scene(3), 60, axis=1)) == ()

    watch.use_reference(None)
    assert watch.see(blurred(scene(4), 5.0)) == ()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 161), (700, 20), (2, 4000)])
def test_pictures_of_any_size_are_measured(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(20, 200, (*size, 3), dtype=np.uint8)
    watch = VitalsWatch(VitalsSettings(), references.of_pictures([image], NOW))

    assert Vital.WRONG_SIZE not in watch.see(image)


def test_the_sample_is_a_copy_and_its_thumbnail_small() -> None:
    image = scene(2, width=1920, height=1080)
    seen = measures.sample(image)
    before = seen.thumbnail.copy()
    image[:] = 0

    assert max(seen.thumbnail.shape) <= measures.THUMBNAIL_WIDTH_PX
    assert (seen.thumbnail == before).all()


def test_noise_leaves_the_measure_of_detail_as_it_is() -> None:
    still = scene(2, noise=0.0)
    loud = np.clip(still + np.random.default_rng(3).normal(0.0, 8.0, still.shape), 0, 255).astype(np.uint8)

    quiet = measures.detail(measures.sample(still).rows)
    assert measures.detail(measures.sample(loud).rows).relative_to(quiet) == pytest.approx(1.0, abs=0.1)


def test_parts_that_pass_disappear_from_a_reference_of_several_pictures() -> None:
    images = []
    for number in range(9):
        image = scene(number)
        image[100:200, 60 * number : 60 * number + 60] = 255
        images.append(image)

    seen = references.of_pictures(images, NOW)

    assert seen.pictures == 9
    assert np.abs(seen.view.astype(int) - measures.sample(scene(0)).view).max() < 20


def test_a_reference_needs_pictures_of_one_size() -> None:
    with pytest.raises(LinesideError) as none:
        references.of_pictures([], NOW)
    with pytest.raises(LinesideError) as two:
        references.of_pictures([scene(1), scene(1, width=320)], NOW)

    assert (none.value.code, two.value.code) == ("source.unreadable", "source.unreadable")
    assert "320 x 360" in str(two.value)


def test_a_stored_reference_comes_back_and_a_recipes_own_goes_first(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path / "references")
    common = references.of_pictures([scene(1)], NOW)
    own = replace(common, pictures=7)
    assert store.read("press", "top", "blue") is None

    store.write("press", "top", common)
    store.write("press", "top", own, "blue")

    found = ReferenceStore(tmp_path / "references").read("press", "top", "blue")
    assert found is not None
    assert (found.pictures, found.taken_at, found.detail, found.damage) == (7, NOW, own.detail, own.damage)
    assert (found.view == own.view).all()
    red = store.read("press", "top", "red")
    assert red is not None
    assert red.pictures == 1
    assert store.remove("press", "top", "blue")
    assert not store.remove("press", "top", "blue")
    assert store.read("press", "side") is None


def test_a_damaged_reference_says_so_and_a_name_is_no_path(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path)
    store.write("press", "top", references.of_pictures([scene(1)], NOW))
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(file.read_bytes()[:-30])

    with pytest.raises(LinesideError) as damaged:
        store.read("press", "top")
    with pytest.raises(LinesideError) as path:
        store.read("press", "../top")

    assert (damaged.value.code, path.value.code) == ("storage.corrupt", "usage.invalid")
