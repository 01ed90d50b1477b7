"""Tiny ONNX classifiers for self-tests: which of blue, green and red is strongest in the picture; and bad kin of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from wire import codec, package
from wire.inspection import Finding, Verdict
from wire.manifest import GoldenSample, GoldenSet

LABELS = ("blue", "green", "red")
SIDE_PX = 16
FIFTIETH_SEED = 11.0
FIFTIETH_THRESHOLD = 0.985
_GAIN = 8.0
_Spoiling: TypeAlias = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]
_MANIFEST = """
schema = 1
name = "{model}"
release = {release}
task = "classify"
labels = ["blue", "green", "red"]

[input]
width_px = 16
height_px = 16
scale = {scale!r}

[decoder]
name = "classify"

[thresholds]
ng = {{ default = 0.5, min = 0.1, max = 0.9 }}

[[rules]]
name = "red-is-bad"
labels = ["red"]
ng_at = "ng"

[limits]
latency_p95_ms = {latency_p95_ms}
memory_mb = {memory_mb}
"""


def make(
    folder: Path,
    kind: str = "good",
    *,
    model: str = "colors",
    release: int = 1,
    latency_p95_ms: float = 1000.0,
    memory_mb: float = 512.0,
) -> package.Package:
    """Write a package with a real model and golden pictures.

    Args:
        kind: "good", "swapped" (red and blue exchanged), "nan", "huge" (allocates 64 GB when run), "damaged" (cut
            short), "wide" (32 MB of weights), "blind" (no golden set), "endless" (never answers); no number comes out
            of "dark" (for pictures darker than a quarter of the golden ones), "black", "white" and, beside good
            scores, "aside" and "infinite"; "fiftieth" fails at a look between the 45th and the 60th of a session.
    """
    (folder / "golden").mkdir(parents=True)
    (folder / "manifest.toml").write_text(
        _MANIFEST.format(
            model=model, release=release, scale=1 / 255, latency_p95_ms=latency_p95_ms, memory_mb=memory_mb
        )
    )
    data = endless() if kind == "endless" else _graph(kind).SerializeToString()
    (folder / "model.onnx").write_bytes(data[: len(data) // 2] if kind == "damaged" else data)
    if kind != "blind":
        samples = tuple(_sample(folder, channel, label) for channel, label in enumerate(LABELS))
        (folder / "golden" / "expected.json").write_bytes(codec.encode(GoldenSet(samples=samples)))
    return package.read_folder(folder)


def _sample(folder: Path, channel: int, label: str) -> GoldenSample:
    picture = np.zeros((SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    picture[:, :, channel] = 200
    name = f"golden/{label}.png"
    cv2.imwrite(str(folder / name), picture)
    logits = np.zeros(3)
    logits[channel] = _GAIN * 200 / 255
    score = float(np.exp(logits[channel]) / np.exp(logits).sum())
    return GoldenSample(
        picture=name,
        verdict=Verdict.NG if label == "red" else Verdict.OK,
        findings=(Finding(label=label, score=score),),
    )


def _graph(kind: str) -> onnx.ModelProto:
    order = [2, 1, 0] if kind == "swapped" else [0, 1, 2]
    gain = float("nan") if kind == "nan" else _GAIN
    constants = [
        numpy_helper.from_array(np.array([1, 3], dtype=np.int64), "flat"),
        numpy_helper.from_array(np.array(order, dtype=np.int64), "order"),
        numpy_helper.from_array(np.array(gain, dtype=np.float32), "gain"),
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["picture"], ["mean"]),
        helper.make_node("Reshape", ["mean", "flat"], ["three"]),
        helper.make_node("Gather", ["three", "order"], ["ordered"], axis=1),
        helper.make_node("Mul", ["ordered", "gain"], ["scores"]),
    ]
    if kind == "huge":
        # The shape comes from the picture, so that no optimiser can fold it away when the model is loaded.
        constants.append(numpy_helper.from_array(np.array([1024, 1024, 1024], dtype=np.int64), "sizes"))
        constants.append(numpy_helper.from_array(np.array([16], dtype=np.int64), "sixteen"))
        constants.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "one"))
        nodes = [
            helper.make_node("ReduceMax", ["picture"], ["top"], keepdims=0),
            helper.make_node("Cast", ["top"], ["top_int"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["top_int", "one"], ["top_one"]),
            helper.make_node("Add", ["top_one", "sixteen"], ["last"]),
            helper.make_node("Concat", ["sizes", "last"], ["shape"], axis=0),
            helper.make_node("ConstantOfShape", ["shape"], ["vast"]),
            helper.make_node("ReduceMax", ["vast"], ["nothing"], keepdims=0),
            *nodes[:-1],
            helper.make_node("Mul", ["ordered", "gain"], ["scaled"]),
            helper.make_node("Add", ["scaled", "nothing"], ["scores"]),
        ]
    if kind == "wide":
        constants.append(numpy_helper.from_array(np.full((4096, 2048), -9.0, dtype=np.float32), "weights"))
        nodes = [
            *nodes[:-1],
            helper.make_node("ReduceMean", ["ordered"], ["mean_all"], axes=[0, 1], keepdims=0),
            helper.make_node("Mul", ["weights", "mean_all"], ["moved"]),
            helper.make_node("ReduceMax", ["moved"], ["most"], keepdims=0),
            helper.make_node("Relu", ["most"], ["nothing"]),
            helper.make_node("Mul", ["ordered", "gain"], ["scaled"]),
            helper.make_node("Add", ["scaled", "nothing"], ["scores"]),
        ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])]
    if kind in _SPOILED:
        spoiling, more = _SPOILED[kind]()
        constants += more
        nodes = [*nodes[:-1], helper.make_node("Mul", ["ordered", "gain"], ["scaled"]), *spoiling]
    if kind in ("aside", "infinite"):
        outputs.append(helper.make_tensor_value_info("aside", TensorProto.FLOAT, [1, 3]))
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX])],
        outputs,
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _root_of(threshold: float, sign: float) -> _Spoiling:
    """Add 0 times the square root of (brightest - threshold) * sign: no number on the wrong side of the threshold."""
    return [
        helper.make_node("ReduceMax", ["picture"], ["brightest"], keepdims=0),
        helper.make_node("Sub", ["brightest", "threshold"], ["above"]),
        helper.make_node("Mul", ["above", "sign"], ["signed"]),
        helper.make_node("Sqrt", ["signed"], ["root"]),
        helper.make_node("Mul", ["root", "zero"], ["nothing"]),
        helper.make_node("Add", ["scaled", "nothing"], ["scores"]),
    ], [_float("threshold", threshold), _float("sign", sign), _float("zero", 0.0)]


def _dark() -> _Spoiling:
    """Add 0 times the square root of (brightest - 0.25) * (brightest - 0.01): dark, but not black."""
    nodes, constants = _root_of(0.25, 1.0)
    nodes[2] = helper.make_node("Mul", ["above", "above_black"], ["signed"])
    nodes.insert(1, helper.make_node("Sub", ["brightest", "sign"], ["above_black"]))
    return nodes, [constants[0], _float("sign", 0.01), constants[2]]


def _white() -> _Spoiling:
    """Add 0 times the square root of (0.99 - darkest), which golden pictures with black corners do not spoil."""
    nodes, constants = _root_of(0.99, -1.0)
    nodes[0] = helper.make_node("ReduceMin", ["picture"], ["brightest"], keepdims=0)
    return nodes, constants


def _aside(numerator: float) -> _Spoiling:
    return [
        helper.make_node("Identity", ["scaled"], ["scores"]),
        helper.make_node("Mul", ["scaled", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "numerator"], ["numerators"]),
        helper.make_node("Div", ["numerators", "zeros"], ["aside"]),
    ], [_float("zero", 0.0), _float("numerator", numerator)]


def _fiftieth() -> _Spoiling:
    """Look up an index that is out of range once the generator, which each session starts anew, draws high enough."""
    return [
        helper.make_node("RandomUniform", [], ["drawn"], shape=[1], seed=FIFTIETH_SEED, dtype=TensorProto.FLOAT),
        helper.make_node("Greater", ["drawn", "threshold"], ["is_high"]),
        helper.make_node("Where", ["is_high", "outside", "inside"], ["index"]),
        helper.make_node("Gather", ["weights", "index"], ["weight"]),
        helper.make_node("Mul", ["scaled", "weight"], ["scores"]),
    ], [
        _float("threshold", FIFTIETH_THRESHOLD),
        numpy_helper.from_array(np.array([9], dtype=np.int64), "outside"),
        numpy_helper.from_array(np.array([0], dtype=np.int64), "inside"),
        numpy_helper.from_array(np.array([1.0], dtype=np.float32), "weights"),
    ]


def _float(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype=np.float32), name)


_SPOILED: dict[str, Callable[[], _Spoiling]] = {
    "dark": _dark,
    "black": lambda: _root_of(0.01, 1.0),
    "white": _white,
    "aside": lambda: _aside(0.0),
    "infinite": lambda: _aside(1.0),
    "fiftieth": _fiftieth,
}


def endless() -> bytes:
    """Return a graph that loops as long as a 64-bit number can count."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["sum", "sum"], ["sum_on"])],
        "body",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_on", TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["times", "", "picture"], ["scores"], body=body)],
        "endless",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX])],
        [numpy_helper.from_array(np.array(2**62, dtype=np.int64), "times")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
