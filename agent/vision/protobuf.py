"""Reads the protobuf wire format of bytes nobody trusts: bounded, without recursion, without copying payloads.

Source: protobuf's encoding specification (varints, tags, wire types 0, 1, 2 and 5; groups are not allowed here).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class Malformed(Exception):  # noqa: N818 - says what the bytes are; LinesideError is for people
    """The bytes are no protobuf message."""


class CutShort(Malformed):
    """A field announces more bytes than there are."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: a number, or where its bytes lie.

    Args:
        value: of a varint; 0 for other wire types.
        start, end: of the payload, for wire type BYTES.
    """

    number: int
    wire_type: int
    value: int
    start: int
    end: int


class Budget:
    """How many more fields may be read; a small file can hold millions of empty ones."""

    def __init__(self, fields: int) -> None:
        self._left = fields

    def spend(self) -> None:
        """Count one field; raises `Malformed` when the budget is spent."""
        self._left -= 1
        if self._left < 0:
            raise Malformed("it has more fields than any model needs")


def fields(data: memoryview, start: int, end: int, budget: Budget) -> Iterator[Field]:
    """Yield the fields of the message that lies between `start` and `end`.

    Raises:
        CutShort: a field runs beyond `end`.
        Malformed: a tag or wire type that protobuf does not have, or the budget is spent.
    """
    position = start
    while position < end:
        budget.spend()
        tag, position = _varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or number >= 1 << 29:
            raise Malformed(f"field number {number} at byte {start}")
        if wire_type == VARINT:
            value, position = _varint(data, position, end)
            yield Field(number, wire_type, value, position, position)
            continue
        if wire_type == BYTES:
            length, position = _varint(data, position, end)
        elif wire_type in (FIXED64, FIXED32):
            length = 8 if wire_type == FIXED64 else 4
        else:
            raise Malformed(f"wire type {wire_type} at byte {position}")
        if length > end - position:
            raise CutShort(f"a field announces {length} bytes at byte {position}; {end - position} are left")
        yield Field(number, wire_type, 0, position, position + length)
        position += length


def text(data: memoryview, field: Field, max_bytes: int = 500) -> str:
    """Return a text field, cut after `max_bytes`, with what is not UTF-8 replaced."""
    return bytes(data[field.start : min(field.end, field.start + max_bytes)]).decode("utf-8", errors="replace")


def signed(value: int) -> int:
    """Return a varint as the 64-bit signed integer it stands for."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if position >= end:
            raise CutShort(f"a number is cut short at byte {position}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & ((1 << 64) - 1), position
    raise Malformed(f"a number of more than {_MAX_VARINT_BYTES} bytes at byte {position}")
