"""Inspections and exact counts over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from pydantic import AwareDatetime

from fleet.auth.guard import Viewer
from fleet.inspections import explain, moments, service
from fleet.inspections.tables import InspectionRow
from fleet.registry import service as registry
from fleet.web import Page, Paged, Reading, TheFleet, url_pattern, write_cursor
from wire import codec, ids
from wire.errors import LinesideError
from wire.inspection import Inspection, Mode, Verdict

router = APIRouter(tags=["inspections"])
_Name = Annotated[str | None, Query(max_length=64)]
_Text = Annotated[str | None, Query(max_length=200)]
_Digest = Annotated[str | None, Query(pattern=url_pattern(ids.DIGEST_PATTERN))]


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionView:
    """One inspection in a list; the record itself has the rest.

    Args:
        model_digest: the version of the first view's model.
        picture_digest: of the first picture that was kept; it may still be on its way.
        received_at: when the fleet got it, by the server's clock; the other times are the device's.
        clock_suspect: the device doubted its clock, or its times cannot be right.
    """

    id: str
    device: str
    station: str
    recipe: str
    verdict: str
    score: float
    reason: str
    rule_fired: str
    mode: str
    part_id: str | None
    lot: str | None
    trigger_id: str
    trigger_sequence: int | None
    triggered_at: datetime
    judged_at: datetime
    received_at: datetime
    time_source: str
    clock_suspect: bool
    model_digest: str | None
    picture_digest: str | None
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionDetail:
    """One inspection with its whole record, its place in the device's outbox, and what stands behind its verdict.

    Args:
        record: `wire.inspection.Inspection`, with whatever a newer agent adds.
        why: pictures, rule, models, deployments and recipe, as far as the fleet knows them.
    """

    inspection: InspectionView
    epoch: str
    seq: int
    record: dict[str, Any]
    why: explain.Why


def _version(
    session: Reading,
    model_digest: _Digest = None,
    model: _Name = None,
    release: Annotated[int | None, Query(ge=0, le=2**53)] = None,
) -> str | None:
    """Return the digest of the version that is asked for, by digest, or by model and release together."""
    if model is None and release is None:
        return model_digest
    if model is None or release is None or model_digest is not None:
        raise LinesideError(
            "request.invalid", "A version is asked for by its digest, or by model and release.", "Name both, or digest."
        )
    return registry.version(session, model, release).digest


def _filter(
    model_digest: Annotated[str | None, Depends(_version)],
    device: _Name = None,
    station: _Name = None,
    verdict: Verdict | None = None,
    mode: Mode | None = None,
    part_id: _Text = None,
    lot: _Text = None,
    recipe: _Name = None,
    trigger_id: _Text = None,
    clock_suspect: bool | None = None,
    since: Annotated[AwareDatetime | None, Query(alias="from", description="Triggered then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(alias="to", description="Triggered before then.")] = None,
) -> service.Filter:
    return service.Filter(
        device=device,
        station=station,
        verdict=verdict,
        model_digest=model_digest,
        mode=mode,
        part_id=part_id,
        lot=lot,
        recipe=recipe,
        trigger_id=trigger_id,
        clock_suspect=clock_suspect,
        since=since,
        until=until,
    )


@router.get("/inspections")
def list_inspections(
    _actor: Viewer, session: Reading, page: Paged, wanted: Annotated[service.Filter, Depends(_filter)]
) -> Page[InspectionView]:
    """List inspections, the newest first."""
    before = None
    if page.after is not None:
        (before, *more) = page.after or (None,)
        if more or not _is_uuid(before):
            raise LinesideError("request.invalid", "The cursor is not one of this list.", "Begin without a cursor.")
    rows, following = service.page(session, wanted, limit=page.limit, before=None if before is None else str(before))
    return Page(
        items=[view_of(row) for row in rows], next_cursor=None if following is None else write_cursor([following])
    )


@router.get("/inspections/{inspection_id}")
def show_inspection(
    _actor: Viewer,
    fleet: TheFleet,
    session: Reading,
    inspection_id: Annotated[str, Path(pattern=url_pattern(ids.UUID_PATTERN))],
) -> InspectionDetail:
    """Show one inspection with its whole record, and why it came out as it did."""
    row = service.one(session, inspection_id) if _is_uuid(inspection_id) else None
    if row is None:
        raise LinesideError("resource.not_found", f"There is no inspection {inspection_id}.")
    inspection = codec.decode(row.record.encode(), Inspection)
    return InspectionDetail(
        inspection=view_of(row),
        epoch=row.epoch,
        seq=row.seq,
        record=_plain(row.record, inspection),
        why=explain.why(session, fleet.blobs, inspection),
    )


@router.get("/counters")
def list_counters(
    _actor: Viewer,
    session: Reading,
    page: Paged,
    device: _Name = None,
    since: Annotated[AwareDatetime | None, Query(alias="from", description="Minutes that begin then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(alias="to", description="Minutes that begin before then.")] = None,
) -> Page[service.Cell]:
    """List exact counts by minute, device, station, recipe, version, verdict and stratum, the oldest first."""
    if page.after is not None and [type(value) for value in page.after] != [int, *[str] * 6]:
        raise LinesideError("request.invalid", "The cursor is not one of this list.", "Begin without a cursor.")
    cells, following = service.counts(
        session, device=device, since=since, until=until, limit=page.limit, after=page.after
    )
    return Page(items=cells, next_cursor=None if following is None else write_cursor(following))


def view_of(row: InspectionRow) -> InspectionView:
    """Return an inspection as lists show it."""
    return InspectionView(
        id=moments.id_text(row.id),
        device=row.device,
        station=row.station,
        recipe=row.recipe,
        verdict=row.verdict,
        score=row.score,
        reason=row.reason,
        rule_fired=row.rule_fired,
        mode=row.mode,
        part_id=row.part_id,
        lot=row.lot,
        trigger_id=row.trigger_id,
        trigger_sequence=row.trigger_sequence,
        triggered_at=moments.from_us(row.triggered_at_us),
        judged_at=moments.from_us(row.judged_at_us),
        received_at=moments.from_us(row.received_at_us),
        time_source=row.time_source,
        clock_suspect=row.clock_suspect,
        model_digest=row.model_digest,
        picture_digest=row.picture_digest,
        kept=row.kept,
    )


def _plain(text: str, inspection: Inspection) -> dict[str, Any]:
    """Return a record as plain values: as the device wrote it, or, where nobody can read that, as we understood it."""
    try:
        found: dict[str, Any] = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):  # in a field the strict decoder passed over
        found = msgspec.to_builtins(inspection)
    return found


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and len(moments.id_bytes(value)) == moments.ID_BYTES
    except ValueError:
        return False
