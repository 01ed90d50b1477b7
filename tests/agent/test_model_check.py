"""`lineside model check` refuses what must not be loaded, each with a code of its own, and never goes down with it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from agent.vision import check
from tests.support import shared_packages, tiny_models
from wire.errors import REGISTER


def lineside(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", *arguments], capture_output=True, text=True, timeout=90, check=False
    )


def refusal_of(path: Path) -> tuple[str, int]:
    answer = lineside("model", "check", str(path), "--json")
    document: dict[str, Any] = json.loads(answer.stdout)
    assert document["schema"] == "lineside.model-check/1"
    assert document["ok"] is False
    assert document["reason"].endswith(".")
    assert document["next_step"]
    return document["code"], answer.returncode


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("bad/html_page_named.onnx", "model.not_onnx"),
        ("bad/truncated_yolox.onnx", "model.truncated"),
        ("bad/needs_custom_ops.onnx", "model.custom_ops"),
        ("matmul_tiny.onnx", "model.not_vision"),
    ],
)
def test_each_bad_shared_file_is_refused_with_a_code_of_its_own(file: str, code: str, shared_data: Path) -> None:
    assert refusal_of(shared_data / "models" / file) == (code, REGISTER[code].exit_status) == (code, 6)


def test_good_shared_models_pass_with_their_facts(shared_data: Path) -> None:
    answer = lineside("model", "check", str(shared_data / "models" / "mnist.onnx"), "--json")

    document = json.loads(answer.stdout)
    assert answer.returncode == 0
    assert document["ok"] is True
    assert document["facts"]["inputs"] == [{"name": "Input3", "shape": [1, 1, 28, 28], "element": "float32"}]
    assert document["facts"]["provider"] == "CPUExecutionProvider"


def test_a_file_that_is_not_there_has_another_exit_status(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "absent.onnx") == ("resource.not_found", 7)


def saved(
    tmp_path: Path,
    *nodes: onnx.NodeProto,
    opset: int = 17,
    ir_version: int = 8,
    shape: tuple[int, ...] = (1, 3, 32, 32),
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("node", "opset", "ir_version", "code"),
    [
        (helper.make_node("NoSuchOperator", ["x"], ["y"]), 17, 8, "model.custom_ops"),
        (helper.make_node("Relu", ["x"], ["y"]), 6, 8, "model.unsupported_opset"),
        (helper.make_node("Relu", ["x"], ["y"]), 500, 8, "model.unsupported_opset"),
        (helper.make_node("Relu", ["x"], ["y"]), 17, 500, "model.unsupported_opset"),
        (helper.make_node("Relu", ["nowhere"], ["y"]), 17, 8, "model.unloadable"),
    ],
)
def test_what_the_runtime_refuses_has_a_code(
    node: onnx.NodeProto, opset: int, ir_version: int, code: str, tmp_path: Path
) -> None:
    result = check.check_file(saved(tmp_path, node, opset=opset, ir_version=ir_version))

    assert (result.ok, result.code) == (False, code), result.reason


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, helper.make_node("Relu", ["x"], ["y"]))

    assert check.check_file(path, check.CheckLimits(file_bytes=20)).code == "model.too_large"


def test_a_package_whose_model_asks_for_all_memory_is_refused(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_packages.assemble("mnist", shared_data, tmp_path)
    nodes = [
        helper.make_node(
            "Constant", [], ["s"], value=helper.make_tensor("v", TensorProto.INT64, [4], [1, 4096, 4096, 512])
        ),
        helper.make_node(
            "ConstantOfShape", ["s"], ["h"], value=helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
        ),
        helper.make_node("ReduceMax", ["h"], ["m"], keepdims=1),
        helper.make_node("Add", ["x", "m"], ["y"]),
    ]  # 32 GiB from a file of 300 bytes
    saved(tmp_path, *nodes, shape=(1, 1, 28, 28)).replace(folder / "model.onnx")

    result = check.check_file(folder)

    assert (result.ok, result.code) == (False, "model.run_failed"), result.reason


def test_a_check_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = saved(tmp_path, helper.make_node("Relu", ["x"], ["y"]))

    assert check.check_file(path, check.CheckLimits(seconds=0.01)).code == "model.timed_out"


def test_a_child_that_a_signal_ended_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killer = tmp_path / "python"
    killer.write_text(f"#!/bin/sh\nkill -{signal.SIGSEGV.value} $$\n", encoding="utf-8")
    killer.chmod(0o755)
    monkeypatch.setattr(check.sys, "executable", str(killer))

    assert check.check_file(saved(tmp_path, helper.make_node("Relu", ["x"], ["y"]))).code == "model.crashed"


def test_a_child_that_says_nothing_is_not_taken_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mute = tmp_path / "python"
    mute.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    mute.chmod(0o755)
    monkeypatch.setattr(check.sys, "executable", str(mute))

    result = check.check_file(saved(tmp_path, helper.make_node("Relu", ["x"], ["y"])))

    assert (result.ok, result.code) == (False, "internal.unexpected")


def test_packages_pass_and_show_what_they_are(shared_data: Path, tmp_path: Path) -> None:
    for name in shared_packages.SHARED:
        folder = shared_packages.assemble(name, shared_data, tmp_path)
        result = check.check_file(folder)
        assert (result.ok, result.facts.get("name")) == (True, name), result.reason

    shown = json.loads(lineside("model", "show", str(tmp_path / "mnist"), "--json").stdout)
    assert shown["schema"] == "lineside.model-show/1"
    assert shown["package"]["manifest"]["decoder"]["name"] == "classify"
    assert shown["model"]["outputs"] == [{"name": "Plus214_Output_0", "shape": [1, 10], "element": "float32"}]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("width_px = 28", "width_px = 32", "model.manifest_mismatch"),
        ('color = "GRAY"', 'color = "BGR"', "model.manifest_mismatch"),
        ('color = "GRAY"', 'color = "GRAY"\ndtype = "uint8"', "model.manifest_mismatch"),
        ('color = "GRAY"', 'color = "GRAY"\nname = "absent"', "model.manifest_mismatch"),
        ('"8", "9"]', '"8"]', "model.unusable_output"),
        ('name = "classify"', 'name = "classifi"', "model.manifest_invalid"),
        ("schema = 1", "schema = 1\nsecret = 2", "model.manifest_invalid"),
        ('task = "classify"', 'task = "detect"', "model.manifest_invalid"),
        ("[[rules]]", '[requires]\nproviders = ["CUDAExecutionProvider"]\n\n[[rules]]', "model.provider_unavailable"),
    ],
)
def test_a_manifest_that_does_not_fit_its_model_is_refused(
    old: str, new: str, code: str, shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_packages.assemble("mnist", shared_data, tmp_path)
    manifest = folder / "manifest.toml"
    text = manifest.read_text(encoding="utf-8")
    assert old in text
    manifest.write_text(text.replace(old, new, 1), encoding="utf-8")

    result = check.check_file(folder)

    assert (result.ok, result.code) == (False, code), result.reason


def test_a_package_whose_model_is_a_web_page_is_refused(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_packages.assemble("mnist", shared_data, tmp_path)
    shutil.copyfile(shared_data / "models/bad/html_page_named.onnx", folder / "model.onnx")

    assert check.check_file(folder).code == "model.not_onnx"


def rewritten(folder: Path, name: str, old: str, new: str) -> Path:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


def test_the_golden_samples_run_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    tiny_models.make(tmp_path / "good")
    result = check.check_file(tmp_path / "good")
    assert (result.ok, result.facts["golden_samples"]) == (True, 3), result.reason

    tiny_models.make(tmp_path / "swapped", "swapped")
    result = check.check_file(tmp_path / "swapped")
    assert (result.ok, result.code) == (False, "model.golden_mismatch")
    assert "golden/blue.png" in result.reason


@pytest.mark.parametrize(
    ("old", "new"), [('"verdict"', '"verdikt"'), ("golden/blue.png", "golden/gone.png"), ("golden/blue.png", "/x.png")]
)
def test_a_golden_set_that_cannot_be_used_is_refused(old: str, new: str, tmp_path: Path) -> None:
    tiny_models.make(tmp_path / "p")
    result = check.check_file(rewritten(tmp_path / "p", "golden/expected.json", old, new))
    assert (result.ok, result.code) == (False, "package.invalid"), result.reason


def test_a_manifest_that_asks_for_an_older_opset_than_the_graph_uses_is_refused(tmp_path: Path) -> None:
    tiny_models.make(tmp_path / "p")
    folder = rewritten(tmp_path / "p", "manifest.toml", "[limits]", "[requires]\nopset = 16\n\n[limits]")
    result = check.check_file(folder)
    assert (result.ok, result.code) == (False, "model.manifest_mismatch")
    assert "17" in result.reason


def test_a_file_that_loads_but_cannot_run_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["s"], value=helper.make_tensor("v", TensorProto.INT64, [1], [7])),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["n"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["n", "zero"], ["n1"]),
        helper.make_node("Add", ["n1", "s"], ["shape"]),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    nodes.insert(0, helper.make_node("Constant", [], ["zero"], value=helper.make_tensor("z", 7, [1], [0])))
    result = check.check_file(saved(tmp_path, *nodes))
    assert (result.ok, result.code) == (False, "model.run_failed"), result.reason


def test_the_path_of_data_outside_the_file_is_quoted(tmp_path: Path) -> None:
    path = saved(tmp_path, helper.make_node("Add", ["x", "w"], ["y"]))
    model = onnx.load(str(path))
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../../etc/passwd")
    model.graph.initializer.append(weight)
    path.write_bytes(model.SerializeToString())
    result = check.check_file(path)
    assert (result.ok, result.code) == (False, "model.external_data")
    assert "../../etc/passwd" in result.reason
