"""Masks, areas and outlines in source pixels: instance masks, class maps and anomaly maps, against plain loops."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.capture.calibration import of_scale
from agent.vision import findings as building
from agent.vision import masks
from agent.vision.candidates import Candidates, Field, Unusable, joined, shifted
from agent.vision.geometry import Geometry
from tests.support import answering_models
from tests.support import reference_layouts as layouts
from wire import codec, topics
from wire.inspection import Box, Finding

SIDE = 64
SAME = np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)
WIDE = np.full((32, 160, 3), 90, dtype=np.uint8)
MANIFEST = """
schema = 1
name = "m"
release = 1
task = "{task}"
labels = {labels}
max_findings = {max_findings}

[input]
width_px = 64
height_px = 64

[decoder]
name = "{decoder}"
parameters = {{ {parameters} }}

[thresholds]
score = {{ default = 0.5, min = 0.0, max = 1.0 }}
"""


def look(
    tmp_path: Path,
    decoder: str,
    outputs: dict[str, np.ndarray],
    *,
    parameters: str = "",
    task: str = "map",
    labels: str = '["a", "b"]',
    picture: np.ndarray = SAME,
    max_findings: int = 50,
) -> tuple[Finding, ...]:
    manifest = MANIFEST.format(
        task=task, labels=labels, decoder=decoder, parameters=parameters, max_findings=max_findings
    )
    found = answering_models.make(tmp_path / "m", manifest, outputs, width=SIDE, height=SIDE)
    findings = answering_models.opened(found).look(picture).findings
    assert isinstance(findings, tuple), findings
    return findings


def sides(finding: Finding) -> list[float]:
    assert finding.box is not None
    return [finding.box.x1_px, finding.box.y1_px, finding.box.x2_px, finding.box.y2_px]


def mask_of(finding: Finding, picture: np.ndarray) -> np.ndarray:
    """The finding's mask as a picture of booleans."""
    assert finding.mask_rle is not None
    x1, y1, x2, y2 = sides(finding)
    left, top, right, bottom = math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)
    whole = np.zeros(picture.shape[:2], dtype=bool)
    whole[top:bottom, left:right] = layouts.unrolled(finding.mask_rle, right - left, bottom - top)
    assert whole.sum() == finding.area_px
    return whole


@pytest.mark.parametrize("picture", [SAME, WIDE], ids=["same", "stretched"])
def test_instance_masks_equal_the_plain_loop(picture: np.ndarray, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    prototypes = random.normal(0, 1, (1, 5, 16, 16)).astype(np.float32)
    rows = np.zeros((3, 4 + 2 + 5), dtype=np.float32)
    rows[:, :4] = [[20, 20, 30, 25.5], [50, 40, 40, 30], [12, 54, 9, 40]]  # two reach over the edges
    rows[:, 4:6] = [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]
    rows[:, 6:] = random.normal(0, 1, (3, 5))

    findings = look(
        tmp_path,
        "yolov8-seg",
        {"output0": rows.T[np.newaxis].copy(), "output1": prototypes},
        task="segment",
        picture=picture,
    )

    assert [(finding.label, round(finding.score, 3)) for finding in findings] == [("a", 0.9), ("b", 0.8), ("a", 0.7)]
    scale_x, scale_y = picture.shape[1] / SIDE, picture.shape[0] / SIDE
    for finding, row in zip(findings, rows, strict=True):
        x, y, w, h = row[:4].tolist()
        box = [(x - w / 2) * scale_x, (y - h / 2) * scale_y, (x + w / 2) * scale_x, (y + h / 2) * scale_y]
        expected = layouts.seg_mask(row[6:], prototypes[0], box, picture.shape[1::-1], (SIDE, SIDE))
        assert 0 < expected.sum() < w * h * scale_x * scale_y
        assert (mask_of(finding, picture) != expected).sum() <= 1  # a value that is zero but for rounding


def blobs() -> np.ndarray:
    """Of class 1 two parts that touch by a corner (one region) and a dot; of class 2 a ring and an island in it."""
    ids = np.zeros((SIDE, SIDE), dtype=np.float32)
    ids[4:10, 6:20] = 1
    ids[10:14, 20:24] = 1  # touches the first one at a corner
    ids[40:41, 5:6] = 1
    ids[30:50, 30:60] = 2
    ids[34:40, 40:50] = 0  # a hole
    ids[36:38, 44:46] = 2  # an island in it
    return ids


def expected_regions(ids: np.ndarray) -> list[tuple[int, set[tuple[int, int]]]]:
    return [(class_id, region) for class_id in (1, 2) for region in layouts.flooded(ids == class_id)]


FORMS = {
    "class_ids": lambda ids: (ids[np.newaxis], 'values = "class_ids"'),
    "probabilities": lambda ids: (one_hot(ids, 0.8, 0.1), ""),
    "softmax_logits": lambda ids: (one_hot(ids, 4.0, -4.0), 'values = "softmax_logits"'),
    "threshold": lambda ids: (one_hot(ids, 0.9, 0.2), 'rule = "threshold"'),
    "sigmoid_threshold": lambda ids: (one_hot(ids, 3.0, -3.0), 'values = "sigmoid_logits", rule = "threshold"'),
}


def one_hot(ids: np.ndarray, yes: float, no: float) -> np.ndarray:
    return np.stack([np.where(ids == class_id, yes, no) for class_id in range(3)])[np.newaxis].astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_each_connected_region_of_a_class_map_is_a_finding(form: str, tmp_path: Path) -> None:
    ids = blobs()
    output, parameters = FORMS[form](ids)

    findings = look(
        tmp_path,
        "semantic",
        {"y": output},
        labels='["background", "crack", "rust"]',
        parameters=f"{parameters}{', ' if parameters else ''}background = 0",
    )

    expected = expected_regions(ids)
    found = {
        (finding.label, frozenset(zip(*(part.tolist() for part in np.nonzero(mask_of(finding, SAME))), strict=True)))
        for finding in findings
    }
    assert found == {(["crack", "rust"][class_id - 1], frozenset(region)) for class_id, region in expected}
    for finding in findings:
        rows, columns = np.nonzero(mask_of(finding, SAME))
        assert sides(finding) == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_a_coarse_map_gives_smooth_masks_of_nearly_the_right_area(tmp_path: Path) -> None:
    coarse = np.zeros((1, 1, 16, 16), dtype=np.float32)
    coarse[0, 0, 4:10, 3:12] = 1.0  # of a cell of 4 x 4 network pixels: 36 x 24 px at (12, 16)

    (finding,) = look(tmp_path, "semantic", {"y": coarse}, labels='["rust"]', parameters='rule = "threshold"')

    assert sides(finding) == [12, 16, 48, 40]
    assert finding.area_px == pytest.approx(36 * 24, abs=4 * 4)


def test_small_regions_are_left_out_and_the_best_stay(tmp_path: Path) -> None:
    values = np.zeros((1, 1, SIDE, SIDE), dtype=np.float32)
    for index, size in enumerate((2, 3, 5, 8)):
        values[0, 0, 12 * index : 12 * index + size, 4 : 4 + size] = 0.9 - 0.1 * index

    findings = look(
        tmp_path,
        "semantic",
        {"y": values},
        labels='["rust"]',
        parameters='rule = "threshold", min_area_px = 9',
        max_findings=2,
    )

    assert [(finding.area_px, round(finding.score, 2)) for finding in findings] == [(9, 0.8), (25, 0.7)]


@pytest.mark.parametrize(("score", "expected"), [("mean", 0.7), ("max", 0.8)])
def test_a_regions_score_is_the_mean_or_the_greatest(score: str, expected: float, tmp_path: Path) -> None:
    values = np.zeros((1, 1, SIDE, SIDE), dtype=np.float32)
    values[0, 0, 8:10, 8:10] = [[0.6, 0.7], [0.7, 0.8]]

    (finding,) = look(
        tmp_path,
        "semantic",
        {"y": values},
        labels='["rust"]',
        parameters=f'rule = "threshold", region_score = "{score}"',
    )

    assert finding.score == pytest.approx(expected)


def test_outlines_may_be_polygons_or_nothing(tmp_path: Path) -> None:
    values = np.zeros((1, 1, SIDE, SIDE), dtype=np.float32)
    values[0, 0, 8:20, 10:30] = 1.0
    found = {
        outline: look(
            tmp_path / outline,
            "semantic",
            {"y": values},
            labels='["rust"]',
            parameters=f'rule = "threshold", outline = "{outline}"',
        )[0]
        for outline in ("mask", "polygon", "both", "none")
    }

    assert {name: (one.mask_rle is not None, one.polygon_px is not None) for name, one in found.items()} == {
        "mask": (True, False),
        "polygon": (False, True),
        "both": (True, True),
        "none": (False, False),
    }
    assert {one.area_px for one in found.values()} == {240.0}
    assert sorted(found["both"].polygon_px or ()) == [(10.5, 8.5), (10.5, 19.5), (29.5, 8.5), (29.5, 19.5)]


def test_anomalies_are_regions_of_normalized_values(tmp_path: Path) -> None:
    raw = np.full((1, 1, SIDE, SIDE), 2.0, dtype=np.float32)
    raw[0, 0, 5:9, 6:16] = 7.0
    raw[0, 0, 6, 7] = 8.0
    raw[0, 0, 40:44, 40:44] = 5.9  # 0.49 of the way from 1 to 11

    (finding,) = look(
        tmp_path,
        "anomaly",
        {"y": raw},
        task="anomaly",
        labels='["anomaly"]',
        parameters='normalization = "min_max", low = 1.0, high = 11.0',
    )

    assert (finding.label, finding.score) == ("anomaly", pytest.approx(0.7))
    assert sides(finding) == [6, 5, 16, 9]
    assert finding.area_px == 40


@pytest.mark.parametrize(("raw", "share"), [(10.0, 0.5), (13.0, 0.841345), (4.0, 0.0227501)])
def test_a_pictures_own_score_is_the_share_of_good_parts_below_it(raw: float, share: float, tmp_path: Path) -> None:
    (finding,) = look(
        tmp_path,
        "anomaly",
        {"score": np.array([raw], dtype=np.float32)},
        task="anomaly",
        labels='["good", "anomaly"]',
        parameters='picture_score = "score", normalization = "mean_std", mean = 10.0, std = 3.0',
    )

    assert (finding.label, finding.box) == ("anomaly", None)
    assert finding.score == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize(("score", "count"), [(0.8, 2), (0.3, 1)])
def test_map_and_score_together(score: float, count: int, tmp_path: Path) -> None:
    values = np.zeros((1, SIDE, SIDE), dtype=np.float32)
    values[0, 5:9, 6:16] = 0.6

    findings = look(
        tmp_path,
        "anomaly",
        {"score": np.array([score], dtype=np.float32), "map": values},
        task="anomaly",
        labels='["anomaly"]',
        parameters='picture_score = "score", map = "map"',
    )

    assert len(findings) == count
    assert [sides(one) for one in findings[:-1]] == [[0, 0, SIDE, SIDE]] * (count - 1)
    assert findings[-1].area_px == 40


# --- masks where tiles and borders move things


def one_mask() -> Candidates:
    class Masks:
        def at(self, index: int) -> Field | None:
            values = -np.ones((8, 8), dtype=np.float32)
            values[2:4, 1 + index : 6] = 1.0
            return Field(values=values, region_xyxy=(0.0, 0.0, 8.0, 8.0))

    boxes = np.array([[0, 0, 8, 8], [0, 0, 8, 8]], dtype=np.float32)
    return Candidates(
        boxes_xyxy=boxes,
        scores=np.array([0.9, 0.8], dtype=np.float32),
        class_ids=np.array([0, 1], dtype=np.int64),
        masks=Masks(),
    )


def test_masks_move_with_their_tiles() -> None:
    geometry = Geometry(source_width_px=40, source_height_px=40, left_px=0, top_px=0, width_px=40, height_px=40)
    whole = joined([one_mask(), shifted(one_mask(), dx_px=16, dy_px=24)])

    found = building.build(
        whole, np.array([3, 0]), ["a", "b"], geometry, building.FindingOptions(calibration=of_scale(0.5))
    )

    assert [finding.label for finding in found] == ["b", "a"]
    moved = mask_of(found[0], np.zeros((40, 40)))
    assert sorted(zip(*(part.tolist() for part in np.nonzero(moved)), strict=True)) == [
        (row, column) for row in (26, 27) for column in range(18, 22)
    ]
    assert (found[1].area_px, found[1].area_mm2) == (10, 2.5)


def test_masks_stay_within_the_bytes_of_a_record() -> None:
    class Noise:
        def at(self, index: int) -> Field | None:
            checks = np.indices((40, 40)).sum(axis=0) % 2 * 2.0 - 1.0
            return Field(values=checks.astype(np.float32), region_xyxy=(0.0, 0.0, 40.0, 40.0))

    count = 5
    geometry = Geometry(source_width_px=40, source_height_px=40, left_px=0, top_px=0, width_px=40, height_px=40)
    candidates = Candidates(
        boxes_xyxy=np.tile(np.array([[0, 0, 40, 40]], dtype=np.float32), (count, 1)),
        scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        class_ids=np.zeros(count, dtype=np.int64),
        masks=Noise(),
    )

    found = building.build(candidates, np.arange(count), ["a"], geometry, building.FindingOptions())

    runs = [len(finding.mask_rle or ()) for finding in found]
    assert runs == [1561, 0, 0, 0, 0]
    assert [finding.polygon_px is not None for finding in found] == [False, True, True, True, True]
    assert [finding.area_px for finding in found] == [800] * count


def test_the_largest_shapes_fit_a_record_of_eight_views() -> None:
    box = Box(x1_px=1234.5678901, y1_px=1234.5678901, x2_px=1345.6789012, y2_px=1345.6789012)
    plain = Finding(label="missing hole, upper left", score=0.9123456789012345, box=box, area_px=12345.6, area_mm2=12.5)
    shaped = dataclasses.replace(plain, mask_rle=(987,) * building.MAX_SHAPE_COST)

    record = codec.encode(((shaped, *[plain] * 99),) * 8)

    assert len(record) < topics.TABLE["inspections"].max_bytes - 8192


def test_a_polygon_of_noise_is_bounded() -> None:
    random = np.random.default_rng(0)
    angles = np.linspace(0, 2 * math.pi, 720)
    inside = np.zeros((300, 300), dtype=bool)
    for angle, length in zip(angles, 60 + 80 * random.random(720), strict=True):
        for step in range(int(length)):
            inside[150 + int(step * math.sin(angle)), 150 + int(step * math.cos(angle))] = True

    polygon = masks.Mask(pixels=inside, left_px=0, top_px=0).polygon()

    assert polygon is not None
    assert 3 <= len(polygon) <= masks.MAX_CORNERS


def test_an_unusable_map_says_why(tmp_path: Path) -> None:
    manifest = MANIFEST.format(task="map", labels='["a"]', decoder="semantic", parameters="", max_findings=5)
    wrong = np.full((1, 1, 8, 8), 7.0, dtype=np.float32)
    found = answering_models.make(tmp_path / "m", manifest, {"y": wrong}, width=SIDE, height=SIDE)

    findings = answering_models.opened(found).look(SAME).findings

    assert isinstance(findings, Unusable)
    assert "no probabilities" in findings.reason


def test_the_command_line_writes_shapes(tmp_path: Path) -> None:
    values = np.zeros((1, 1, SIDE, SIDE), dtype=np.float32)
    values[0, 0, 8:10, 10:13] = 1.0
    manifest = MANIFEST.format(
        task="map", labels='["rust"]', decoder="semantic", parameters='rule = "threshold"', max_findings=5
    )
    found = answering_models.make(tmp_path / "m", manifest, {"y": values}, width=SIDE, height=SIDE)
    cv2.imwrite(str(tmp_path / "p.png"), SAME)

    ran = subprocess.run(
        [sys.executable, "-m", "agent.cli", "infer", str(found.folder), str(tmp_path / "p.png"), "--jsonl"],
        capture_output=True,
        text=True,
        timeout=60,
    )

    (finding,) = json.loads(ran.stdout)["findings"]
    assert finding == {
        "label": "rust",
        "score": 1.0,
        "box_xyxy_px": [10.0, 8.0, 13.0, 10.0],
        "area_px": 6.0,
        "mask_rle": [0, 6],
    }
