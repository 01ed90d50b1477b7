"""Drafted manifests: what is read, what is guessed and why, and that hostile metadata stays text."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest

from agent.vision import draft, draft_toml
from agent.vision.draft import Draft, Origin
from agent.vision.onnx_walk import OnnxFacts, TensorInfo
from wire.manifest import Manifest, problems_of

ULTRALYTICS = {
    "author": "Ultralytics",
    "stride": "32",
    "task": "detect",
    "imgsz": "[640, 640]",
    "names": "{0: 'a', 1: 'b'}",
}


def tensor(name: str, *shape: int | str | None, element: str = "float32") -> TensorInfo:
    return TensorInfo(name=name, element=element, shape=shape)


def facts(
    *outputs: TensorInfo,
    picture: TensorInfo | None = None,
    others: tuple[TensorInfo, ...] = (),
    makers: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    operators: frozenset[str] = frozenset(),
    producer: str = "pytorch",
) -> OnnxFacts:
    return OnnxFacts(
        file_bytes=1,
        ir_version=8,
        producer=producer,
        opsets={"": 17},
        node_count=1,
        foreign_operators=(),
        external_tensors=(),
        inputs=(picture or tensor("images", 1, 3, 640, 640), *others),
        outputs=outputs,
        metadata=metadata or {},
        makers={name: (operator, "") for name, operator in (makers or {}).items()},
        operators=operators,
    )


def drafted(found: OnnxFacts, labels: list[str] | None = None) -> Draft:
    made = draft.draft(found, "Best Model (3)", labels)
    text = draft_toml.text(made)
    if not made.of(Origin.FILL_IN):
        manifest = msgspec.convert(tomllib.loads(text), Manifest)
        assert problems_of(manifest) == []
        assert manifest.name == "best-model-3"
    else:
        tomllib.loads(text)
    assert text.count("# GUESS: ") == len(made.of(Origin.GUESS))
    assert text.count("# FILL IN: ") == len(made.of(Origin.FILL_IN))
    assert all(line.why for line in made.lines if line.origin is not Origin.READ)
    return made


@pytest.mark.parametrize(
    ("outputs", "more", "decoder", "parameters", "count"),
    [
        ([tensor("o", 1, 84, 8400)], {}, "yolov8", {}, 80),
        ([tensor("o", 1, 5, 8400)], {}, "yolov8", {}, 1),
        ([tensor("o", 1, 25200, 85)], {}, "yolov5", {}, 80),
        ([tensor("o", 1, 8400, 85)], {}, "yolox", {"boxes": "raw", "strides": [8, 16, 32]}, 80),
        ([tensor("o", 1, 8400, 85)], {"operators": frozenset({"Exp"})}, "yolox", {"boxes": "decoded"}, 80),
        ([tensor("o", 1, 8500, 112)], {}, "nanodet", {"strides": [8, 16, 32, 64]}, 80),
        ([tensor("o", 1, 300, 6)], {}, "detection-rows", {"columns": "box_score_class"}, None),
        (
            [tensor("o", "n", 7)],
            {"makers": {"o": "Concat"}},
            "detection-rows",
            {"columns": "batch_box_class_score"},
            None,
        ),
        ([tensor("o", "n", 7)], {"makers": {"o": "Gemm"}}, "classify", {"scores": "logits"}, 7),
        ([tensor("o", 1, 116, 8400), tensor("p", 1, 32, 160, 160)], {}, "yolov8-seg", {"prototypes": "p"}, 80),
        ([tensor("s", 1, 4420, 3), tensor("b", 1, 4420, 4)], {"makers": {"s": "Softmax"}}, "ssd", {"background": 0}, 3),
        (
            [tensor("s", 1, 4420, 3), tensor("b", 1, 4420, 4)],
            {"makers": {"s": "Sigmoid"}},
            "ssd",
            {"background": -1},
            3,
        ),
        ([tensor("l", 1, 300, 80), tensor("b", 1, 300, 4)], {}, "detr", {"activation": "sigmoid"}, 80),
        (
            [tensor("boxes", "n", 4), tensor("labels", "n", element="int64"), tensor("scores", "n")],
            {},
            "detections",
            {"boxes": "boxes", "labels": "labels", "scores": "scores"},
            None,
        ),
        ([tensor("o", 1, 85, 40, 40)], {}, "fastestdet", {"class_agnostic_nms": True}, 80),
        ([tensor("o", 1, 4, 640, 640)], {}, "semantic", {"values": "softmax_logits", "rule": "argmax"}, 4),
        ([tensor("o", 1, 1, 640, 640)], {"makers": {"o": "Sigmoid"}}, "semantic", {"values": "probabilities"}, 1),
        ([tensor("o", 1, 640, 640)], {"makers": {"o": "ArgMax"}}, "semantic", {"values": "class_ids"}, None),
        ([tensor("m", 1, 1, 640, 640), tensor("s", 1)], {}, "anomaly", {"map": "m", "picture_score": "s"}, 1),
        ([tensor("o", 1, 10)], {"makers": {"o": "Softmax"}}, "classify", {"scores": "softmax"}, 10),
        ([tensor("o", 1, 10, 1, 1)], {"makers": {"o": "Sigmoid"}}, "classify", {"scores": "multi_label"}, 10),
        ([tensor("o", "b", 1)], {"makers": {"o": "Gemm"}}, "classify", {"scores": "binary_logit"}, 2),
    ],
)
def test_the_decoder_is_guessed_by_the_outputs(
    outputs: list[TensorInfo], more: dict[str, Any], decoder: str, parameters: dict[str, object], count: int | None
) -> None:
    made = drafted(facts(*outputs, **more))

    assert made.value("decoder", "name") == decoder
    assert {key: made.value("decoder.parameters", key) for key in parameters} == parameters
    labels = made.value("", "labels")
    assert (len(labels) if isinstance(labels, list) else None) == count


@pytest.mark.parametrize(
    ("count", "decoder"), [(81, "yolov8"), (53, "nanodet"), (80, "yolox")], ids=["rows", "distances", "objectness"]
)
def test_labels_that_are_known_decide_between_layouts_of_one_shape(count: int, decoder: str) -> None:
    made = drafted(facts(tensor("o", 1, 8400, 85)), [f"l{index}" for index in range(count)])
    assert made.value("decoder", "name") == decoder
    assert made.value("", "labels_file") == "labels.txt"


def test_what_no_decoder_reads_is_left_to_fill_in() -> None:
    made = drafted(facts(tensor("o", 1, 2, 3, 4, 5)))
    assert {line.key for line in made.of(Origin.FILL_IN)} == {"task", "labels", "name"}


def test_ultralytics_metadata_leaves_only_the_thresholds_to_guess() -> None:
    made = drafted(facts(tensor("o", 1, 6, 8400), metadata=ULTRALYTICS))
    assert {line.table for line in made.of(Origin.GUESS)} == {"thresholds"}
    assert made.value("", "labels") == ["a", "b"]
    assert made.value("input", "resize") == "letterbox_center"


@pytest.mark.parametrize(
    ("metadata", "output", "decoder"),
    [
        ({"end2end": "True"}, tensor("o", 1, 300, 6), "detection-rows"),
        ({"args": "{'nms': True}"}, tensor("o", 1, 300, 6), "detection-rows"),
        ({"task": "classify"}, tensor("o", 1, 2), "classify"),
        ({"task": "pose"}, tensor("o", 1, 56, 8400), None),
    ],
)
def test_ultralytics_task_decides(metadata: dict[str, str], output: TensorInfo, decoder: str | None) -> None:
    made = drafted(facts(output, metadata=ULTRALYTICS | metadata, makers={"o": "Softmax"}))
    assert made.value("decoder", "name") == decoder


def test_free_sizes_are_read_from_the_metadata_or_left_to_fill_in() -> None:
    free = tensor("x", "b", 3, "h", "w")
    assert drafted(facts(tensor("o", 1, 6, "n"), picture=free, metadata=ULTRALYTICS)).value("input", "width_px") == 640
    made = drafted(facts(tensor("o", "b", 2), picture=free))
    assert {line.key for line in made.of(Origin.FILL_IN)} == {"width_px", "height_px"}


@pytest.mark.parametrize(
    ("picture", "layout", "color", "dtype"),
    [
        (tensor("x", 1, 3, 64, 64), "NCHW", "RGB", "float32"),
        (tensor("x", 1, 64, 64, 3, element="uint8"), "NHWC", "RGB", "uint8"),
        (tensor("x", "b", 1, 64, 64, element="float16"), "NCHW", "GRAY", "float16"),
    ],
)
def test_layout_and_type_are_read(picture: TensorInfo, layout: str, color: str, dtype: str) -> None:
    made = drafted(facts(tensor("o", 1, 2), picture=picture))
    assert [made.value("input", key) for key in ("layout", "color", "dtype")] == [layout, color, dtype]


def test_a_graph_that_scales_by_itself_is_fed_pixels() -> None:
    found = facts(tensor("o", 1, 4))
    assert drafted(found).value("input", "scale") != 1.0
    found.makers["first"] = ("Sub", "images")
    assert drafted(found).value("input", "scale") == 1.0


def test_further_inputs_are_told_by_their_names_or_left_to_fill_in() -> None:
    others = (tensor("im_shape", 1, 2), tensor("scale_factor", 1, 2))
    made = drafted(facts(tensor("o", 1, 300, 6), others=others), ["a"])
    assert [entry["kind"] for entry in made.value("", "extra_inputs")] == ["network_size_hw", "scale_hw"]  # type: ignore[attr-defined]
    made = drafted(facts(tensor("o", 1, 300, 6), others=(tensor("what", 1, 2),)), ["a"])
    assert [line.key for line in made.of(Origin.FILL_IN)] == ["extra_inputs"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("{0: 'it\\'s', 1: \"a 'b'\"}", ["it's", "a 'b'"]),
        ("{0: 'a\"]\\n[rules]', 1: '\x7f\u2028é'}", ['a"]n[rules]', "\x7f é"]),
        ("{0: '', 1: 'b'}", ["class-0", "b"]),
        ("{1: 'a', 2: 'b'}", None),
        ("{0: __import__('os').system('true')}", None),
        ("(" * 5000, None),
    ],
)
def test_names_are_read_as_text_and_never_evaluated(names: str, expected: list[str] | None) -> None:
    made = drafted(facts(tensor("o", 1, 6, 8400), metadata=ULTRALYTICS | {"names": names}))
    assert made.value("", "labels") == (expected or ["class-0", "class-1"])
