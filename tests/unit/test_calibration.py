"""Millimetres on the part: by a scale, by a homography from a target, for boxes, polygons and masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.capture import calibration, target
from agent.capture.target import CalibrationStore
from agent.vision import findings
from wire.errors import LinesideError
from wire.inspection import Box, Finding

COLUMNS, ROWS, SQUARE_MM = 9, 6, 5.0
PX_PER_MM = 10.0
# A camera that looks at the plane from the side: mm to pixels.
TILTED = np.array([[12.0, 1.5, 150.0], [-0.8, 11.0, 120.0], [0.0015, 0.0025, 1.0]])


def board_mm() -> NDArray[np.uint8]:
    """A chessboard seen straight from above, ten pixels a millimetre, with a white border of one square."""
    side = int(SQUARE_MM * PX_PER_MM)
    rows, columns = np.indices(((ROWS + 3) * side, (COLUMNS + 3) * side)) // side
    inside = (rows > 0) & (rows < ROWS + 2) & (columns > 0) & (columns < COLUMNS + 2)
    board = np.where(inside & ((rows + columns) % 2 == 0), 20, 235).astype(np.uint8)
    return np.asarray(cv2.cvtColor(board, cv2.COLOR_GRAY2BGR), dtype=np.uint8)


def seen(to_px: NDArray[np.float64], width: int = 1280, height: int = 960, noise: float = 0.0) -> NDArray[np.uint8]:
    """The board as a camera sees it that maps a point (x, y) mm to a pixel; its first inner corner is (0, 0) mm."""
    side = SQUARE_MM * 2
    # Pixels of both pictures count from the outer corner here, and OpenCV's warp counts from the middle.
    to_mm = np.array([[1 / PX_PER_MM, 0, -side], [0, 1 / PX_PER_MM, -side], [0, 0, 1]])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    whole = np.linalg.inv(half) @ to_px @ to_mm @ half
    image = cv2.warpPerspective(board_mm(), whole, (width, height), flags=cv2.INTER_AREA, borderValue=(235, 235, 235))
    spoiled = image + np.random.default_rng(0).normal(0.0, noise, image.shape)
    return np.clip(spoiled, 0, 255).astype(np.uint8)


def px(x_mm: float, y_mm: float, to_px: NDArray[np.float64] = TILTED) -> tuple[float, float]:
    x, y, depth = to_px @ np.array([x_mm, y_mm, 1.0])
    return float(x / depth), float(y / depth)


def test_a_scale_measures_boxes_polygons_and_masks() -> None:
    made = calibration.of_scale(0.5)
    box = Box(x1_px=10, y1_px=20, x2_px=30, y2_px=60)

    assert made.size_mm(box) == pytest.approx((10.0, 20.0))
    assert made.area_mm2(box) == pytest.approx(200.0)
    assert made.area_mm2([(0, 0), (10, 0), (0, 10)]) == pytest.approx(12.5)
    assert made.mask_area_mm2(np.ones((3, 4), dtype=bool), left_px=5, top_px=6) == pytest.approx(3.0)


def test_a_chessboard_seen_askew_gives_millimetres_back() -> None:
    made = target.from_chessboard(seen(TILTED, noise=4.0), columns=COLUMNS, rows=ROWS, square_mm=SQUARE_MM)

    corners = [px(5, 4), px(25, 4), px(25, 16), px(5, 16)]
    on_part = made.to_mm(np.array(corners))
    sides = np.linalg.norm(on_part - np.roll(on_part, -1, axis=0), axis=1)
    assert sides == pytest.approx([20, 12, 20, 12], rel=0.005)
    assert made.area_mm2(corners) == pytest.approx(240.0, rel=0.005)
    assert made.error_mm < 0.05
    # Half a pixel beside would be 0.04 mm; the board may be counted from either end.
    ends = np.array([[5, 4], [(COLUMNS - 1) * SQUARE_MM - 5, (ROWS - 1) * SQUARE_MM - 4]])
    assert np.abs(ends - on_part[0]).max(axis=1).min() < 0.02


def test_a_mask_far_away_covers_more_of_the_part_than_the_same_mask_near_by() -> None:
    made = target.from_chessboard(seen(TILTED), columns=COLUMNS, rows=ROWS, square_mm=SQUARE_MM)
    mask = np.zeros((960, 1280), dtype=np.uint8)
    cv2.fillPoly(mask, [np.round(np.array([px(5, 4), px(25, 4), px(25, 16), px(5, 16)])).astype(np.int32)], 1)
    small = np.ones((20, 20), dtype=bool)

    assert made.mask_area_mm2(mask > 0, left_px=0, top_px=0) == pytest.approx(240.0, rel=0.02)
    near, far = (made.mask_area_mm2(small, left_px=left, top_px=top) for left, top in ((160, 130), (600, 500)))
    assert far > 1.1 * near


def test_a_box_on_the_part_has_the_mean_of_its_sides() -> None:
    straight = np.array([[8.0, 0, 200.0], [0, 8.0, 200.0], [0, 0, 1.0]])
    made = target.from_chessboard(seen(straight), columns=COLUMNS, rows=ROWS, square_mm=SQUARE_MM)
    box = Box(x1_px=200, y1_px=240, x2_px=280, y2_px=400)

    assert made.size_mm(box) == pytest.approx((10.0, 20.0), rel=0.005)
    assert made.area_mm2(box) == pytest.approx(200.0, rel=0.01)


def test_a_picture_without_the_target_says_what_to_do() -> None:
    plain = np.full((480, 640, 3), 128, dtype=np.uint8)
    with pytest.raises(LinesideError) as none:
        target.from_chessboard(plain, columns=COLUMNS, rows=ROWS, square_mm=SQUARE_MM)
    with pytest.raises(LinesideError) as squares:
        target.from_chessboard(seen(TILTED), columns=COLUMNS + 3, rows=ROWS, square_mm=SQUARE_MM)
    with pytest.raises(LinesideError) as wrong:
        target.from_chessboard(plain, columns=2, rows=6, square_mm=SQUARE_MM)

    assert (none.value.code, squares.value.code) == ("calibration.no_target", "calibration.no_target")
    assert "white border" in none.value.next_step
    assert wrong.value.code == "usage.invalid"


def test_a_bent_board_is_refused() -> None:
    flat = seen(np.array([[14.0, 0, 200.0], [0, 14.0, 200.0], [0, 0, 1.0]]))
    rows, columns = np.indices(flat.shape[:2]).astype(np.float32)
    bent = cv2.remap(flat, columns, rows + 40.0 * np.sin(columns / 150.0).astype(np.float32), cv2.INTER_LINEAR)

    with pytest.raises(LinesideError) as refused:
        target.from_chessboard(np.asarray(bent, dtype=np.uint8), columns=COLUMNS, rows=ROWS, square_mm=SQUARE_MM)

    assert refused.value.code == "calibration.invalid"


def test_a_plane_seen_from_its_edge_is_refused() -> None:
    edge_on = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, -0.00104, 1.0]])
    with pytest.raises(LinesideError) as refused:
        calibration.of_homography(edge_on, width_px=1280, height_px=960)
    with pytest.raises(LinesideError):
        calibration.of_homography(np.zeros((3, 3)), width_px=1280, height_px=960)
    with pytest.raises(LinesideError):
        calibration.of_homography(np.full((3, 3), np.nan), width_px=1280, height_px=960)
    with pytest.raises(LinesideError):
        calibration.of_scale(0.0)

    assert refused.value.code == "calibration.invalid"


def test_a_calibration_speaks_of_pictures_of_its_own_size_only() -> None:
    made = calibration.of_scale(0.1, width_px=1280, height_px=720)

    assert made.fits(1280, 720)
    assert not made.fits(1920, 1080)
    assert calibration.of_scale(0.1).fits(1920, 1080)


def test_the_sizes_of_findings_are_those_of_their_boxes() -> None:
    made = calibration.of_scale(0.5)
    boxed = Finding(label="dent", score=0.9, box=Box(x1_px=0, y1_px=0, x2_px=10, y2_px=4))

    assert findings.sizes_mm([boxed, boxed], made) == ((5.0, 2.0), (5.0, 2.0))
    assert findings.sizes_mm([], made) == ()
    assert findings.sizes_mm([boxed], None) is None
    assert findings.sizes_mm([boxed, Finding(label="dent", score=0.9)], made) is None


def test_a_stored_calibration_comes_back(tmp_path: Path) -> None:
    store = CalibrationStore(tmp_path)
    made = calibration.of_homography(np.linalg.inv(TILTED), width_px=1280, height_px=960, error_mm=0.02, target="board")
    assert store.read("press", "top") is None

    store.write("press", "top", made)

    assert CalibrationStore(tmp_path).read("press", "top") == made
    assert store.remove("press", "top")
    assert store.read("press", "top") is None


def test_a_damaged_calibration_says_so(tmp_path: Path) -> None:
    store = CalibrationStore(tmp_path)
    store.write("press", "top", calibration.of_scale(0.5))
    (file,) = tmp_path.rglob("*.json")
    file.write_text("{")

    with pytest.raises(LinesideError) as damaged:
        store.read("press", "top")

    assert damaged.value.code == "storage.corrupt"
