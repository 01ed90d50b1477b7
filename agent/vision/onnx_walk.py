"""One pass over the messages of an ONNX file: what it says of itself, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.vision import protobuf
from agent.vision.protobuf import Budget, Field

MAX_FIELDS: Final = 5_000_000
MAX_DEPTH: Final = 32
MAX_NAMED: Final = 100_000  # inputs, outputs, initialisers and nodes of the main graph, together
MAX_METADATA_BYTES: Final = 256 * 1024
_KEPT: Final = 64  # names quoted in facts and reasons
# Operator sets built into onnxruntime's own wheels.
BUILT_IN_DOMAINS: Final = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}
)
_ELEMENTS: Final = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}
_MODEL_FIELDS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """An input or output of the graph; a size is a number, the name of a free size, or None."""

    name: str
    element: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFacts:
    """What a file says of itself.

    Args:
        opsets: version per operator domain; "" is the standard one.
        foreign_operators: `domain:Operator` of each that neither the runtime nor a function of the file defines.
        external_tensors: initialisers whose numbers lie outside the file, each with the path it names, if any.
        inputs: without initialisers, which old files list among them.
        makers: per tensor of the main graph, the operator that makes it and that operator's first input.
        operators: the names of all operators used.
    """

    file_bytes: int
    ir_version: int
    producer: str
    opsets: dict[str, int]
    node_count: int
    foreign_operators: tuple[str, ...]
    external_tensors: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: dict[str, str]
    makers: dict[str, tuple[str, str]]
    operators: frozenset[str]

    @property
    def opset(self) -> int:
        return self.opsets.get("", self.opsets.get("ai.onnx", 0))


class Walk:
    """One pass over a model's messages."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._budget = Budget(MAX_FIELDS)
        self.has_graph = False
        self.looks_like_onnx = False
        self.opsets: dict[str, int] = {}
        self._ir_version = 0
        self._producer = ""
        self._metadata: dict[str, str] = {}
        self._operators: set[tuple[str, str]] = set()
        self._functions: set[tuple[str, str]] = set()
        self._node_count = 0
        self._external: list[str] = []
        self._initializers: set[str] = set()
        self._inputs: list[TensorInfo] = []
        self._outputs: list[TensorInfo] = []
        self._makers: dict[str, tuple[str, str]] = {}
        self._metadata_left = MAX_METADATA_BYTES

    def facts(self) -> OnnxFacts:
        foreign = sorted(
            f"{domain}:{operator}"
            for domain, operator in self._operators
            if domain not in BUILT_IN_DOMAINS and (domain, operator) not in self._functions
        )
        return OnnxFacts(
            file_bytes=len(self._data),
            ir_version=self._ir_version,
            producer=self._producer,
            opsets=self.opsets,
            node_count=self._node_count,
            foreign_operators=tuple(foreign[:_KEPT]),
            external_tensors=tuple(self._external[:_KEPT]),
            inputs=tuple(tensor for tensor in self._inputs if tensor.name not in self._initializers),
            outputs=tuple(self._outputs),
            metadata=self._metadata,
            makers=self._makers,
            operators=frozenset(operator for _, operator in self._operators),
        )

    def model(self) -> None:
        for field in self._fields(0, len(self._data)):
            if field.number not in _MODEL_FIELDS and not self.looks_like_onnx:
                raise protobuf.Malformed(f"a model has no field {field.number}")
            if field.number == 1 and field.wire_type == protobuf.VARINT:
                self._ir_version = protobuf.signed(field.value)
                self.looks_like_onnx = 0 < self._ir_version < 1000
            elif field.wire_type != protobuf.BYTES:
                continue
            elif field.number == 2:
                self._producer = protobuf.text(self._data, field)
            elif field.number == 7:
                self.has_graph = True
                self._graphs(field, top=True)
            elif field.number == 8:
                self._opset(field)
            elif field.number == 14 and len(self._metadata) < _KEPT:
                self._note_metadata(field)
            elif field.number == 25:
                self._function(field)

    def _fields(self, start: int, end: int) -> Iterator[Field]:
        return protobuf.fields(self._data, start, end, self._budget)

    def _messages(self, field: Field) -> Iterator[Field]:
        """The inner fields that carry bytes."""
        return (inner for inner in self._fields(field.start, field.end) if inner.wire_type == protobuf.BYTES)

    def _note_metadata(self, field: Field) -> None:
        parts = {1: "", 2: ""}
        for part in self._messages(field):
            parts[part.number] = protobuf.text(self._data, part, 500 if part.number == 1 else self._metadata_left)
        self._metadata_left -= len(parts[2])
        self._metadata[parts[1]] = parts[2]

    def _opset(self, field: Field) -> None:
        domain, version = "", 0
        for inner in self._fields(field.start, field.end):
            if inner.number == 1 and inner.wire_type == protobuf.BYTES:
                domain = protobuf.text(self._data, inner)
            elif inner.number == 2:
                version = protobuf.signed(inner.value)
        self.opsets[domain] = version
        if len(self.opsets) > _KEPT:
            raise protobuf.Malformed("it names more operator sets than any model needs")

    def _function(self, field: Field) -> None:
        name = domain = ""
        for inner in self._messages(field):
            if inner.number == 1:
                name = protobuf.text(self._data, inner)
            elif inner.number == 10:
                domain = protobuf.text(self._data, inner)
            elif inner.number == 7:
                self._nodes([(inner, 1)])
        self._functions.add((domain, name))

    def _graphs(self, graph: Field, *, top: bool) -> None:
        pending = [(graph, 1, top)]
        while pending:
            field, depth, is_top = pending.pop()
            if depth > MAX_DEPTH:
                raise protobuf.Malformed(f"graphs lie more than {MAX_DEPTH} deep in each other")
            for inner in self._messages(field):
                self._refuse_crowd()
                if inner.number == 1:
                    pending.extend((found, depth + 1, False) for found in self._node(inner, is_top=is_top))
                elif inner.number == 5:
                    self._tensor(inner, is_initializer=is_top)
                elif inner.number == 15:
                    self._sparse(inner)
                elif inner.number == 11 and is_top:
                    self._inputs.append(self._tensor_info(inner))
                elif inner.number == 12 and is_top:
                    self._outputs.append(self._tensor_info(inner))

    def _refuse_crowd(self) -> None:
        if len(self._inputs) + len(self._outputs) + len(self._initializers) + len(self._makers) > MAX_NAMED:
            raise protobuf.Malformed("its graph has more parts than any model needs")

    def _nodes(self, nodes: list[tuple[Field, int]]) -> None:
        for node, _ in nodes:
            for graph in self._node(node, is_top=False):
                self._graphs(graph, top=False)

    def _node(self, node: Field, *, is_top: bool) -> list[Field]:
        """Note a node's operator; return the graphs among its attributes."""
        operator = domain = ""
        first_input: str | None = None
        outputs: list[str] = []
        graphs: list[Field] = []
        for inner in self._messages(node):
            if inner.number == 1 and first_input is None:
                first_input = protobuf.text(self._data, inner)
            elif inner.number == 2 and len(outputs) < _KEPT:
                outputs.append(protobuf.text(self._data, inner))
            elif inner.number == 4:
                operator = protobuf.text(self._data, inner)
            elif inner.number == 7:
                domain = protobuf.text(self._data, inner)
            elif inner.number == 5:
                for attribute in self._messages(inner):
                    if attribute.number in (6, 11):
                        graphs.append(attribute)
                    elif attribute.number in (5, 10):
                        self._tensor(attribute, is_initializer=False)
                    elif attribute.number in (22, 23):
                        self._sparse(attribute)
        self._node_count += 1
        if is_top:
            self._makers |= dict.fromkeys(outputs, (operator, first_input or ""))
        self._operators.add((domain, operator))
        return graphs

    def _sparse(self, field: Field) -> None:
        for inner in self._messages(field):
            if inner.number in (1, 2):
                self._tensor(inner, is_initializer=False)

    def _tensor(self, field: Field, *, is_initializer: bool) -> None:
        name, path, external = "", "", False
        for inner in self._fields(field.start, field.end):
            if inner.number == 8 and inner.wire_type == protobuf.BYTES:
                name = protobuf.text(self._data, inner)
            elif inner.number == 13 and inner.wire_type == protobuf.BYTES:
                external = True
                parts = {part.number: protobuf.text(self._data, part, 200) for part in self._messages(inner)}
                path = parts.get(2, "") if parts.get(1) == "location" else path
            elif inner.number in (13, 14) and (inner.number == 13 or inner.value != 0):
                external = True
        if is_initializer:
            self._initializers.add(name)
        if external and len(self._external) < _KEPT:
            self._external.append(f"{name or 'unnamed'} in {path!r}" if path else name or "unnamed")

    def _tensor_info(self, field: Field) -> TensorInfo:
        name, element = "", 0
        shape: list[int | str | None] = []
        for inner in self._messages(field):
            if inner.number == 1:
                name = protobuf.text(self._data, inner)
            elif inner.number == 2:
                for kind in self._messages(inner):
                    for part in self._fields(kind.start, kind.end) if kind.number == 1 else ():
                        if part.number == 1:
                            element = part.value
                        elif part.number == 2 and part.wire_type == protobuf.BYTES:
                            shape = [self._size(axis) for axis in self._messages(part)]
        return TensorInfo(name=name, element=_ELEMENTS.get(element, f"type {element}"), shape=tuple(shape))

    def _size(self, axis: Field) -> int | str | None:
        for inner in self._fields(axis.start, axis.end):
            if inner.number == 1 and inner.wire_type == protobuf.VARINT:
                return protobuf.signed(inner.value)
            if inner.number == 2 and inner.wire_type == protobuf.BYTES:
                return protobuf.text(self._data, inner, 100)
        return None
