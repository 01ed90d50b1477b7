"""Puts routed messages into the database, in one transaction; used by the worker and by the files that people bring."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session

from fleet import db
from fleet.absorb import Received, Slice
from fleet.ingest import isolate, quarantine
from fleet.ingest.route import (
    EXCERPT_BYTES,
    FAULT_OF_OURS,
    TEXT_CHARACTERS,
    Place,
    Reject,
    Routed,
    joined,
)
from fleet.ingest.seams import Seams
from wire import codec, topics
from wire.messages import Lane, SeqRange

log = logging.getLogger(__name__)
_FAILED: Final = "ingest.record_failed"


@dataclass(slots=True)
class Outcome:
    """What one transaction came to; `failed` are records that a fault of ours keeps out."""

    accepted: list[Received] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    duplicates: int = 0
    states: int = 0
    failed: list[Reject] = field(default_factory=list)


def put(engine: Engine, seams: Seams, routed: Sequence[Routed], *, isolated: bool, now: datetime) -> Outcome:
    """Let the slices absorb all records, keep the rejects in quarantine, and commit.

    Args:
        isolated: set each record apart by a savepoint, so that one that no slice can digest harms no other.

    Raises:
        Exception: whatever the database or, unless isolated, a slice raises; then nothing was written.
    """
    outcome = Outcome(rejects=[reject for one in routed for reject in one.rejects])
    with db.write_session(engine) as session:
        by_lane: dict[Lane, list[Received]] = {}
        for one in routed:
            if one.records:  # all of one message are of one lane
                by_lane.setdefault(one.records[0].lane, []).extend(one.records)
        for lane, taker in seams.lanes.items():
            records = by_lane.get(lane, [])
            for group in ([record] for record in records) if isolated else ([records] if records else []):
                _absorb(session, taker, group, outcome, isolated=isolated)
        for one in routed:
            if one.state is not None:
                with isolate.Fence(session, active=isolated) as fence:
                    seams.absorb_state(session, one.state, now)
                    outcome.states += 1
                if fence.error is not None:
                    log.error(
                        "A state of %s could not be stored.",
                        one.state.device,
                        exc_info=fence.error,
                        extra={"event": _FAILED},
                    )
        quarantine.keep(session, [*outcome.rejects, *outcome.failed], now)
    return outcome


def _absorb(session: Session, taker: Slice, records: Sequence[Received], outcome: Outcome, *, isolated: bool) -> None:
    with isolate.Fence(session, active=isolated) as fence:
        absorbed = taker.absorb(session, records)
        outcome.duplicates += absorbed.duplicates
        outcome.rejects += joined(_reject(one.message, one.code, one.text) for one in absorbed.refused)
        gone = {id(one.message) for one in absorbed.refused}
        outcome.accepted += [record for record in records if id(record) not in gone] if gone else records
    if fence.error is not None:
        outcome.failed += [_reject(one, FAULT_OF_OURS, repr(fence.error)) for one in records]
        log.error(
            "A record of %s could not be stored; it stays unacknowledged.",
            records[0].device,
            exc_info=fence.error,
            extra={"event": _FAILED},
        )


def _reject(message: Received, code: str, text: str) -> Reject:
    body = codec.encode(message.body)
    return Reject(
        topic=topics.path(message.lane.value, message.device),
        device=message.device,
        place=Place(device=message.device, epoch=message.epoch, lane=message.lane),
        seqs=SeqRange(first=message.seq, last=message.seq),
        code=code,
        text=text[:TEXT_CHARACTERS],
        excerpt=body[:EXCERPT_BYTES],
        payload_bytes=len(body),
    )
