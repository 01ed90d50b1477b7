"""MQTT 3.1.1 packets for load tools, where a client library would cost more than what is to be measured. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PUBLISH: Final = 0x30
DISCONNECT: Final = b"\xe0\x00"
_CLEAN: Final = 0x02
_WILL: Final = 0x04 | 0x08 | 0x20  # with QoS 1, retained


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet as it stands on the wire."""

    data: bytes
    body_at: int

    @property
    def kind(self) -> int:
        """The upper half of its first byte."""
        return self.data[0] & 0xF0

    @property
    def packet_id(self) -> int:
        """Of a PUBLISH that wants to be acknowledged; 0 of any other packet."""
        return self.message()[1] if self.kind == PUBLISH else 0

    def message(self) -> tuple[str, int, bytes]:
        """Return topic, packet id (0 for QoS 0) and payload of a PUBLISH."""
        (length,) = struct.unpack_from(">H", self.data, self.body_at)
        at = self.body_at + 2 + length
        topic = self.data[self.body_at + 2 : at].decode()
        if not self.data[0] & 0x06:
            return topic, 0, self.data[at:]
        return topic, int(struct.unpack_from(">H", self.data, at)[0]), self.data[at + 2 :]


def taken(data: bytearray) -> list[Packet]:
    """Take whole packets off the front."""
    found: list[Packet] = []
    at = 0
    while (framed := _frame(data, at)) is not None:
        body_at, end = framed
        found.append(Packet(bytes(data[at:end]), body_at - at))
        at = end
    del data[:at]
    return found


def connect(client_id: str, keepalive_s: int, *, will: tuple[str, bytes]) -> bytes:
    """Return a CONNECT of a clean session.

    Args:
        will: topic and payload.
    """
    head = text("MQTT") + bytes([4, _CLEAN | _WILL]) + struct.pack(">H", keepalive_s)
    topic, payload = will
    return framed(0x10, head + text(client_id) + text(topic) + struct.pack(">H", len(payload)) + payload)


def subscribe(packet_id: int, topics: Sequence[str]) -> bytes:
    """Return a SUBSCRIBE at QoS 1."""
    return framed(0x82, struct.pack(">H", packet_id) + b"".join(text(topic) + b"\x01" for topic in topics))


def publish(topic: str, payload: bytes, packet_id: int, *, retain: bool = False) -> bytes:
    """Return a PUBLISH at QoS 1."""
    return framed(0x32 | int(retain), text(topic) + struct.pack(">H", packet_id) + payload)


def puback(packet_id: int) -> bytes:
    """Return the acknowledgement of a PUBLISH."""
    return struct.pack(">BBH", 0x40, 2, packet_id)


def framed(kind: int, rest: bytes) -> bytes:
    """Return a packet of this first byte."""
    length, out = len(rest), bytearray([kind])
    while True:
        length, digit = divmod(length, 128)
        out.append(digit | (128 if length else 0))
        if not length:
            return bytes(out) + rest


def text(words: str) -> bytes:
    """Return a string with its length before it."""
    return struct.pack(">H", len(words.encode())) + words.encode()


def _frame(data: bytearray, at: int) -> tuple[int, int] | None:
    """Return where a packet's body begins and where it ends; None while it is not all there."""
    length, shift, place = 0, 0, at + 1
    while True:
        if place >= len(data):
            return None
        byte = data[place]
        length |= (byte & 127) << shift
        shift, place = shift + 7, place + 1
        if byte < 128:
            break
    return (place, place + length) if place + length <= len(data) else None
