"""Seeded damage to ONNX files: of bytes, of protobuf fields, and of graphs that are well-formed and wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from google.protobuf import message
from onnx import TensorProto, helper, numpy_helper

from agent.vision import protobuf

_UNREADABLE = (message.DecodeError, message.EncodeError, AttributeError, LookupError, TypeError, ValueError)
_HUGE = (2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
# The messages of onnx.proto3 that hold others: field number -> the same for the message inside.
_TYPES: dict[int, dict] = {}  # type: ignore[type-arg]
_SHAPE = {1: {2: {1: {}}}}
_VALUE_INFO = {2: {1: {2: _SHAPE}}}
_NODE = {5: {5: {}, 6: _TYPES}}
_GRAPH = {1: _NODE, 5: {}, 11: _VALUE_INFO, 12: _VALUE_INFO, 13: _VALUE_INFO}
_TYPES.update(_GRAPH)
_MODEL = {7: _GRAPH, 8: {}, 14: {}}


def mutant(base: bytes, seed: int) -> tuple[str, bytes]:
    """Return the name of what was done and the damaged file; one seed gives one file."""
    generator = random.Random(seed)
    name, change = generator.choice(_CHANGES)
    data = base
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        data = change(data, generator)
    return name, data


def _flip(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(min(len(data), generator.choice((1, 1, 2, 8)))):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def _flip_early(data: bytes, generator: random.Random) -> bytes:
    """The first and last kilobyte hold most of the structure of a file that is mostly weights."""
    end = min(len(data), 1024)
    if generator.random() < 0.5:
        return _flip(data[:end], generator) + data[end:]
    return data[:-end] + _flip(data[-end:], generator) if data else data


def _cut(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data) + 1)]


def _remove(data: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(data) + 1)
    return data[:start] + data[start + generator.randrange(1, 64) :]


def _insert(data: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(data) + 1)
    return data[:start] + generator.randbytes(generator.randrange(1, 64)) + data[start:]


def _overwrite(data: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(data) + 1)
    return data[:start] + bytes([generator.choice((0, 255, 127, 128))]) * 8 + data[start + 8 :]


Place = tuple[int, int, int]  # start of the tag, start of the payload, end


def _places(data: bytes) -> list[Place]:
    """Return where fields that carry bytes lie, at all depths."""
    view, budget = memoryview(data), protobuf.Budget(20_000)
    found: list[Place] = []
    pending = [(0, len(data), _MODEL)]
    try:
        while pending:
            start, end, known = pending.pop()
            before = start
            for field in protobuf.fields(view, start, end, budget):
                if field.wire_type == protobuf.BYTES:
                    found.append((before, field.start, field.end))
                    if field.number in known:
                        pending.append((field.start, field.end, known[field.number]))
                before = field.end
    except protobuf.Malformed:
        pass
    return found


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _lie_about_length(data: bytes, generator: random.Random) -> bytes:
    places = _places(data)
    if not places:
        return _flip(data, generator)
    start, payload, end = generator.choice(places)
    tag_end = start + 1
    while data[tag_end - 1] & 0x80:
        tag_end += 1
    true = end - payload
    lie = generator.choice((0, 1, true - 1, true + 1, true * 2, 2**31 - 1, 2**32, 2**63, 2**64 - 1))
    return data[:tag_end] + _varint(max(0, lie)) + data[payload:]


def _repeat_field(data: bytes, generator: random.Random) -> bytes:
    """Repeat a field inside its message; the messages around it keep their old length or are made longer by luck."""
    places = _places(data)
    if not places:
        return _flip(data, generator)
    start, _, end = generator.choice(places)
    return data[:end] + data[start:end] * generator.choice((1, 2, 50)) + data[end:]


def _swap_fields(data: bytes, generator: random.Random) -> bytes:
    places = _places(data)
    if len(places) < 2:
        return _flip(data, generator)
    one, other = (data[start:end] for start, _, end in generator.sample(places, 2))
    return data.replace(one, other, 1)


def _graph_change(change: Callable[[onnx.ModelProto, random.Random], None]) -> Callable[[bytes, random.Random], bytes]:
    def changed(data: bytes, generator: random.Random) -> bytes:
        model = onnx.ModelProto()
        try:
            model.ParseFromString(data)
            change(model, generator)
            return bytes(model.SerializeToString())
        except _UNREADABLE:  # it was damaged before, or has nothing of the kind
            return _flip(data, generator)

    return changed


def _dims(model: onnx.ModelProto, generator: random.Random) -> None:
    value = generator.choice((*_HUGE, -1, -(2**63), 0, 2, 7))
    kind = generator.randrange(3)
    if kind == 0:
        info = generator.choice([*model.graph.input, *model.graph.output])
        dims = info.type.tensor_type.shape.dim
        generator.choice(dims).dim_value = value
    elif kind == 1:
        tensor = generator.choice(model.graph.initializer)
        tensor.dims[generator.randrange(len(tensor.dims))] = value
    else:
        generator.choice(model.graph.input).type.tensor_type.shape.dim.add().dim_value = value


def _weights(model: onnx.ModelProto, generator: random.Random) -> None:
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    tensor = generator.choice(floats)
    numbers = numpy_helper.to_array(tensor).copy()
    flat = numbers.reshape(-1)
    flat[generator.randrange(flat.size)] = generator.choice((np.nan, np.inf, -np.inf, 3e38, 1e-45))
    tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))


def _wiring(model: onnx.ModelProto, generator: random.Random) -> None:
    nodes = list(model.graph.node)
    node = generator.choice(nodes)
    names = [name for other in nodes for name in (*other.input, *other.output)]
    kind = generator.randrange(5)
    if kind == 0 and node.input:
        node.input[generator.randrange(len(node.input))] = node.output[0]  # a circle of one
    elif kind == 1 and node.input:
        node.input[generator.randrange(len(node.input))] = generator.choice(names)
    elif kind == 2:
        node.output[0] = generator.choice(names)
    elif kind == 3:
        generator.shuffle(nodes)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    else:
        model.graph.node.remove(node)


def _operators(model: onnx.ModelProto, generator: random.Random) -> None:
    node = generator.choice(model.graph.node)
    kind = generator.randrange(4)
    if kind == 0:
        others = ("Relu", "Loop", "If", "Gather", "Resize", "Conv", "NonMaxSuppression", "NoSuchOperator", "", "Ä" * 50)
        node.op_type = generator.choice(others)
    elif kind == 1:
        node.domain = generator.choice(("com.example", "com.microsoft", "ai.onnx.ml", "x" * 5000))
    elif kind == 2:
        value = generator.choice((2**62, -1, [2**40] * 4, [-1], [], "text", 1.5))
        name = generator.choice(("axis", "axes", "kernel_shape", "pads", "strides", "perm", "to", "group", "keepdims"))
        del node.attribute[:]
        node.attribute.append(helper.make_attribute(name, value) if value != [] else onnx.AttributeProto(name=name))
    else:
        node.input.append(generator.choice(("", "nowhere", node.output[0])))


def _elements(model: onnx.ModelProto, generator: random.Random) -> None:
    code = generator.choice((0, 1, 2, 7, 8, 9, 10, 16, 17, 22, 99, -1, 2**30))
    if generator.random() < 0.5:
        generator.choice(model.graph.input).type.tensor_type.elem_type = code
    else:
        generator.choice(model.graph.initializer).data_type = code


def _external(model: onnx.ModelProto, generator: random.Random) -> None:
    tensor = generator.choice(model.graph.initializer)
    path = generator.choice(("../../etc/passwd", "/etc/passwd", "weights.bin", "", "\0", "a" * 9000, "/dev/zero"))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=path)
    tensor.external_data.add(key="length", value=str(generator.choice((-1, 10, 2**63))))
    if generator.random() < 0.5:
        tensor.ClearField("raw_data")
    if generator.random() < 0.3:
        tensor.ClearField("data_location")  # the path alone


def _versions(model: onnx.ModelProto, generator: random.Random) -> None:
    number = generator.choice((0, -1, 1, 6, 7, 99, 2**62))
    kind = generator.randrange(4)
    if kind == 0:
        model.ir_version = number
    elif kind == 1:
        model.opset_import[0].version = number
    elif kind == 2:
        model.opset_import.extend([helper.make_opsetid(f"d{index}", 1) for index in range(generator.choice((1, 500)))])
    else:
        del model.opset_import[:]


def _nested(model: onnx.ModelProto, generator: random.Random) -> None:
    depth = generator.choice((3, 20, 31, 32, 33, 60))
    graph = helper.make_graph([helper.make_node("Identity", ["c"], ["deep"])], "g", [], [])
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["deep"], then_branch=graph, else_branch=onnx.GraphProto(name="e"))
        graph = onnx.GraphProto(name="g", node=[node])
    model.graph.node.append(graph.node[0])


def _names(model: onnx.ModelProto, generator: random.Random) -> None:
    name = generator.choice(("", "x" * 100_000, "\0", "é" * 300, "../x", model.graph.node[0].output[0]))
    kind = generator.randrange(4)
    if kind == 0:
        generator.choice(model.graph.input).name = name
    elif kind == 1:
        generator.choice(model.graph.output).name = name
    elif kind == 2:
        generator.choice(model.graph.initializer).name = name
    else:
        model.metadata_props.add(key="names", value=name * 3)
        model.producer_name = name


def _ports(model: onnx.ModelProto, generator: random.Random) -> None:
    kind = generator.randrange(4)
    if kind == 0:
        del model.graph.input[:]
    elif kind == 1:
        del model.graph.output[:]
    elif kind == 2:
        model.graph.input.extend([model.graph.input[0]] * generator.choice((1, 200)))
    else:
        model.graph.output.extend([model.graph.output[0]] * generator.choice((1, 200)))


_BYTES: list[tuple[str, Callable[[bytes, random.Random], bytes]]] = [
    ("flipped bits", _flip),
    ("flipped bits at the ends", _flip_early),
    ("cut short", _cut),
    ("bytes removed", _remove),
    ("bytes inserted", _insert),
    ("bytes overwritten", _overwrite),
    ("false length", _lie_about_length),
    ("repeated field", _repeat_field),
    ("swapped fields", _swap_fields),
]
_GRAPHS: list[tuple[str, Callable[[bytes, random.Random], bytes]]] = [
    ("sizes", _graph_change(_dims)),
    ("weights", _graph_change(_weights)),
    ("wiring", _graph_change(_wiring)),
    ("operators", _graph_change(_operators)),
    ("element types", _graph_change(_elements)),
    ("external data", _graph_change(_external)),
    ("versions", _graph_change(_versions)),
    ("nested graphs", _graph_change(_nested)),
    ("names", _graph_change(_names)),
    ("inputs and outputs", _graph_change(_ports)),
]
_CHANGES = _BYTES + 2 * _GRAPHS


def mutants(base: bytes, seeds: range) -> Iterator[tuple[int, str, bytes]]:
    """Yield seed, what was done, and the file, for each seed."""
    for seed in seeds:
        yield (seed, *mutant(base, seed))
