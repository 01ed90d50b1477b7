"""What a bad broker or network does to MQTT packets, as filters of a `Proxy`: they know whole packets and no more."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from tests.support.proxy import Filter, Way

_PUBLISH: Final = 0x30
_PUBACK: Final = 0x40


@dataclass(frozen=True, slots=True)
class Packet:
    """One MQTT packet as it stands on the wire."""

    data: bytes
    body_at: int

    @property
    def kind(self) -> int:
        return self.data[0] & 0xF0

    @property
    def is_publish(self) -> bool:
        """Whether it is a PUBLISH of QoS 1."""
        return self.kind == _PUBLISH and self.data[0] & 0x06 == 0x02

    @property
    def topic(self) -> str:
        return self.data[self.body_at + 2 : self._topic_end].decode()

    @property
    def puback(self) -> bytes:
        """The acknowledgement of a PUBLISH, in a form that both versions of MQTT know."""
        return bytes([_PUBACK, 2]) + self.data[self._topic_end : self._topic_end + 2]

    @property
    def _topic_end(self) -> int:
        return self.body_at + 2 + int(struct.unpack_from(">H", self.data, self.body_at)[0])


class Spoiler(Protocol):
    """Decides on packets; `kept` is the memory of the packet's own connection and direction."""

    def spoil(self, way: Way, packet: Packet, kept: list[bytes], /) -> Iterable[tuple[Way, bytes]]: ...


def filter_of(spoiler: Spoiler) -> Filter:
    """Return the filter of one connection."""
    rest = {way: bytearray() for way in Way}
    kept: dict[Way, list[bytes]] = {way: [] for way in Way}

    def pass_on(way: Way, data: bytes) -> Iterable[tuple[Way, bytes]]:
        rest[way] += data
        for packet in _taken(rest[way]):
            yield from spoiler.spoil(way, packet, kept[way])

    return pass_on


@dataclass
class Shuffler:
    """Delivers messages twice, and later than those that came after them on their connection.

    Args:
        twice, late: chances, of each message.
    """

    rng: random.Random
    twice: float = 0.3
    late: float = 0.3
    doubled: int = 0
    overtaken: int = 0

    def spoil(self, way: Way, packet: Packet, kept: list[bytes]) -> Iterable[tuple[Way, bytes]]:
        """Keep a message back, or pass it on and sometimes some that were kept."""
        if not packet.is_publish:
            yield way, packet.data
            return
        if len(kept) < 8 and self.rng.random() < self.late:
            kept.append(packet.data)
            return
        yield way, packet.data
        if self.rng.random() < self.twice:
            self.doubled += 1
            yield way, packet.data
        self.rng.shuffle(kept)
        while kept and self.rng.random() < 0.5:
            self.overtaken += 1
            yield way, kept.pop()


@dataclass
class Forgetter:
    """A broker that acknowledges and forgets: the sender hears that all is well, and nobody else hears anything.

    Args:
        chance: of each message.
    """

    rng: random.Random
    chance: float = 0.4
    forgotten: int = 0

    def spoil(self, way: Way, packet: Packet, _kept: list[bytes]) -> Iterable[tuple[Way, bytes]]:
        """Acknowledge a message in the broker's place."""
        if packet.is_publish and way is Way.UP and self.rng.random() < self.chance:
            self.forgotten += 1
            yield way.back, packet.puback
        else:
            yield way, packet.data


def _taken(data: bytearray) -> list[Packet]:
    """Take whole packets off the front."""
    found: list[Packet] = []
    while True:
        length, shift, at = 0, 0, 1
        while True:
            if at >= len(data):
                return found
            byte = data[at]
            length |= (byte & 127) << shift
            shift, at = shift + 7, at + 1
            if byte < 128:
                break
        if at + length > len(data):
            return found
        found.append(Packet(data=bytes(data[: at + length]), body_at=at))
        del data[: at + length]
