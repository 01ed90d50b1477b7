"""What people ask of inspections: lists, one record, exact counts and the latest pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, text, tuple_
from sqlmodel import Session, col, select

from fleet.inspections import moments
from fleet.inspections.absorb import CounterSlice, InspectionSlice
from fleet.inspections.tables import CounterCell, InspectionRow
from wire import codec
from wire.inspection import Inspection, Verdict, ViewRecord

__all__ = ["CounterSlice", "InspectionSlice"]  # ingest finds both halves of the slice here
_LOOKED_AT_FOR_PICTURES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which inspections are asked for; None leaves a field out.

    Args:
        model_digest: of the first view's model.
        clock_suspect: whether the record's times are doubtful; a period then says little.
        since: triggered at this moment or later, by the device's clock.
        until: triggered before this moment.
    """

    device: str | None = None
    station: str | None = None
    verdict: str | None = None
    model_digest: str | None = None
    mode: str | None = None
    part_id: str | None = None
    lot: str | None = None
    recipe: str | None = None
    trigger_id: str | None = None
    clock_suspect: bool | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One exact count of one minute, summed over the epochs of its device's outbox."""

    device: str
    minute: datetime
    station: str
    recipe: str
    model_digest: str | None
    verdict: str
    stratum: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A view of an inspection whose picture is here."""

    inspection: Inspection
    view: ViewRecord
    digest: str


def page(
    session: Session, wanted: Filter, *, limit: int, before: str | None = None
) -> tuple[list[InspectionRow], str | None]:
    """Return inspections, the newest id first; ids are UUIDv7, so that is the order in which they were made.

    Args:
        limit: how many at most.
        before: an inspection's id: only older ones.

    Returns:
        The rows, and `before` of the next page or None.
    """
    statement = select(InspectionRow).order_by(col(InspectionRow.id).desc()).limit(limit + 1)
    equal = {
        InspectionRow.device: wanted.device,
        InspectionRow.station: wanted.station,
        InspectionRow.verdict: wanted.verdict,
        InspectionRow.model_digest: wanted.model_digest,
        InspectionRow.mode: wanted.mode,
        InspectionRow.part_id: wanted.part_id,
        InspectionRow.lot: wanted.lot,
        InspectionRow.recipe: wanted.recipe,
        InspectionRow.trigger_id: wanted.trigger_id,
    }
    for column, value in equal.items():
        if value is not None:
            statement = statement.where(column == value)
    if wanted.verdict not in (None, Verdict.OK):
        statement = statement.where(text("verdict != 'OK'"))  # literally what the partial index says: SQLite asks so
    if wanted.clock_suspect is not None:
        statement = statement.where(text(f"clock_suspect = {int(wanted.clock_suspect)}"))  # for the same reason
    if wanted.since is not None:
        statement = statement.where(col(InspectionRow.triggered_at_us) >= moments.to_us(wanted.since))
    if wanted.until is not None:
        statement = statement.where(col(InspectionRow.triggered_at_us) < moments.to_us(wanted.until))
    if before is not None:
        statement = statement.where(col(InspectionRow.id) < moments.id_bytes(before))
    rows = list(session.exec(statement))
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], moments.id_text(rows[limit - 1].id)


def one(session: Session, inspection_id: str) -> InspectionRow | None:
    """Return one inspection, None where there is none with this id."""
    wanted = select(InspectionRow).where(InspectionRow.id == moments.id_bytes(inspection_id))
    return session.exec(wanted).first()


def counts(
    session: Session,
    *,
    device: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int,
    after: Sequence[str | int] | None = None,
) -> tuple[list[Cell], list[str | int] | None]:
    """Return exact counts, the oldest minute first.

    Args:
        since: minutes that begin at this moment or later.
        until: minutes that begin before this moment.
        after: key of the last cell of the page before.

    Returns:
        The cells, and `after` of the next page or None.
    """
    keys: list[Any] = [
        col(CounterCell.minute_us),
        col(CounterCell.device),
        col(CounterCell.station),
        col(CounterCell.recipe),
        col(CounterCell.model_digest),
        col(CounterCell.verdict),
        col(CounterCell.stratum),
    ]
    statement: Any = select(*keys, func.sum(CounterCell.count)).group_by(*keys).order_by(*keys).limit(limit + 1)  # type: ignore[call-overload]
    if device is not None:
        statement = statement.where(CounterCell.device == device)
    if since is not None:
        statement = statement.where(col(CounterCell.minute_us) >= moments.to_us(since))
    if until is not None:
        statement = statement.where(col(CounterCell.minute_us) < moments.to_us(until))
    if after is not None:
        statement = statement.where(tuple_(*keys) > tuple(after))
    rows = [tuple(row) for row in session.exec(statement)]
    cells = [
        Cell(
            minute=moments.from_us(minute_us),
            device=name,
            station=station,
            recipe=recipe,
            model_digest=digest or None,
            verdict=verdict,
            stratum=stratum,
            count=int(count),
        )
        for minute_us, name, station, recipe, digest, verdict, stratum, count in rows[:limit]
    ]
    return cells, list(rows[limit - 1][:-1]) if len(rows) > limit else None


def verdicts_per_minute(session: Session, since: datetime) -> dict[str, dict[int, dict[str, int]]]:
    """Return exact counts by device, minute (microseconds since 1970) and verdict, of minutes from `since` on."""
    minute, total = col(CounterCell.minute_us), func.sum(CounterCell.count)
    statement: Any = (
        select(CounterCell.device, minute, CounterCell.verdict, total)
        .where(minute >= moments.to_us(since))
        .group_by(CounterCell.device, minute, CounterCell.verdict)
    )
    found: dict[str, dict[int, dict[str, int]]] = {}
    for device, minute_us, verdict, count in session.exec(statement):
        found.setdefault(device, {}).setdefault(minute_us, {})[verdict] = int(count)
    return found


def latest_pictures(session: Session, is_present: Callable[[str], bool], limit: int) -> list[Picture]:
    """Return the newest views whose picture was kept and has arrived, one for each inspection.

    Args:
        is_present: tells whether the blob with a digest is here.
    """
    statement = (
        select(InspectionRow)
        .where(col(InspectionRow.picture_digest).is_not(None))
        .order_by(col(InspectionRow.id).desc())
        .limit(_LOOKED_AT_FOR_PICTURES)
    )
    pictures: list[Picture] = []
    for row in session.exec(statement):
        if len(pictures) == limit:
            break
        inspection = codec.decode(row.record.encode(), Inspection)
        for view in inspection.views:
            if view.picture_digest is not None and is_present(view.picture_digest):
                pictures.append(Picture(inspection=inspection, view=view, digest=view.picture_digest))
                break
    return pictures
