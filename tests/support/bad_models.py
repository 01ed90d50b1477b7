"""Real ONNX models that are bad on purpose: each has one fault, and is otherwise the good one.

The good one says "scratch" (NG) of a picture that is more red than blue, "good" (OK) of the others, and is UNSURE where
the better of the two scores below 0.6. Its look takes about a millisecond.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from wire import codec, package
from wire.inspection import Finding, Verdict
from wire.manifest import GoldenSample, GoldenSet

MODEL: Final = "demo-parts"
SIDE_PX: Final = 16
BRIGHT: Final = 200
DARK: Final = 30  # a lamp is half out: an inspector still sees the part
_GAIN: Final = 8.0
_MATRIX_SIDE: Final = 256
_MANIFEST: Final = """
schema = 1
name = "{model}"
release = {release}
task = "classify"
labels = ["good", "scratch"]
minimum_score = "sure"

[input]
width_px = 16
height_px = 16
scale = {scale!r}

[decoder]
name = "classify"

[thresholds]
ng = {{ default = 0.6, min = 0.5, max = 0.9 }}
sure = {{ default = 0.6, min = 0.5, max = 0.9 }}

[[rules]]
name = "scratch"
labels = ["scratch"]
ng_at = "ng"

[limits]
latency_p95_ms = {latency_p95_ms}
memory_mb = 512.0
"""


class Bad(StrEnum):
    """What is wrong with a model."""

    NOTHING = "nothing"
    WRONG_ORDER = "wrong_order"  # the two classes are exchanged
    SLOW = "slow"  # a look takes about ten times as long
    NAN_IN_THE_DARK = "nan_in_the_dark"
    NAN_OF_SCRATCHES = "nan_of_scratches"  # of pictures that are far more red than blue
    CRUSHED = "crushed"  # the order of the scores is right, and all lie between 0.5 and 0.6
    CRUSHED_A_LITTLE = "crushed_a_little"  # all lie between 0.6 and 0.8: each verdict is as before
    ALWAYS_OK = "always_ok"


def make(
    folder: Path, bad: Bad = Bad.NOTHING, *, release: int = 1, golden: bool = True, latency_p95_ms: float = 1000.0
) -> package.Package:
    """Write a package.

    Args:
        golden: with two golden pictures, bright ones.
        latency_p95_ms: of the manifest.
    """
    (folder / "golden").mkdir(parents=True)
    text = _MANIFEST.format(model=MODEL, release=release, scale=1 / 255, latency_p95_ms=latency_p95_ms)
    (folder / "manifest.toml").write_text(text, encoding="utf-8")
    onnx.save(_graph(bad), folder / "model.onnx")
    if golden:
        samples = tuple(_sample(folder, scratched=scratched) for scratched in (False, True))
        (folder / "golden" / "expected.json").write_bytes(codec.encode(GoldenSet(samples=samples)))
    return package.read_folder(folder)


def picture(*, scratched: bool, brightness: int = BRIGHT) -> NDArray[np.uint8]:
    """Return what the camera shows of a part."""
    found = np.zeros((SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    found[:, :, 2 if scratched else 0] = brightness
    return found


def _sample(folder: Path, *, scratched: bool) -> GoldenSample:
    label = "scratch" if scratched else "good"
    name = f"golden/{label}.png"
    cv2.imwrite(str(folder / name), picture(scratched=scratched))
    score = 1.0 / (1.0 + float(np.exp(-_GAIN * BRIGHT / 255)))
    verdict = Verdict.NG if scratched else Verdict.OK
    return GoldenSample(picture=name, verdict=verdict, findings=(Finding(label=label, score=score),))


def _graph(bad: Bad) -> onnx.ModelProto:
    order = [2, 0] if bad is Bad.WRONG_ORDER else [0, 2]
    gain = {Bad.CRUSHED: 0.4, Bad.CRUSHED_A_LITTLE: 1.2}.get(bad, _GAIN)
    gains = [gain, 0.0 if bad is Bad.ALWAYS_OK else gain]
    bias = [2.0, 0.0] if bad is Bad.ALWAYS_OK else [0.0, 0.0]
    constants = {
        "flat": np.array([1, 3], dtype=np.int64),
        "order": np.array(order, dtype=np.int64),
        "gains": np.array([gains], dtype=np.float32),
        "bias": np.array([bias], dtype=np.float32),
        "zero": np.array(0.0, dtype=np.float32),
        "ones": np.ones((_MATRIX_SIDE, _MATRIX_SIDE), dtype=np.float32),
        "dark": np.array(0.2, dtype=np.float32),
        "red": np.array(0.5, dtype=np.float32),
        "signs": np.array([[-1.0, 0.0, 1.0]], dtype=np.float32),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["picture"], ["mean"]),
        helper.make_node("Reshape", ["mean", "flat"], ["three"]),
        helper.make_node("Gather", ["three", "order"], ["two"], axis=1),
        helper.make_node("Mul", ["two", "gains"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["logits"]),
        # Work that depends on the picture, so that no optimiser does it beforehand, and comes to nothing.
        helper.make_node("ReduceMax", ["three"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Mul", ["ones", "nothing"], ["work_0"]),
    ]
    rounds = 60 if bad is Bad.SLOW else 6  # so that the difference is far beyond what probation lets pass
    nodes += [helper.make_node("MatMul", [f"work_{one}", "ones"], [f"work_{one + 1}"]) for one in range(rounds)]
    nodes.append(helper.make_node("ReduceMax", [f"work_{rounds}"], ["done"], keepdims=0))
    radicand = _radicand(bad)
    if radicand:  # the square root of what is below 0 is no number
        nodes += [
            *radicand,
            helper.make_node("Sqrt", ["radicand"], ["root"]),
            helper.make_node("Mul", ["root", "zero"], ["spoiler"]),
            helper.make_node("Add", ["done", "spoiler"], ["spoiled"]),
        ]
    nodes.append(helper.make_node("Add", ["logits", "spoiled" if radicand else "done"], ["scores"]))
    graph = helper.make_graph(
        nodes,
        bad.value,
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _radicand(bad: Bad) -> list[onnx.NodeProto]:
    if bad is Bad.NAN_IN_THE_DARK:
        return [helper.make_node("Sub", ["most", "dark"], ["radicand"])]
    if bad is Bad.NAN_OF_SCRATCHES:
        return [
            helper.make_node("Mul", ["three", "signs"], ["signed"]),
            helper.make_node("ReduceSum", ["signed"], ["redder"], keepdims=0),
            helper.make_node("Sub", ["red", "redder"], ["radicand"]),
        ]
    return []
