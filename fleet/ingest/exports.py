"""Takes a file of batches that a device exported: the same way as what comes over MQTT, batch by batch.

The device keeps what it exported until it is acknowledged over MQTT, and sends it again then; every slice takes a
record once, so nothing is counted twice whichever comes first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from fleet import clock, db
from fleet.audit import service as audit
from fleet.auth.actor import Actor
from fleet.devices.tables import Device
from fleet.ingest import commit, isolate
from fleet.ingest.route import Routed, Standing, route, whole
from fleet.ingest.seams import Seams
from wire import codec, topics
from wire.errors import LinesideError
from wire.export import MAX_LINE_BYTES, ExportHead
from wire.messages import Batch

log = logging.getLogger(__name__)

MAX_EXPORT_BYTES: Final = 1024 * 1024 * 1024
MAX_UNREADABLE: Final = 1000  # lines of one file; each costs a transaction that others wait for
MAX_TROUBLE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class OfLane:
    """What became of one lane's records.

    Args:
        new: rows (or, of counters, figures) that were not here.
        known: the same had come before.
        refused: kept in quarantine.
        failed: a fault of the fleet kept them out; they are in quarantine, and the device still has them.
    """

    records: int = 0
    new: int = 0
    known: int = 0
    refused: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a file came to.

    Args:
        written_at: by the device's clock.
        expected: batches, by the file's head.
        batches: that were there.
        unreadable: lines that are no batch; the start of each is in quarantine.
        trouble: what is wrong with the file, and how many records the fleet failed to store; empty where nothing is.
            What stands in `lanes` was taken all the same.
    """

    device: str
    written_at: datetime
    agent_version: str
    expected: int
    batches: int
    unreadable: int
    lanes: dict[str, OfLane] = field(default_factory=dict)
    trouble: str = ""


def require(device: Device) -> None:
    """Refuse a device that may not send anything.

    Raises:
        LinesideError: `device.revoked`.
    """
    if device.revoked_at is not None:
        raise LinesideError(
            "device.revoked", f"The device {device.id!r} is revoked.", "Enrol it again with a new claim."
        )


def absorb(engine: Engine, device: str, chunks: Iterable[bytes], *, seams: Seams, by: Actor, now: clock.Now) -> Summary:
    """Take a file, each batch in a transaction of its own, and write into the audit what it came to, however it ends.

    Args:
        chunks: the file, in pieces of any length.

    Raises:
        LinesideError: `message.undecodable` where the first line is no head, `message.foreign_id` where the file is
            another device's; then nothing was taken.
    """
    lines = lines_of(chunks, MAX_LINE_BYTES)
    head = _head(lines, device)
    tally = _Tally()
    try:
        _take_all(engine, device, lines, tally, seams, now)
        tally.trouble = _trouble(tally, head)
    except Exception as error:
        tally.trouble = f"After {tally.batches} batches the fleet failed: {error!r}"[:MAX_TROUBLE]
        raise
    finally:
        summary = Summary(
            device=device,
            written_at=head.at,
            agent_version=head.agent_version,
            expected=head.batches,
            batches=tally.batches,
            unreadable=tally.unreadable,
            lanes=dict(sorted(tally.lanes.items())),
            trouble=tally.trouble,
        )
        _audit(engine, summary, by, now())  # also what was taken before a failure
    return summary


def _take_all(engine: Engine, device: str, lines: Iterator[bytes], tally: _Tally, seams: Seams, now: clock.Now) -> None:
    """Take line by line; what is wrong with a line ends it, and is told in the tally."""
    try:
        for line in lines:
            tally.add(_take(engine, device, line, seams, now()))
            if tally.unreadable >= MAX_UNREADABLE:
                tally.trouble = (
                    f"{tally.unreadable} lines cannot be read, and the rest was left: it is no export, or damaged. "
                    "What could be read before that was taken."
                )
                return
    except LinesideError as error:
        tally.trouble = f"After {tally.batches} batches: {error.message}"


def _trouble(tally: _Tally, head: ExportHead) -> str:
    """Return what is wrong with a file that was taken, or with how it was; both where both are."""
    of_file = tally.trouble
    held = tally.batches + tally.unreadable
    if not of_file and held != head.batches:
        spoiled = f", of which {tally.unreadable} cannot be read" if tally.unreadable else ""
        of_file = (
            f"The file names {head.batches} batches and holds {held}{spoiled}: it was cut short or changed. "
            "What could be read was taken."
        )
    if not of_file and tally.unreadable:
        of_file = f"{tally.unreadable} lines cannot be read; the quarantine has how they begin."
    failed = sum(lane.failed for lane in tally.lanes.values())
    records = "1 record" if failed == 1 else f"{failed} records"
    of_fleet = (
        f"{records} could not be stored for a fault of the fleet; its log and the quarantine say why. Keep the file, "
        "and bring it again when that is mended."
    )
    return " ".join(part for part in (of_file, of_fleet if failed else "") if part)


def lines_of(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Yield the lines of a file without their ends; never holds more than one line and one piece.

    Raises:
        LinesideError: `message.too_large` where a line is over `most` bytes.
    """
    rest = b""
    number = 1
    for chunk in chunks:
        *whole_lines, rest = (rest + chunk).split(b"\n")
        for line in [*whole_lines, *([rest] if len(rest) > most else [])]:
            if len(line) > most:
                raise LinesideError("message.too_large", f"Line {number} is over {most} bytes.", "Is it an export?")
            yield line
            number += 1
    if rest:
        yield rest


class _Tally:
    """Adds up what the batches came to."""

    def __init__(self) -> None:
        self.batches = 0
        self.unreadable = 0
        self.lanes: dict[str, OfLane] = {}
        self.trouble = ""

    def add(self, outcome: commit.Outcome) -> None:
        placed = [reject for reject in [*outcome.rejects, *outcome.failed] if reject.place is not None]
        if not placed and not outcome.accepted:
            self.unreadable += 1
            return
        self.batches += 1
        lane = outcome.accepted[0].lane if outcome.accepted else placed[0].place.lane  # type: ignore[union-attr]
        former = self.lanes.get(lane.value, OfLane())
        refused = sum(one.seqs.last - one.seqs.first + 1 for one in outcome.rejects if one.seqs is not None)
        accepted, failed = len(outcome.accepted), len(outcome.failed)
        self.lanes[lane.value] = OfLane(
            records=former.records + accepted + refused + failed,
            new=former.new + accepted - outcome.duplicates,
            known=former.known + outcome.duplicates,
            refused=former.refused + refused,
            failed=former.failed + failed,
        )


def _head(lines: Iterator[bytes], device: str) -> ExportHead:
    first = next(lines, b"")
    try:
        head = codec.decode(first, ExportHead)
    except LinesideError as error:
        raise LinesideError(
            "message.undecodable", f"This is no export of a device: {error.message}", "`lineside export` writes one."
        ) from error
    if head.device != device:
        raise LinesideError(
            "message.foreign_id", f"This is an export of {head.device!r}, not of {device!r}.", "Name that device."
        )
    return head


def _take(engine: Engine, device: str, line: bytes, seams: Seams, now: datetime) -> commit.Outcome:
    routed = _route(device, line, now)
    try:
        return commit.put(engine, seams, [routed], isolated=False, now=now)
    except Exception as error:
        if isolate.is_of_the_database(error):
            raise
        # One record that a slice cannot digest must not keep the others out.
        return commit.put(engine, seams, [routed], isolated=True, now=now)


def _route(device: str, line: bytes, now: datetime) -> Routed:
    try:
        lane = codec.decode(line, Batch).lane
    except LinesideError as error:
        return Routed(rejects=(whole(f"export/{device}", device, line, error),))
    return route(topics.path(lane.value, device), line, lambda _: Standing.KNOWN, now, carried=True)


def _audit(engine: Engine, summary: Summary, by: Actor, now: datetime) -> None:
    with db.write_session(engine) as session:
        audit.record(
            session,
            actor=by.label,
            action="export.absorbed",
            subject=summary.device,
            detail={
                "written_at": summary.written_at.isoformat(),
                "batches": summary.batches,
                "expected": summary.expected,
                "lanes": {lane: asdict(one) for lane, one in summary.lanes.items()},
                "trouble": summary.trouble,
            },
            at=now,
        )
    log.info(
        "%s: an export of %s brought %d batches.",
        by.label,
        summary.device,
        summary.batches,
        extra={"event": "export.absorbed", "device": summary.device},
    )
