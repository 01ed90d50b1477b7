"""The reader of ONNX files agrees with the onnx package on good files and survives any bytes."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from agent.vision import onnx_file, onnx_picture
from agent.vision.onnx_walk import OnnxFacts, TensorInfo
from wire.errors import LinesideError


def model(
    *nodes: onnx.NodeProto,
    shape: tuple[int | str | None, ...] = (1, 3, 32, 32),
    opset: int = 17,
    initializers: tuple[TensorProto, ...] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(initializers),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(made, {"names": "{0: 'scratch'}"})
    return made


def facts(made: onnx.ModelProto) -> OnnxFacts:
    return onnx_file.parse(memoryview(made.SerializeToString()), "m.onnx")


def code_of(made: onnx.ModelProto) -> str:
    with pytest.raises(LinesideError) as refused:
        onnx_file.refuse(facts(made))
    return refused.value.code


def test_it_reads_what_was_written() -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    found = facts(model(shape=("batch", 3, None, 640), initializers=(weight,)))

    assert (found.ir_version, found.opset, found.node_count) == (8, 17, 1)
    assert found.inputs == (TensorInfo(name="x", element="float32", shape=("batch", 3, None, 640)),)
    assert found.metadata == {"names": "{0: 'scratch'}"}
    assert found.foreign_operators == found.external_tensors == ()
    onnx_file.refuse(found)


def test_old_files_list_initialisers_among_the_inputs() -> None:
    made = model(initializers=(helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0]),))
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (2,)))

    assert [tensor.name for tensor in facts(made).inputs] == ["x"]


def test_it_agrees_with_the_onnx_package_on_the_shared_models(shared_data: Path) -> None:
    for path in sorted((shared_data / "models").glob("*.onnx")):
        found = onnx_file.read(path)
        known = onnx.load(path)
        initializers = {tensor.name for tensor in known.graph.initializer}
        expected = [
            (value.name, tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim))
            for value in known.graph.input
            if value.name not in initializers
        ]

        assert found.opsets == {entry.domain: entry.version for entry in known.opset_import}, path.name
        assert found.node_count == len(known.graph.node), path.name
        assert [(tensor.name, tensor.shape) for tensor in found.inputs] == expected, path.name


def test_tensors_outside_the_file_are_refused() -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")

    assert code_of(model(initializers=(weight,))) == "model.external_data"


def test_a_tensor_outside_the_file_is_found_in_a_nested_graph() -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../secret")
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=weight)], "inner", [], [])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)

    assert code_of(model(branch)) == "model.external_data"


def test_operators_of_a_foreign_domain_are_refused_also_in_nested_graphs() -> None:
    inner = helper.make_graph([helper.make_node("Evil", [], ["c"], domain="evil.ops")], "inner", [], [])

    assert code_of(model(helper.make_node("If", ["x"], ["y"], then_branch=inner))) == "model.custom_ops"


def test_operators_that_the_file_defines_itself_are_not_foreign() -> None:
    made = model(helper.make_node("Twice", ["x"], ["y"], domain="own"))
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    made.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))

    onnx_file.refuse(facts(made))


def test_an_opset_older_than_the_runtime_supports_is_refused() -> None:
    assert code_of(model(opset=6)) == "model.unsupported_opset"


@pytest.mark.parametrize(
    ("shape", "is_picture"),
    [
        ((1, 3, 32, 32), True),
        (("n", 1, "h", "w"), True),
        ((1, 224, 224, 3), True),
        ((1, 5, 32, 32), False),
        ((3, 4), False),
        ((1, 3, 2, 2), False),
        ((1, 128), False),
    ],
)
def test_a_model_must_take_a_picture(shape: tuple[int | str, ...], is_picture: bool) -> None:
    assert onnx_picture.takes_picture(TensorInfo(name="x", element="float32", shape=shape)) == is_picture


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"<!DOCTYPE html><html></html>", "model.not_onnx"),
        (b"\n\n<html>", "model.not_onnx"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "model.not_onnx"),
        (b"PK\x03\x04 a checkpoint", "model.not_onnx"),
        (b"just some words", "model.not_onnx"),
        (bytes(64), "model.not_onnx"),
        (b"\x08\x07", "model.truncated"),
    ],
)
def test_what_is_no_model_is_named(data: bytes, code: str) -> None:
    with pytest.raises(LinesideError) as refused:
        onnx_file.parse(memoryview(data), "m.onnx")

    assert refused.value.code == code


def test_every_cut_is_noticed() -> None:
    whole = model().SerializeToString()

    for length in range(2, len(whole)):
        found = parsed(whole[:length])
        if isinstance(found, str):
            assert found == "model.truncated", length
        else:  # only what follows the graph and the opsets may be missing
            assert (found.node_count, found.opset) == (1, 17), length


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    with path.open("wb") as stream:
        stream.truncate(1001)

    with pytest.raises(LinesideError) as refused:
        onnx_file.read(path, max_bytes=1000)

    assert refused.value.code == "model.too_large"


def test_an_empty_file_and_an_absent_one_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    codes = []
    for name in ("empty.onnx", "absent.onnx"):
        with pytest.raises(LinesideError) as refused:
            onnx_file.read(tmp_path / name)
        codes.append(refused.value.code)

    assert codes == ["model.truncated", "resource.not_found"]


def test_graphs_in_graphs_without_end_are_refused() -> None:
    def field(number: int, payload: bytes) -> bytes:
        length = len(payload)
        return bytes([number << 3 | 2, length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14]) + payload

    graph = b""
    for _ in range(1000):
        graph = field(1, field(5, field(6, graph)))  # node, its attribute, the attribute's graph

    with pytest.raises(LinesideError) as refused:
        onnx_file.parse(memoryview(b"\x08\x08" + field(7, graph)), "m.onnx")

    assert refused.value.code == "model.truncated"
    assert "deep" in refused.value.message


@given(st.binary(max_size=400))
def test_any_bytes_end_in_facts_or_a_code(data: bytes) -> None:
    survives(data)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_mutated_model_ends_in_facts_or_a_code(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(model().SerializeToString())
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    survives(bytes(data))


def parsed(data: bytes) -> OnnxFacts | str:
    """The facts, or the code of the refusal; anything else a reader may do fails the test."""
    try:
        found = onnx_file.parse(memoryview(data), "m.onnx")
        onnx_file.refuse(found)
    except LinesideError as error:
        return error.code
    return found


def survives(data: bytes) -> None:
    found = parsed(data)
    assert isinstance(found, OnnxFacts) or found.startswith("model.")
