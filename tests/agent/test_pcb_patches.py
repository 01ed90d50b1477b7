"""The shared PCB patch classifiers, through the product's pipeline, on boards of DeepPCB's official test part.

A bounded part of what scripts/measure_pcb.py measures on all 100 boards (docs/explanation/patch-classifiers.md); the
figures here must lie within the stated tolerance of those.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from agent.vision import runtime
from agent.vision.pipeline import Pipeline
from tests.support import pcb, shared_packages
from wire.manifest import parameters_of

# On 30 boards with some 370 patches one standard error is 1.2 to 1.5 points; three of them are allowed.
BOARDS = 30
TOLERANCE = 0.045
MEASURED = {"pcb-cnn": 0.919, "pcb-cnn-int8": 0.920, "pcb-mobilenet-int8": 0.947}


def pipeline_of(name: str, shared_data: Path, into: Path) -> Pipeline:
    found = shared_packages.read(name, shared_data, into)
    parameters = parameters_of(found.manifest, {})[0]
    return Pipeline(runtime.load(found, runtime.RuntimeOptions()), found, parameters)


@pytest.fixture(scope="module")
def some_boards(shared_data: Path) -> list[pcb.Board]:
    return pcb.boards(shared_data, BOARDS)


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_patches_are_told_apart_as_well_as_was_measured_on_all_boards(
    name: str, some_boards: list[pcb.Board], shared_data: Path, tmp_path: Path
) -> None:
    pipeline = pipeline_of(name, shared_data, tmp_path)
    patches = pcb.patches(some_boards)
    seen = []
    for patch in patches:
        findings = pipeline.look(patch.image_bgr).findings
        assert isinstance(findings, tuple)
        seen.append(findings[0].label)

    accuracy = pcb.count(patches, lambda index: seen[index] == patches[index].label, lambda _: True)
    recall = pcb.count(patches, lambda index: seen[index] != "normal", lambda patch: patch.label != "normal")
    alarms = pcb.count(patches, lambda index: seen[index] != "normal", lambda patch: patch.label == "normal")

    assert accuracy["total"] > 300
    assert abs(accuracy["share"] - MEASURED[name]) <= TOLERANCE, accuracy
    assert recall["share"] > 0.94, recall
    assert alarms["share"] < 0.09, alarms


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_scores_are_those_of_a_plain_run(
    name: str, some_boards: list[pcb.Board], shared_data: Path, tmp_path: Path
) -> None:
    """The same patch by hand: (grey / 255 - .5) / .5, the runtime, a softmax; nothing of the product's."""
    pipeline = pipeline_of(name, shared_data, tmp_path)
    plain = onnxruntime.InferenceSession(str(tmp_path / name / "model.onnx"), providers=["CPUExecutionProvider"])
    channels = plain.get_inputs()[0].shape[1]

    for patch in pcb.patches(some_boards[:4]):
        findings = pipeline.look(patch.image_bgr).findings
        label, score = by_hand(plain, patch.image_bgr, channels)

        assert isinstance(findings, tuple)
        assert findings[0].label == label
        assert findings[0].score == pytest.approx(score, abs=2e-3)


def by_hand(plain: onnxruntime.InferenceSession, image: NDArray[np.uint8], channels: int) -> tuple[str, float]:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float64)
    tensor = np.stack([(grey / 255 - 0.5) / 0.5] * channels)[np.newaxis].astype(np.float32)
    logits = np.asarray(plain.run(None, {"input": tensor})[0])[0].astype(np.float64)
    powers = np.exp(logits - logits.max())
    best = int(powers.argmax())
    return pcb.LABELS[best], float(powers[best] / powers.sum())


def test_a_whole_board_is_judged_by_its_361_tiles(
    some_boards: list[pcb.Board], shared_data: Path, tmp_path: Path
) -> None:
    """Each finding encloses tiles the classifier calls defective, and nearly every defect is found on the way."""
    pipeline = pipeline_of("pcb-board", shared_data, tmp_path)
    single = pipeline_of("pcb-mobilenet-int8", shared_data, tmp_path)
    found = total = 0
    for board in some_boards[::5]:
        findings = pipeline.look(board.image_bgr).findings
        assert isinstance(findings, tuple)
        boxes = [(f.box.x1_px, f.box.y1_px, f.box.x2_px, f.box.y2_px) for f in findings if f.box is not None]
        assert len(boxes) == len(findings)
        assert all(side % 32 == 0 for box in boxes for side in box)
        found += sum(any(pcb.hits(box, defect) for box in boxes) for defect, _ in board.defects)
        total += len(board.defects)
    assert total > 25
    assert found / total > 0.93

    board = some_boards[0]
    findings = pipeline.look(board.image_bgr).findings
    assert isinstance(findings, tuple)
    labels = {}
    for top in range(0, 577, 64):
        for left in range(0, 577, 64):
            look = single.look(np.ascontiguousarray(board.image_bgr[top : top + 64, left : left + 64]))
            assert isinstance(look.findings, tuple)
            if look.findings[0].label != "normal" and look.findings[0].score >= 0.51:
                labels[left, top] = look.findings[0].label
    assert labels
    for (left, top), label in labels.items():
        assert any(
            finding.label == label
            and finding.box is not None
            and finding.box.x1_px <= left < left + 64 <= finding.box.x2_px
            and finding.box.y1_px <= top < top + 64 <= finding.box.y2_px
            for finding in findings
        )


def test_comparing_with_the_twin_finds_most_defects_and_much_else(some_boards: list[pcb.Board]) -> None:
    recall, precision = [], []
    for board in some_boards:
        boxes = pcb.template_difference(board)
        recall += [any(pcb.hits(box, defect) for box in boxes) for defect, _ in board.defects]
        precision += [any(pcb.hits(box, defect) for defect, _ in board.defects) for box in boxes]

    assert sum(recall) / len(recall) == pytest.approx(0.96, abs=0.05)
    assert sum(precision) / len(precision) == pytest.approx(0.56, abs=0.2)


def test_the_intervals_are_those_of_the_textbook() -> None:
    low, high = pcb.wilson(81, 263)  # Newcombe (1998), Statistics in Medicine 17, table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)

    # Boards that are all alike say what one board says; boards that differ wholly leave much open.
    assert pcb.by_board({str(n): (9, 10) for n in range(50)}) == (0.9, 0.9)
    low, high = pcb.by_board({str(n): (10 * (n % 2), 10) for n in range(20)})
    assert low < 0.35 < 0.65 < high
