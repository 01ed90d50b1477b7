"""The topic table: every MQTT topic with its direction, QoS, retain flag, message and byte budget."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from wire import ids
from wire.errors import LinesideError
from wire.messages import Batch, Command, HostState, Lane, RangeAck, State, Wake

ROOT: Final = "lineside/v1"


class Direction(enum.StrEnum):
    """Who publishes."""

    UP = "up"  # device to fleet
    DOWN = "down"  # fleet to device
    HOST = "host"  # fleet to all devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One row of the table.

    Args:
        name: last level of the topic.
        max_bytes: the largest payload either side sends or accepts.
    """

    name: str
    direction: Direction
    qos: int
    retain: bool
    message: type
    max_bytes: int
    purpose: str


_KIB = 1024
_LANE_TOPICS = {
    Lane.INSPECTIONS: (256 * _KIB, "Inspection records."),
    Lane.COUNTERS: (64 * _KIB, "Exact counts per minute, station, recipe, version, verdict and stratum."),
    Lane.DEPLOYMENTS: (16 * _KIB, "Reports on deployments."),
    Lane.EVENTS: (32 * _KIB, "Changes of state worth a person's look."),
    Lane.HEALTH: (32 * _KIB, "Health of the device, every 10 s."),
    Lane.SHADOW: (128 * _KIB, "Parts judged by a candidate beside the active version."),
}
TABLE: Final[dict[str, Topic]] = {
    topic.name: topic
    for topic in [
        *(
            Topic(
                name=lane.value,
                direction=Direction.UP,
                qos=1,
                retain=False,
                message=Batch,
                max_bytes=max_bytes,
                purpose=purpose,
            )
            for lane, (max_bytes, purpose) in _LANE_TOPICS.items()
        ),
        Topic(
            name="state",
            direction=Direction.UP,
            qos=1,
            retain=True,
            message=State,
            max_bytes=32 * _KIB,
            purpose="Birth, will and the reported document.",
        ),
        Topic(
            name="ack",
            direction=Direction.DOWN,
            qos=1,
            retain=False,
            message=RangeAck,
            max_bytes=64 * _KIB,
            purpose="Which records are committed; settles the outbox.",
        ),
        Topic(
            name="wake",
            direction=Direction.DOWN,
            qos=1,
            retain=False,
            message=Wake,
            max_bytes=_KIB,
            purpose="Hint to read the desired document now.",
        ),
        Topic(
            name="command",
            direction=Direction.DOWN,
            qos=1,
            retain=False,
            message=Command,
            max_bytes=4 * _KIB,
            purpose="Momentary act with an expiry.",
        ),
        Topic(
            name="host",
            direction=Direction.HOST,
            qos=1,
            retain=True,
            message=HostState,
            max_bytes=_KIB,
            purpose="Ingest has started anew.",
        ),
    ]
}
HOST: Final = f"{ROOT}/host"
ALL_UP: Final = f"{ROOT}/+/+/up/+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A device's topic, taken apart."""

    shard: str
    device: str
    topic: Topic


def path(name: str, device: str) -> str:
    """Return the full topic of a device's row of the table."""
    topic = TABLE[name]
    if topic.direction is Direction.HOST:
        return HOST
    return f"{ROOT}/{ids.shard_of(device)}/{device}/{topic.direction}/{name}"


def all_down(device: str) -> str:
    """Return the subscription to everything that goes down to a device."""
    return f"{ROOT}/{ids.shard_of(device)}/{device}/{Direction.DOWN}/+"


def parse(topic: str) -> Address:
    """Take a full topic apart.

    Raises:
        LinesideError: `message.undecodable` where the topic is none of the table's, or the shard is not the device's.
    """
    parts = topic.split("/")
    if len(parts) == 6 and "/".join(parts[:2]) == ROOT:
        shard, device, direction, name = parts[2:]
        row = TABLE.get(name)
        if row is not None and row.direction == direction and ids.is_name(device) and ids.shard_of(device) == shard:
            return Address(shard=shard, device=device, topic=row)
    raise LinesideError("message.undecodable", f"{topic!r} is not a topic of Lineside.")
