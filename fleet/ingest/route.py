"""Decides about one MQTT message: decoded records, a state, or the reasons to refuse. Pure: values to values.

Rules, in this order:

1. The topic is one of the table's, going up, and its shard is its device's.
2. The payload is within the topic's byte budget, and is a `Batch` (or a `State`) by the strict decoder.
3. The device it names is the device of its topic, and its lane is the topic's.
4. The device is known and not revoked. What comes from an unknown one is held: not taken, and not refused either.
5. Each record decodes on its own, so that a bad one harms no other; an inspection names the same device again.

Whatever has a readable place in an outbox (epoch, lane, sequence) is refused there, so that the device settles it
and does not send it for ever; the rest is only kept in quarantine. What is held keeps its place on the device, which
sends it again until the fleet knows it (docs/adr/0010-unknown-devices-are-held.md).
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from fleet.absorb import Received
from wire import codec, topics
from wire.errors import LinesideError
from wire.inspection import Inspection
from wire.messages import BODY_OF_LANE, Batch, Entry, Lane, SeqRange, State

EXCERPT_BYTES: Final = 4096
TEXT_CHARACTERS: Final = 500
MAX_SEQ: Final = 2**53
# Reasons that may pass without the device's doing: it keeps the records, and nobody acknowledges them.
UNKNOWN_DEVICE: Final = "message.unknown_device"
FAULT_OF_OURS: Final = "internal.unexpected"
HELD: Final = frozenset({UNKNOWN_DEVICE, FAULT_OF_OURS})


class Standing(enum.Enum):
    """What the fleet thinks of a device that a message names."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where records stand in a device's outbox."""

    device: str
    epoch: str
    lane: Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Neighbouring records refused for one reason, or a whole message (`place` and `seqs` are None).

    Args:
        device: of the topic; None where the topic is none of Lineside's.
        excerpt: the first bytes of the first record, or of the message.
        payload_bytes: length of what the excerpt is taken from.
    """

    topic: str
    device: str | None
    place: Place | None
    seqs: SeqRange | None
    code: str
    text: str
    excerpt: bytes
    payload_bytes: int

    @property
    def held(self) -> bool:
        """Whether the device keeps the records, as for `HELD` reasons it does."""
        return self.code in HELD


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """What one message comes to.

    Args:
        records: to be absorbed by the slice of their lane.
        state: birth, will or reported document.
        rejects: what goes to quarantine.
    """

    records: tuple[Received, ...] = ()
    state: State | None = None
    rejects: tuple[Reject, ...] = ()


# The same few topics come again and again; what is no topic is not remembered.
_parse: Final = functools.lru_cache(maxsize=8192)(topics.parse)


def device_of(topic: str) -> str | None:
    """Return the device a topic belongs to, None where it is none of Lineside's."""
    try:
        return _parse(topic).device
    except LinesideError:
        return None


def route(
    topic: str,
    payload: bytes,
    standing: Callable[[str], Standing],
    received_at: datetime,
    *,
    carried: bool = False,
) -> Routed:
    """Decide about one message.

    Args:
        topic: the full topic it came on.
        payload: as it came, plain or compressed.
        standing: tells whether a device is known.
        received_at: when it came, UTC.
        carried: a person brought it in a file.

    Returns:
        Records and rejects together cover every record of a readable batch.
    """
    try:
        address = _upward(topic)
    except LinesideError as error:
        return Routed(rejects=(whole(topic, None, payload, error),))
    if not payload:
        return Routed()  # how a retained message is deleted
    if address.topic.name == "state":
        return _state(topic, address, payload, standing)
    return _batch(topic, address, payload, standing, received_at, carried=carried)


def ranges_of(seqs: Iterable[int]) -> tuple[SeqRange, ...]:
    """Return sequence numbers as ranges, sorted, neighbours joined, each number once."""
    ranges: list[list[int]] = []
    for seq in sorted(set(seqs)):
        if ranges and ranges[-1][1] + 1 == seq:
            ranges[-1][1] = seq
        else:
            ranges.append([seq, seq])
    return tuple(SeqRange(first=first, last=last) for first, last in ranges)


def joined(rejects: Iterable[Reject]) -> tuple[Reject, ...]:
    """Join rejects of neighbouring sequence numbers with the same reason, so that a flood of bad records is one row."""
    kept: list[Reject] = []
    for reject in rejects:
        before = kept[-1] if kept else None
        if (
            before is not None
            and before.seqs is not None
            and reject.seqs is not None
            and (before.place, before.code, before.seqs.last + 1) == (reject.place, reject.code, reject.seqs.first)
        ):
            kept[-1] = replace(before, seqs=SeqRange(first=before.seqs.first, last=reject.seqs.last))
        else:
            kept.append(reject)
    return tuple(kept)


def whole(topic: str, device: str | None, payload: bytes, error: LinesideError) -> Reject:
    """Refuse a message of which no record can be named, so that nobody can be told."""
    return Reject(
        topic=topic[:TEXT_CHARACTERS],
        device=device,
        place=None,
        seqs=None,
        code=error.code,
        text=error.message[:TEXT_CHARACTERS],
        excerpt=payload[:EXCERPT_BYTES],
        payload_bytes=len(payload),
    )


def _state(topic: str, address: topics.Address, payload: bytes, standing: Callable[[str], Standing]) -> Routed:
    try:
        _check_size(address, payload)
        state = codec.decode(payload, State)
        _check_device(address, state.device)
        _check_standing(address.device, standing)
    except LinesideError as error:
        return Routed(rejects=(whole(topic, address.device, payload, error),))
    return Routed(state=state)


def _batch(
    topic: str,
    address: topics.Address,
    payload: bytes,
    standing: Callable[[str], Standing],
    received_at: datetime,
    *,
    carried: bool,
) -> Routed:
    try:
        batch = codec.decode(payload, Batch)
        _check_seqs(batch)
    except LinesideError as error:
        return Routed(rejects=(whole(topic, address.device, payload, error),))
    # The refusal goes to the device of the topic, which is the one that sent it.
    place = Place(device=address.device, epoch=batch.epoch, lane=batch.lane)
    try:
        _check_size(address, payload)
        _check_device(address, batch.device)
        _check_lane(address, batch)
        _check_standing(address.device, standing)
    except LinesideError as error:
        if error.code == UNKNOWN_DEVICE:
            return Routed(rejects=(_hold(topic, place, batch, error),))
        return Routed(rejects=joined(_refuse(topic, place, entry, error) for entry in batch.entries))
    kind = BODY_OF_LANE[batch.lane]
    names_device = kind is Inspection
    records: list[Received] = []
    rejects: list[Reject] = []
    for entry in batch.entries:
        try:
            body: Any = codec.decode(entry.body, kind)
            if names_device and body.device != address.device:
                _check_device(address, body.device)
        except LinesideError as error:
            rejects.append(_refuse(topic, place, entry, error))
            continue
        records.append(
            Received(
                device=address.device,
                epoch=batch.epoch,
                lane=batch.lane,
                seq=entry.seq,
                body=body,
                received_at=received_at,
                text=entry.body,
                carried=carried,
            )
        )
    return Routed(records=tuple(records), rejects=joined(rejects))


def _upward(topic: str) -> topics.Address:
    address = _parse(topic)
    if address.topic.direction is not topics.Direction.UP:
        raise LinesideError("message.undecodable", f"{topic!r} does not go up.")
    return address


def _check_seqs(batch: Batch) -> None:
    for entry in batch.entries:
        if entry.seq > MAX_SEQ:
            raise LinesideError("message.invalid_value", f"A sequence number is over {MAX_SEQ}.")


def _check_lane(address: topics.Address, batch: Batch) -> None:
    if batch.lane.value != address.topic.name:
        raise LinesideError("message.invalid_value", f"The lane {batch.lane} came on the topic of another.")


def _check_size(address: topics.Address, payload: bytes) -> None:
    if len(payload) > address.topic.max_bytes:
        raise LinesideError(
            "message.too_large",
            f"{len(payload)} bytes on {address.topic.name}, where {address.topic.max_bytes} are allowed.",
        )


def _check_device(address: topics.Address, device: str) -> None:
    if device != address.device:
        raise LinesideError("message.foreign_id", f"{address.device} sent something in the name of {device}.")


def _check_standing(device: str, standing: Callable[[str], Standing]) -> None:
    found = standing(device)
    if found is Standing.UNKNOWN:
        raise LinesideError(UNKNOWN_DEVICE, f"{device} is not enrolled; its records stay with it until it is.")
    if found is Standing.REVOKED:
        raise LinesideError("device.revoked", f"{device} is revoked.")


def _hold(topic: str, place: Place, batch: Batch, error: LinesideError) -> Reject:
    """Note a whole batch, from its lowest to its highest place."""
    seqs = [entry.seq for entry in batch.entries]
    return replace(_refuse(topic, place, batch.entries[0], error), seqs=SeqRange(first=min(seqs), last=max(seqs)))


def _refuse(topic: str, place: Place, entry: Entry, error: LinesideError) -> Reject:
    body = bytes(entry.body)
    return Reject(
        topic=topic,
        device=place.device,
        place=place,
        seqs=SeqRange(first=entry.seq, last=entry.seq),
        code=error.code,
        text=error.message[:TEXT_CHARACTERS],
        excerpt=body[:EXCERPT_BYTES],
        payload_bytes=len(body),
    )
