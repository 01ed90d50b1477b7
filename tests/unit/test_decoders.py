"""Decoders on outputs with a known answer, and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Unusable
from agent.vision.decoders import classify, fastestdet, registry
from wire.errors import LinesideError
from wire.manifest import DecoderSpec


def params(classes: int, threshold: float = 0.0, **options: str) -> DecoderParams:
    return DecoderParams(
        width_px=352, height_px=176, class_count=classes, score_threshold=threshold, options=dict(options)
    )


def fastestdet_by_loop(output: NDArray[np.float32], threshold: float) -> list[tuple[int, float, list[float]]]:
    """The layout as its project reads it, cell by cell, in double precision."""
    found = []
    _, channels, rows, columns = output.shape
    for row in range(rows):
        for column in range(columns):
            cell = [float(output[0, channel, row, column]) for channel in range(channels)]
            class_id = max(range(channels - 5), key=lambda index: cell[5 + index])
            score = cell[0] ** 0.6 * cell[5 + class_id] ** 0.4
            if score < threshold:
                continue
            x, y = (math.tanh(cell[1]) + column) / columns, (math.tanh(cell[2]) + row) / rows
            w, h = 1 / (1 + math.exp(-cell[3])), 1 / (1 + math.exp(-cell[4]))
            sides = [(x - w / 2) * 352, (y - h / 2) * 176, (x + w / 2) * 352, (y + h / 2) * 176]
            found.append((class_id, score, sides))
    return found


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 0.95])
def test_fastestdet_equals_the_plain_loop(threshold: float) -> None:
    random = np.random.default_rng(7)
    output = random.random((1, 9, 11, 22), dtype=np.float32)
    output[:, 1:5] = random.normal(0, 3, (1, 4, 11, 22))

    candidates = fastestdet.decode([output], params(4, threshold))

    expected = fastestdet_by_loop(output, threshold)
    assert isinstance(candidates, Candidates)
    assert candidates.boxes_xyxy is not None
    assert candidates.class_ids.tolist() == [class_id for class_id, _, _ in expected]
    assert np.allclose(candidates.scores, [score for _, score, _ in expected], atol=1e-6)
    assert np.allclose(candidates.boxes_xyxy, np.array([box for _, _, box in expected]).reshape(-1, 4), atol=1e-3)
    assert candidates.boxes_xyxy.dtype == candidates.scores.dtype == np.float32


def test_fastestdet_finds_the_one_thing_that_is_there() -> None:
    output = np.zeros((1, 8, 22, 22), dtype=np.float32)
    output[0, 0, 10, 4] = 1.0
    output[0, 7, 10, 4] = 0.5
    output[0, 3:5, 10, 4] = -math.log(3.0)  # sigmoid = 1/4

    candidates = fastestdet.decode([output], params(3, 0.5))

    assert isinstance(candidates, Candidates)
    assert candidates.boxes_xyxy is not None
    assert candidates.class_ids.tolist() == [2]
    assert candidates.scores.tolist() == pytest.approx([0.5**0.4])
    assert candidates.boxes_xyxy[0].tolist() == pytest.approx([64 - 44, 80 - 22, 64 + 44, 80 + 22])


def test_an_empty_grid_has_no_candidates() -> None:
    candidates = fastestdet.decode([np.zeros((1, 8, 22, 22), dtype=np.float32)], params(3, 0.5))

    assert isinstance(candidates, Candidates)
    assert len(candidates.scores) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.0, -1.0])
def test_fastestdet_refuses_an_objectness_that_is_none(bad: float) -> None:
    output = np.zeros((1, 8, 4, 4), dtype=np.float32)
    output[0, 0, 2, 2] = bad

    assert isinstance(fastestdet.decode([output], params(3, 0.5)), Unusable)


@pytest.mark.parametrize("shape", [(1, 9, 4, 4), (2, 8, 4, 4), (1, 8, 16), (8,)])
def test_fastestdet_refuses_another_layout(shape: tuple[int, ...]) -> None:
    assert isinstance(fastestdet.decode([np.zeros(shape, dtype=np.float32)], params(3)), Unusable)


def test_logits_become_the_probability_of_the_best_label() -> None:
    logits = np.array([[1.0, 3.0, 2.0]], dtype=np.float32)

    candidates = classify.decode([logits], params(3, scores="logits"))

    powers = [math.exp(value) for value in (1.0, 3.0, 2.0)]
    assert isinstance(candidates, Candidates)
    assert candidates.boxes_xyxy is None
    assert candidates.class_ids.tolist() == [1]
    assert candidates.scores.tolist() == pytest.approx([powers[1] / sum(powers)])


def test_huge_logits_do_not_overflow() -> None:
    candidates = classify.decode([np.array([1e30, -1e30], dtype=np.float32)], params(2))

    assert isinstance(candidates, Candidates)
    assert candidates.scores.tolist() == [1.0]


def test_probabilities_are_taken_as_they_are() -> None:
    candidates = classify.decode([np.array([[0.25, 0.75]], dtype=np.float32)], params(2, scores="softmax"))

    assert isinstance(candidates, Candidates)
    assert (candidates.class_ids.tolist(), candidates.scores.tolist()) == ([1], [0.75])


@pytest.mark.parametrize(
    ("values", "scores"),
    [
        ([np.nan, 0], "logits"),
        ([np.inf, 0], "logits"),
        ([1.5, 0], "softmax"),
        ([0.5, -0.5], "softmax"),
        ([1], "logits"),
    ],
)
def test_what_is_no_classification_is_unusable(values: list[float], scores: str) -> None:
    output = np.array([values], dtype=np.float32)

    assert isinstance(classify.decode([output], params(2, scores=scores)), Unusable)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("yolo99", {}),
        ("classify", {"scores": "softmaxx"}),
        ("classify", {"class_agnostic_nms": True}),
        ("fastestdet", {"class_agnostic_nms": "yes"}),
        ("fastestdet", {"scores": "logits"}),
    ],
)
def test_an_unknown_decoder_or_parameter_is_refused(name: str, parameters: dict[str, str | bool]) -> None:
    with pytest.raises(LinesideError) as refused:
        registry.find(DecoderSpec(name=name, parameters={**parameters}))

    assert refused.value.code == "model.manifest_invalid"
    assert refused.value.next_step
