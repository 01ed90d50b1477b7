"""Words a commit into range acks: one or more per device, epoch and lane, each within its topic's byte budget. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from fleet.absorb import Received
from fleet.ingest.route import Place, Reject, ranges_of
from wire.messages import RangeAck, Refusal, SeqRange

T = TypeVar("T")
# 500 ranges and 500 refusals of the longest numbers and codes stay under the 64 KiB of the topic.
PER_ACK: Final = 300


def of(accepted: Iterable[Received], rejects: Iterable[Reject]) -> list[tuple[str, RangeAck]]:
    """Return what to tell which device.

    Args:
        accepted: records that are rows now.
        rejects: refusals; those without a place in an outbox cannot be acknowledged, and those that are held must not
            be: both are passed over.
    """
    seqs: dict[Place, list[int]] = defaultdict(list)
    refusals: dict[Place, list[Refusal]] = defaultdict(list)
    places: dict[tuple[str, str, str], Place] = {}
    for record in accepted:
        key = (record.device, record.epoch, record.lane)
        place = places.get(key)
        if place is None:
            place = places[key] = Place(device=record.device, epoch=record.epoch, lane=record.lane)
        seqs[place].append(record.seq)
    for reject in rejects:
        if reject.place is not None and reject.seqs is not None and not reject.held:
            refusals[reject.place].append(Refusal(first=reject.seqs.first, last=reject.seqs.last, code=reject.code))
    said: list[tuple[str, RangeAck]] = []
    for place in [*seqs, *(place for place in refusals if place not in seqs)]:
        ranges = list(_parts(ranges_of(seqs.get(place, ()))))
        refused = list(_parts(tuple(refusals.get(place, ()))))
        parts = max(len(ranges), len(refused))
        said.extend((place.device, _ack(place, ranges, refused, index)) for index in range(parts))
    return said


def _ack(place: Place, ranges: list[tuple[SeqRange, ...]], refused: list[tuple[Refusal, ...]], index: int) -> RangeAck:
    return RangeAck(
        epoch=place.epoch,
        lane=place.lane,
        ranges=ranges[index] if index < len(ranges) else (),
        refused=refused[index] if index < len(refused) else (),
    )


def _parts(whole: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    for start in range(0, len(whole), PER_ACK):
        yield whole[start : start + PER_ACK]
