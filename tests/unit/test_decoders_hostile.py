"""Whatever a graph puts out, a decoder answers: candidates that can be used, or Unusable with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.vision import findings, nms
from agent.vision.candidates import Candidates, DecoderParams, OptionValue, Unusable
from agent.vision.decoders import registry
from agent.vision.geometry import Geometry
from wire import codec
from wire.inspection import Finding

SIDE_PX, CLASSES = 64, 3
CELLS = sum((SIDE_PX // stride) ** 2 for stride in (8, 16, 32))


@dataclass(frozen=True)
class Case:
    """A decoder with outputs that it takes."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    options: dict[str, OptionValue]
    classes: int = CLASSES

    def __str__(self) -> str:
        return f"{self.name}-{'-'.join(str(value) for value in self.options.values()) or 'plain'}"


YUNET = tuple((1, (SIDE_PX // stride) ** 2, wide) for wide in (CLASSES, 1, 4) for stride in (8, 16, 32))
NANODET = tuple((1, (SIDE_PX // stride) ** 2, wide) for wide in (CLASSES, 32) for stride in (8, 16, 32))
CASES = [
    Case("anomaly", ((1, 1, 16, 16),), {}),
    Case("anomaly", ((1, 1, 16, 16), (1,)), {"map": 0, "picture_score": 1, "normalization": "min_max"}),
    Case("anomaly", ((1,), (1, 16, 16)), {"map": 1, "picture_score": 0, "normalization": "mean_std"}),
    Case("anomaly", ((1, 1),), {"picture_score": 0, "normalization": "mean_std"}),
    Case("classify", ((1, CLASSES),), {}),
    Case("classify", ((1, CLASSES),), {"scores": "softmax", "top": 2}),
    Case("classify", ((1, CLASSES),), {"scores": "multi_label_logits"}),
    Case("classify", ((1, CLASSES),), {"scores": "multi_label"}),
    Case("classify", ((1, 1),), {"scores": "binary_logit"}, 2),
    Case("classify", ((1,),), {"scores": "binary"}, 2),
    Case("detections", ((1, 9, 4), (1, 9), (1, 9)), {}),
    Case("detections", ((1, 9, 4), (1, 9), (1, 9), (1,)), {"count": 3, "box_order": "yxyx", "box_units": "fraction"}),
    Case("detection-rows", ((1, 9, 6),), {}),
    Case("detection-rows", ((9, 7),), {"columns": "batch_box_class_score"}),
    Case("detr", ((1, 9, CLASSES + 1), (1, 9, 4)), {}),
    Case("detr", ((1, 9, CLASSES), (1, 9, 4)), {"activation": "sigmoid"}),
    Case("fastestdet", ((1, 5 + CLASSES, 4, 4),), {}),
    Case("nanodet", ((1, CELLS, CLASSES + 32),), {"strides": (8, 16, 32)}),
    Case("nanodet", NANODET, {"strides": (8, 16, 32), "classes": (0, 1, 2), "boxes": (3, 4, 5), "middle": 0.5}),
    Case("semantic", ((1, CLASSES, 16, 16),), {}),
    Case("semantic", ((1, CLASSES, 16, 16),), {"values": "softmax_logits", "background": 0}),
    Case("semantic", ((1, CLASSES, 16, 16),), {"values": "sigmoid_logits", "rule": "threshold"}),
    Case("semantic", ((1, 16, 16),), {"values": "class_ids"}),
    Case("ssd", ((1, 9, CLASSES), (1, 9, 4)), {}),
    Case("ssd", ((1, 9, CLASSES), (1, 9, 4)), {"activation": "softmax", "background": -1, "box_order": "yxyx"}),
    Case("yolov5", ((1, 9, 5 + CLASSES),), {}),
    Case("yolov5", ((1, 9, 5 + CLASSES),), {"multi_label": True}),
    Case("yolov8", ((1, 4 + CLASSES, 9),), {}),
    Case("yolov8", ((1, 9, 4 + CLASSES),), {"layout": "rows", "box_units": "fraction", "multi_label": True}),
    Case("yolov8-seg", ((1, 4 + CLASSES + 5, 9), (1, 5, 16, 16)), {}),
    Case("yolox", ((1, CELLS, 5 + CLASSES),), {}),
    Case("yolox", ((1, 9, 5 + CLASSES),), {"boxes": "decoded"}),
    Case("yunet", YUNET, {}),
]
NO_NUMBERS = [np.nan, np.inf, -np.inf]
# Outputs that may have no rows because nothing was found.
MAY_BE_EMPTY = {"detections", "detection-rows"}
# A picture of 200 x 90 pixels in the middle of the network's input, between borders.
WHERE = Geometry(source_width_px=200, source_height_px=90, left_px=0, top_px=17, width_px=64, height_px=29)
QUIET = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def params(case: Case, threshold: float = 0.25) -> DecoderParams:
    return DecoderParams(
        width_px=SIDE_PX,
        height_px=SIDE_PX,
        class_count=case.classes,
        score_threshold=threshold,
        options=case.options,
        output_names=tuple(f"out{index}" for index in range(len(case.shapes))),
    )


def good(case: Case) -> list[np.ndarray]:
    """Numbers from 0 to 1 are probabilities, boxes and logits alike; as class ids they are whole."""
    random = np.random.default_rng(3)
    outputs = [random.random(shape, dtype=np.float32) for shape in case.shapes]
    if case.name == "detections":
        outputs[1] = np.floor(outputs[1] * case.classes)
        outputs[3:] = [np.full(1, 9, dtype=np.float32)] * len(outputs[3:])
    if case.name == "detection-rows":
        outputs[0][..., 5] = np.floor(outputs[0][..., 5] * case.classes)
    if case.options.get("values") == "class_ids":
        outputs[0] = np.floor(outputs[0] * case.classes)
    return outputs


def decode(case: Case, outputs: list[Any], threshold: float = 0.25) -> Candidates | Unusable:
    with np.errstate(all="raise"):
        return registry.get(case.name).decode(outputs, params(case, threshold))


def check(answer: Candidates | Unusable, case: Case) -> None:
    if isinstance(answer, Unusable):
        assert answer.reason.strip()
        return
    count = len(answer.scores)
    assert answer.scores.dtype == np.float32
    assert answer.class_ids.dtype == np.int64
    assert ((answer.scores >= 0) & (answer.scores <= 1)).all()
    assert ((answer.class_ids >= 0) & (answer.class_ids < case.classes)).all()
    assert len(answer.class_ids) == count
    if answer.boxes_xyxy is not None:
        assert answer.boxes_xyxy.shape == (count, 4)
        assert answer.boxes_xyxy.dtype == np.float32
        assert np.isfinite(answer.boxes_xyxy).all()
    for index in range(count if answer.masks is not None else 0):
        assert answer.masks is not None
        field = answer.masks.at(index)
        assert field is None or (field.values.ndim == 2 and field.values.dtype == np.float32)
    kept = nms.suppress(answer, iou_threshold=0.5, class_agnostic=False)
    found = findings.build(answer, kept, ["a", "b", "c"], WHERE, findings.FindingOptions(outline="both"))
    assert codec.decode(codec.encode(found), tuple[Finding, ...]) == found


def test_every_decoder_is_tried() -> None:
    assert {case.name for case in CASES} == set(registry.DECODERS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_it_is_made_for_is_read(case: Case) -> None:
    answer = decode(case, good(case))

    assert isinstance(answer, Candidates), answer
    assert len(answer.scores)
    check(answer, case)


@pytest.mark.parametrize("case", CASES, ids=str)
@QUIET
@given(data=st.data())
def test_one_value_that_is_no_number_makes_the_whole_output_unusable(case: Case, data: st.DataObject) -> None:
    outputs = good(case)
    which = data.draw(st.integers(0, len(outputs) - 1))
    place = data.draw(st.integers(0, outputs[which].size - 1))
    outputs[which].ravel()[place] = data.draw(st.sampled_from(NO_NUMBERS))

    answer = decode(case, outputs)

    assert isinstance(answer, Unusable)
    assert "no numbers" in answer.reason


@pytest.mark.parametrize("case", CASES, ids=str)
@QUIET
@given(data=st.data())
def test_another_shape_is_unusable(case: Case, data: st.DataObject) -> None:
    outputs = good(case)
    which = data.draw(st.integers(0, len(outputs) - 1))
    shape = list(outputs[which].shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    change = data.draw(st.sampled_from(["longer", "empty", "more_axes", "scalar"]))
    if change == "longer":
        shape[axis] += 1
    elif change == "empty":
        shape[axis] = 0
    elif change == "more_axes":
        shape = [2, *shape]
    outputs[which] = np.full([] if change == "scalar" else shape, 0.5, dtype=np.float32)

    answer = decode(case, outputs)

    check(answer, case)
    if change == "empty" and case.name not in MAY_BE_EMPTY:
        assert isinstance(answer, Unusable)
    if change == "more_axes":
        assert isinstance(answer, Unusable)


@pytest.mark.parametrize("case", CASES, ids=str)
@QUIET
@given(data=st.data())
def test_any_numbers_at_all_get_an_answer(case: Case, data: st.DataObject) -> None:
    values = st.one_of(
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-30, 88.8, 1e30, -3.4e38, 3.4e38]),
    )
    few = np.array(data.draw(st.lists(values, min_size=1, max_size=12)), dtype=np.float32)
    seed = data.draw(st.integers(0, 2**32 - 1))
    outputs = [np.random.default_rng(seed).choice(few, shape) for shape in case.shapes]

    check(decode(case, outputs, data.draw(st.sampled_from([0.0, 0.25, 1.0]))), case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_that_are_missing_or_of_another_kind_are_unusable(case: Case) -> None:
    outputs = good(case)

    assert isinstance(decode(case, []), Unusable)
    assert isinstance(decode(case, [np.full(one.shape, "text", dtype=object) for one in outputs]), Unusable)
    assert isinstance(decode(case, [np.zeros(one.shape, dtype=bool) for one in outputs]), Unusable)
    assert isinstance(decode(case, [np.zeros(one.shape, dtype=np.complex64) for one in outputs]), Unusable)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_other_widths_of_numbers_are_read_too(case: Case, kind: Any) -> None:
    answer = decode(case, [one.astype(kind) for one in good(case)])

    assert isinstance(answer, Candidates), answer
    check(answer, case)


def test_an_output_is_found_by_its_name_or_by_its_place() -> None:
    scores, boxes = np.full((1, 2, 2), 0.6, np.float32), np.full((1, 2, 4), 0.3, np.float32)
    by_name = DecoderParams(
        width_px=10,
        height_px=10,
        class_count=2,
        options={"scores": "confidences", "boxes": 0, "background": -1},
        output_names=("wrong", "confidences"),
    )
    nobody = DecoderParams(
        width_px=10, height_px=10, class_count=2, options={"scores": "konfidences"}, output_names=("a", "confidences")
    )

    found = registry.get("ssd").decode([boxes, scores], by_name)
    lost = registry.get("ssd").decode([boxes, scores], nobody)

    assert isinstance(found, Candidates)
    assert found.scores.tolist() == pytest.approx([0.6, 0.6])
    assert isinstance(lost, Unusable)
    assert "'konfidences'" in lost.reason
    assert "confidences" in lost.reason
