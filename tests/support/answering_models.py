"""Packages whose graph answers constant tensors, whatever picture it is shown: layouts with known outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agent.vision import pipeline, runtime
from wire import package
from wire.manifest import parameters_of

_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}


def make(folder: Path, manifest: str, outputs: Mapping[str, np.ndarray], *, width: int, height: int) -> package.Package:
    """Write a package; the graph adds 0 times the picture, so that no optimiser removes its input."""
    folder.mkdir(parents=True)
    constants = []
    nodes = [
        helper.make_node("ReduceMin", ["picture"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
    ]
    constants.append(numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"))
    for name, value in outputs.items():
        kind = _TYPES[str(value.dtype)]
        constants.append(numpy_helper.from_array(value, f"constant_{name}"))
        nodes.append(helper.make_node("Cast", ["nothing"], [f"nothing_{name}"], to=kind))
        nodes.append(helper.make_node("Add", [f"constant_{name}", f"nothing_{name}"], [name]))
    graph = helper.make_graph(
        nodes,
        "answers",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, (1, 3, height, width))],
        [helper.make_tensor_value_info(name, _TYPES[str(one.dtype)], one.shape) for name, one in outputs.items()],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    (folder / "manifest.toml").write_text(manifest, encoding="utf-8")
    return package.read_folder(folder)


def opened(found: package.Package, **overrides: float) -> pipeline.Pipeline:
    """Load a package."""
    parameters, refused = parameters_of(found.manifest, overrides)
    assert not refused, refused
    return pipeline.Pipeline(runtime.load(found, runtime.RuntimeOptions()), found, parameters)
