"""The one strict decoder: JSON bytes to frozen values and back; what does not fit is refused with the place."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final, TypeVar

import msgspec

from wire.errors import LinesideError

T = TypeVar("T")
_encoder: Final = msgspec.json.Encoder()
_decoders: Final[dict[type, msgspec.json.Decoder[Any]]] = {}  # one per class: making one costs more than using it
_ZLIB_FIRST_BYTE: Final = b"\x78"
MAX_INFLATED_BYTES: Final = 4 * 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder


def encode(value: object) -> bytes:
    """Return a value as JSON bytes, without spaces, fields in the order of their class."""
    return _encoder.encode(value)


def decode(payload: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Return the value that JSON bytes hold; unknown fields are ignored, nothing is converted or guessed.

    Args:
        payload: JSON, plain or zlib-compressed.
        kind: the class of the value.

    Raises:
        LinesideError: `message.undecodable`, naming the place in the message.
    """
    # A `Raw` is part of a message that was inflated already; it is read where it lies, without a copy.
    data = _inflate(payload) if isinstance(payload, bytes) and payload[:1] == _ZLIB_FIRST_BYTE else payload
    try:
        value: T = (_decoders.get(kind) or _decoder(kind)).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LinesideError("message.undecodable", f"{kind.__name__} cannot be read: {error}.") from error
    return value


def plain_bytes(payload: bytes) -> int:
    """Return how many bytes a payload has when it is not compressed, without ever holding them all.

    What is damaged, or goes over `MAX_INFLATED_BYTES`, counts as far as it could be read.
    """
    if payload[:1] != _ZLIB_FIRST_BYTE:
        return len(payload)
    inflater, total, rest = zlib.decompressobj(), 0, payload
    try:
        while rest and total < MAX_INFLATED_BYTES:
            total += len(inflater.decompress(rest, _PIECE_BYTES))
            rest = inflater.unconsumed_tail
    except zlib.error:
        pass
    return max(total, len(payload))


def canonical(value: object) -> bytes:
    """Return the one form of a value that digests are made of: sorted keys, no spaces, ASCII."""
    plain = msgspec.to_builtins(value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise LinesideError("message.undecodable", f"Compressed message cannot be read: {error}.") from error
    if inflater.unconsumed_tail or not inflater.eof:
        raise LinesideError("message.too_large", f"Compressed message is cut short or over {MAX_INFLATED_BYTES} bytes.")
    return plain
