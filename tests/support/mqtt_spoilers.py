"""What a bad broker or network does to MQTT packets, as filters of a `Proxy`: they know whole packets and no more."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from scripts import mqtt_packets
from scripts.mqtt_packets import Packet
from tests.support.proxy import Filter, Way


class Spoiler(Protocol):
    """Decides on packets; `kept` is the memory of the packet's own connection and direction."""

    def spoil(self, way: Way, packet: Packet, kept: list[bytes], /) -> Iterable[tuple[Way, bytes]]: ...


def filter_of(spoiler: Spoiler) -> Filter:
    """Return the filter of one connection."""
    rest = {way: bytearray() for way in Way}
    kept: dict[Way, list[bytes]] = {way: [] for way in Way}

    def pass_on(way: Way, data: bytes) -> Iterable[tuple[Way, bytes]]:
        rest[way] += data
        for packet in mqtt_packets.taken(rest[way]):
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
        if not packet.packet_id:
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
        if packet.packet_id and way is Way.UP and self.rng.random() < self.chance:
            self.forgotten += 1
            yield way.back, mqtt_packets.puback(packet.packet_id)
        else:
            yield way, packet.data
