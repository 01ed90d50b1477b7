"""Layouts no shared model has, through the whole pipeline: graphs with known outputs, findings as computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from agent.vision.candidates import Unusable
from tests.support import answering_models
from tests.support import reference_decoders as plain
from tests.support import reference_layouts as layouts
from wire.errors import LinesideError
from wire.inspection import Finding

SIDE = 64
PICTURE = np.full((32, 128, 3), 90, dtype=np.uint8)  # stretched: twice as wide, half as high as the network sees it
MANIFEST = """
schema = 1
name = "m"
release = 1
task = "{task}"
labels = {labels}
{top}

[input]
width_px = 64
height_px = 64

[decoder]
name = "{decoder}"
parameters = {{ {parameters} }}

[thresholds]
score = {{ default = {score}, min = 0.0, max = 1.0 }}
{more}
"""


def look(
    tmp_path: Path,
    decoder: str,
    outputs: dict[str, np.ndarray],
    *,
    parameters: str = "",
    labels: str = '["a", "b"]',
    task: str = "detect",
    score: float = 0.5,
    top: str = "",
    more: str = "",
    picture: np.ndarray = PICTURE,
) -> tuple[Finding, ...] | Unusable:
    manifest = MANIFEST.format(
        task=task, labels=labels, decoder=decoder, parameters=parameters, score=score, top=top, more=more
    )
    found = answering_models.make(tmp_path / "m", manifest, outputs, width=SIDE, height=SIDE)
    return answering_models.opened(found).look(picture).findings


def plainly(findings: tuple[Finding, ...] | Unusable) -> list[tuple[str, float, list[float]]]:
    assert isinstance(findings, tuple), findings
    return [
        (
            finding.label,
            round(finding.score, 5),
            [finding.box.x1_px, finding.box.y1_px, finding.box.x2_px, finding.box.y2_px],
        )
        for finding in findings
        if finding.box is not None
    ]


def agree(findings: tuple[Finding, ...] | Unusable, expected: plain.Boxes, labels: str = "ab") -> None:
    """Compare with boxes in network pixels, in any order of equal scores."""
    ours = plainly(findings)
    theirs = sorted(expected, key=lambda box: -box[1])
    assert len(ours) == len(theirs) > 0
    for (label, score, box), (class_id, wanted, place) in zip(ours, theirs, strict=True):
        assert label == labels[class_id]
        assert score == pytest.approx(wanted, abs=1e-5)
        assert box == pytest.approx(plain.in_source(place, (0.5, 2.0, 0.0, 0.0), PICTURE), abs=2e-3)


def spread(count: int, wide: int, seed: int = 5) -> np.ndarray:
    """Rows whose first four are boxes that do not overlap and whose others lie between 0 and 1."""
    rows = np.random.default_rng(seed).random((count, wide), dtype=np.float32)
    rows[:, 0] = 4 + 8 * (np.arange(count) % 8)
    rows[:, 1] = 4 + 8 * (np.arange(count) // 8)
    rows[:, 2:4] = 2 + 5 * rows[:, 2:4]
    return rows


@pytest.mark.parametrize("every", [False, True])
def test_yolov5_rows(every: bool, tmp_path: Path) -> None:
    rows = spread(60, 7)

    findings = look(
        tmp_path, "yolov5", {"y": rows[np.newaxis]}, score=0.3, parameters=f"multi_label = {str(every).lower()}"
    )

    agree(findings, (layouts.every_label if every else layouts.yolov5)(rows, 0.3))


def test_yolov5_rows_as_fractions(tmp_path: Path) -> None:
    rows = spread(60, 7)
    fractions = rows.copy()
    fractions[:, :4] /= SIDE

    findings = look(tmp_path, "yolov5", {"y": fractions[np.newaxis]}, score=0.3, parameters='box_units = "fraction"')

    agree(findings, layouts.yolov5(rows, 0.3))


def test_yolov8_as_rows(tmp_path: Path) -> None:
    rows = spread(60, 6)

    findings = look(tmp_path, "yolov8", {"y": rows[np.newaxis]}, score=0.6, parameters='layout = "rows"')

    agree(findings, plain.yolov8([rows.T[np.newaxis]], 0.6, SIDE, SIDE))


def test_yolox_decoded(tmp_path: Path) -> None:
    rows = spread(60, 7)

    findings = look(tmp_path, "yolox", {"y": rows[np.newaxis]}, score=0.3, parameters='boxes = "decoded"')

    agree(findings, layouts.yolov5(rows, 0.3))


ONE = (8.0, 16.0, 24.0, 48.0)  # x1 y1 x2 y2 in network pixels; 16 8 48 24 in the picture
ORDERS = {"xyxy": (8, 16, 24, 48), "yxyx": (16, 8, 48, 24), "cxcywh": (16, 32, 16, 32), "xywh": (8, 16, 16, 32)}


@pytest.mark.parametrize("units", ["fraction", "pixels"])
@pytest.mark.parametrize("order", ORDERS)
def test_ssd_boxes_in_every_order_and_unit(order: str, units: str, tmp_path: Path) -> None:
    box = np.array(ORDERS[order], dtype=np.float32) / (SIDE if units == "fraction" else 1)
    boxes = np.stack([box, box + 0.01])[np.newaxis].astype(np.float32)
    scores = np.array([[[0.1, 0.2, 0.7], [0.9, 0.05, 0.05]]], dtype=np.float32)  # the second is background

    findings = look(
        tmp_path,
        "ssd",
        {"boxes": boxes, "scores": scores},
        labels='["nothing", "a", "b"]',
        parameters=f'scores = "scores", boxes = "boxes", box_order = "{order}", box_units = "{units}"',
    )

    assert plainly(findings) == [("b", 0.7, pytest.approx([16, 8, 48, 24], abs=1e-3))]


def test_ssd_logits_with_the_background_last(tmp_path: Path) -> None:
    logits = np.array([[[0.0, 3.0, 1.0], [1.0, 0.0, 5.0]]], dtype=np.float32)
    boxes = np.array([[ONE, ONE]], dtype=np.float32) / SIDE

    findings = look(
        tmp_path,
        "ssd",
        {"s": logits, "b": boxes},
        labels='["a", "b", "nothing"]',
        parameters='activation = "softmax", background = 2',
    )

    share = plain.softmax([0.0, 3.0, 1.0])[1]
    assert plainly(findings) == [("b", round(share, 5), pytest.approx([16, 8, 48, 24]))]


def test_boxes_labels_and_scores_with_a_count(tmp_path: Path) -> None:
    """TensorFlow's order: boxes yxyx as fractions, labels from 1, rows beyond the count are left-overs."""
    outputs = {
        "num_detections": np.array([2], dtype=np.float32),
        "detection_boxes": np.array([[ORDERS["yxyx"], [0, 0, 32, 32], [0, 0, 64, 64]]], dtype=np.float32) / SIDE,
        "detection_classes": np.array([[2, 1, 1]], dtype=np.int64),
        "detection_scores": np.array([[0.75, 0.4, 0.99]], dtype=np.float32),
    }
    parameters = (
        'boxes = "detection_boxes", labels = "detection_classes", scores = "detection_scores", '
        'count = "num_detections", first_label = 1, box_order = "yxyx", box_units = "fraction"'
    )

    findings = look(tmp_path, "detections", outputs, parameters=parameters)

    assert plainly(findings) == [("b", 0.75, pytest.approx([16, 8, 48, 24]))]


def test_a_graph_that_found_nothing_is_no_fault(tmp_path: Path) -> None:
    assert look(tmp_path, "detection-rows", {"y": np.zeros((1, 0, 6), dtype=np.float32)}) == ()


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ("box_score_class", (*ONE, 0.8, 1)),
        ("box_class_score", (*ONE, 1, 0.8)),
        ("batch_box_class_score", (0, *ONE, 1, 0.8)),
    ],
)
def test_rows_of_what_was_found(columns: str, row: tuple[float, ...], tmp_path: Path) -> None:
    empty = [0.0] * len(row)
    near = [value + 0.5 if value == 8 else value for value in row]  # nearly the same box: named once already, both stay

    findings = look(
        tmp_path,
        "detection-rows",
        {"y": np.array([[row, near, empty]], dtype=np.float32)},
        parameters=f'columns = "{columns}"',
    )

    assert [(label, score) for label, score, _ in plainly(findings)] == [("b", 0.8), ("b", 0.8)]
    assert plainly(findings)[0][2] == pytest.approx([16, 8, 48, 24])


def test_overlaps_of_end_to_end_graphs_are_merged_where_the_manifest_says_so(tmp_path: Path) -> None:
    rows = np.array([[(*ONE, 0.8, 1), (*ONE, 0.7, 1)]], dtype=np.float32)

    findings = look(tmp_path, "detection-rows", {"y": rows}, more="nms-iou = { default = 0.5, min = 0.1, max = 0.9 }")

    assert [score for _, score, _ in plainly(findings)] == [0.8]


def test_a_label_beyond_the_list_is_unusable(tmp_path: Path) -> None:
    findings = look(tmp_path, "detection-rows", {"y": np.array([[(*ONE, 0.8, 2)]], dtype=np.float32)})

    assert isinstance(findings, Unusable)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_detr_queries(activation: str, tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    logits = random.normal(0, 3, (30, 3 if activation == "softmax" else 2)).astype(np.float32)
    boxes = (0.2 + 0.6 * random.random((30, 4))).astype(np.float32)

    findings = look(
        tmp_path,
        "detr",
        {"logits": logits[np.newaxis], "boxes": boxes[np.newaxis]},
        parameters=f'activation = "{activation}"',
    )

    expected = {"softmax": layouts.detr_softmax, "sigmoid": layouts.detr_sigmoid}[activation]
    agree(findings, expected(logits, boxes, 0.5, SIDE, SIDE))


@pytest.mark.parametrize("apart", [False, True])
def test_nanodet(apart: bool, tmp_path: Path) -> None:
    strides, bins = (8, 16, 32, 64), 8
    sizes = [(SIDE // stride) ** 2 for stride in strides]
    random = np.random.default_rng(2)
    rows = random.normal(0, 2, (sum(sizes), 2 + 4 * bins)).astype(np.float32)
    rows[:, :2] = random.random((sum(sizes), 2))
    outputs, parameters = {"y": rows[np.newaxis]}, ""
    if apart:
        parts = np.split(rows, np.cumsum(sizes)[:-1])
        maps = [part[:, :2].T.reshape(1, 2, SIDE // stride, -1) for part, stride in zip(parts, strides, strict=True)]
        outputs = {f"cls{index}": np.ascontiguousarray(part) for index, part in enumerate(maps)}
        outputs |= {f"box{index}": part[np.newaxis, :, 2:].copy() for index, part in enumerate(parts)}
        parameters = "classes = [0, 1, 2, 3], boxes = ['box0', 'box1', 'box2', 'box3'], middle = 0.5"

    findings = look(tmp_path, "nanodet", outputs, score=0.8, parameters=parameters)

    everything = layouts.nanodet(rows, 2, bins, strides, 0.5 if apart else 0.0, 0.8, SIDE)
    agree(findings, plain.suppressed(everything, 0.45, class_agnostic=False))


def test_labels_have_thresholds_of_their_own(tmp_path: Path) -> None:
    rows = np.array([[(*ONE, 0.3, 0), (*ONE, 0.45, 1), (0, 0, 8, 8, 0.6, 1)]], dtype=np.float32)

    findings = look(
        tmp_path,
        "detection-rows",
        {"y": rows},
        top='label_scores = { a = "a-score" }',
        more="a-score = { default = 0.2, min = 0.0, max = 1.0 }",
    )

    assert [(label, score) for label, score, _ in plainly(findings)] == [("b", 0.6), ("a", 0.3)]


@pytest.mark.parametrize(("agnostic", "kept"), [(True, [0.9]), (False, [0.9, 0.8])])
def test_boxes_of_several_labels_are_merged_if_the_manifest_says_so(
    agnostic: bool, kept: list[float], tmp_path: Path
) -> None:
    rows = np.array([[16, 32, 16, 32, 1, 0.9, 0], [16, 32, 16, 30, 1, 0, 0.8]], dtype=np.float32)

    findings = look(
        tmp_path, "yolov5", {"y": rows[np.newaxis]}, parameters=f"class_agnostic_nms = {str(agnostic).lower()}"
    )

    assert [score for _, score, _ in plainly(findings)] == kept


CLASSIFIERS = [
    ("logits", [1.0, 3.0], [("b", 1 / (1 + math.exp(-2)))]),
    ("softmax", [0.75, 0.25], [("a", 0.75)]),
    ("multi_label_logits", [2.0, 3.0], [("b", 1 / (1 + math.exp(-3))), ("a", 1 / (1 + math.exp(-2)))]),
    ("multi_label", [0.4, 0.7], [("b", 0.7)]),
    ("multi_label", [0.4, 0.3], []),
    ("binary_logit", [2.0], [("b", 1 / (1 + math.exp(-2)))]),
    ("binary", [0.25], [("a", 0.75)]),
]


@pytest.mark.parametrize(("scores", "values", "expected"), CLASSIFIERS)
def test_classifiers_of_every_kind(
    scores: str, values: list[float], expected: list[tuple[str, float]], tmp_path: Path
) -> None:
    output = np.array([values], dtype=np.float32)

    findings = look(tmp_path, "classify", {"y": output}, task="classify", parameters=f'scores = "{scores}"')

    assert isinstance(findings, tuple)
    assert [(finding.label, finding.score, finding.box) for finding in findings] == [
        (label, pytest.approx(score), None) for label, score in expected
    ]


def test_the_next_best_labels_are_found_too_where_asked_for(tmp_path: Path) -> None:
    output = np.array([[0.1, 0.6, 0.3]], dtype=np.float32)

    findings = look(
        tmp_path,
        "classify",
        {"y": output},
        task="classify",
        labels='["a", "b", "c"]',
        parameters='scores = "softmax", top = 2',
    )

    assert isinstance(findings, tuple)
    assert [finding.label for finding in findings] == ["b", "c"]


@pytest.mark.parametrize(
    "parameters",
    [
        'boxes = "cooked"',
        "strides = [8, 16.5]",
        "strides = []",
        "strides = 8",
        'output = ""',
        "output = -1",
        "multi_label = 1",
        "stride = [8]",
    ],
)
def test_parameters_that_are_none_are_refused_with_what_is_allowed(parameters: str, tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as refused:
        look(tmp_path, "yolox", {"y": np.zeros((1, 84, 7), dtype=np.float32)}, parameters=parameters)

    assert refused.value.code == "model.manifest_invalid"
    assert refused.value.next_step
