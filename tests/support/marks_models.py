"""A package that reads the marks of simulated parts: its findings say which part and which view it judged."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agent.simulator import belt_marks
from agent.simulator.belt import Fault
from agent.simulator.belt_marks import Mark
from wire import codec, package
from wire.inspection import Finding, Verdict
from wire.manifest import GoldenSample, GoldenSet, Tolerance

_MANIFEST: Final = """
schema = 1
name = "{name}"
release = {release}
task = "classify"
labels = {labels}
max_findings = 60

[input]
name = "picture"
width_px = {width}
height_px = {height}
resize = "stretch"
scale = {scale!r}

[decoder]
name = "classify"
parameters = {{ scores = "multi_label" }}

[thresholds]
score = {{ default = 0.45, min = 0.4, max = 0.5 }}
fault-ng = {{ default = 0.75, min = 0.7, max = 0.8 }}
fault-unsure = {{ default = 0.5, min = 0.45, max = 0.6 }}

[[rules]]
name = "fault"
labels = ["{fault}"]
ng_at = "fault-ng"
unsure_at = "fault-unsure"
"""


def make(folder: Path, name: str, *, recipe_index: int, release: int = 1) -> package.Package:
    """Write the package of one recipe's model, with a golden picture for each fault."""
    cells = belt_marks.cells(recipe_index)
    (folder / "golden").mkdir(parents=True)
    onnx.save(_graph(list(cells.values())), folder / "model.onnx")
    (folder / "manifest.toml").write_text(
        _MANIFEST.format(
            name=name,
            release=release,
            labels=list(cells),
            width=belt_marks.WIDTH_PX,
            height=belt_marks.HEIGHT_PX,
            scale=1 / 255,
            fault=belt_marks.FAULT_LABEL,
        ).replace("'", '"'),
        encoding="utf-8",
    )
    samples = tuple(_sample(folder, recipe_index, fault, number) for number, fault in enumerate(Fault, 1))
    golden = GoldenSet(tolerance=Tolerance(score=0.05), samples=samples)
    (folder / "golden" / "expected.json").write_bytes(codec.encode(golden))
    return package.read_folder(folder)


def _sample(folder: Path, recipe_index: int, fault: Fault, number: int) -> GoldenSample:
    # The other recipes' cells hold another fault: a model that reads the wrong one fails its self-test.
    other = Fault.NONE if fault is Fault.CLEAR else Fault.CLEAR
    faults = tuple(fault if index == recipe_index else other for index in range(belt_marks.MAX_RECIPES))
    picture = belt_marks.render(Mark(number=number, view=number), faults)
    path = f"golden/{fault.name.lower()}.png"
    cv2.imwrite(str(folder / path), picture)
    scores = {
        label: float(belt_marks.cell_of(picture, cell).mean() / 255)
        for label, cell in belt_marks.cells(recipe_index).items()
    }
    # In the order of the findings: the best first, equal ones in the order of the labels.
    found = sorted(((score, label) for label, score in scores.items() if score >= 0.45), key=lambda one: -one[0])
    return GoldenSample(
        picture=path,
        verdict=Verdict(fault.value),
        findings=tuple(Finding(label=label, score=score) for score, label in found),
    )


def _graph(cells: list[int]) -> onnx.ModelProto:
    """Return the mean brightness of each of the cells."""
    side = belt_marks.CELL_PX
    count = belt_marks.COLUMNS * belt_marks.ROWS
    shape = [1, 3, belt_marks.HEIGHT_PX, belt_marks.WIDTH_PX]
    nodes = [
        helper.make_node("AveragePool", ["picture"], ["colours"], kernel_shape=[side, side], strides=[side, side]),
        helper.make_node("ReduceMean", ["colours"], ["grey"], axes=[1], keepdims=0),
        helper.make_node("Reshape", ["grey", "flat"], ["all"]),
        helper.make_node("Gather", ["all", "cells"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "marks",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, len(cells)])],
        [
            numpy_helper.from_array(np.array([1, count], dtype=np.int64), "flat"),
            numpy_helper.from_array(np.array(cells, dtype=np.int64), "cells"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
