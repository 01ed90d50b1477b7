"""The quarantine, the devices' outboxes and ingest's own counters over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from sqlmodel import col, select

from fleet import db
from fleet.auth.guard import Operator, Viewer
from fleet.devices import service as devices
from fleet.devices.tables import Device
from fleet.ingest import exports, outboxes, seams
from fleet.ingest.route import HELD, UNKNOWN_DEVICE
from fleet.ingest.tables import IngestWorkerRow, QuarantineRow
from fleet.ingest.worker import Ingest
from fleet.inspections import moments
from fleet.web import MAX_LIMIT, Page, Paged, Reading, TheFleet, chunks_of, fetch_page
from wire.errors import LinesideError

router = APIRouter(tags=["ingest"])
ALIVE_WITHIN_US: Final = 30_000_000
MAX_EXPORTS: Final = 2  # at once; each holds a thread while its file comes
_exports: Final = threading.BoundedSemaphore(MAX_EXPORTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineView:
    """Neighbouring records refused for one reason, or a message that cannot be read.

    Args:
        held: the device keeps the records, and sends them again until the fleet knows it or is repaired; otherwise
            they are settled as refused, and this row is all that is left of them.
        times: how often the same has come.
        excerpt: the first bytes of the first record, what is not UTF-8 replaced; `payload_bytes` is its full length.
    """

    id: int
    device: str | None
    topic: str
    epoch: str | None
    lane: str | None
    first_seq: int | None
    last_seq: int | None
    code: str
    held: bool
    text: str
    times: int
    received_at: datetime
    last_at: datetime
    payload_bytes: int
    excerpt: str


@router.get("/quarantine")
def list_quarantine(
    _actor: Viewer,
    session: Reading,
    page: Paged,
    device: Annotated[str | None, Query(max_length=64)] = None,
    code: Annotated[str | None, Query(max_length=64)] = None,
) -> Page[QuarantineView]:
    """List what ingest would not take, the newest first."""
    statement = select(QuarantineRow)
    if device is not None:
        statement = statement.where(QuarantineRow.device == device)
    if code is not None:
        statement = statement.where(QuarantineRow.code == code)
    rows, cursor = fetch_page(session, statement, [col(QuarantineRow.row)], page, newest_first=True)
    names = {row.device for row in rows if row.device is not None and row.code == UNKNOWN_DEVICE}
    known = set(session.exec(select(Device.id).where(col(Device.id).in_(names)))) if names else set()
    return Page(items=[_view_of(row, known) for row in rows], next_cursor=cursor)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One ingest worker, by its last sign of life.

    Args:
        share: its part of the devices: `2/4` is the second of four.
        alive: it was seen within the last half minute and has not ended.
        status: what it has done since it started.
    """

    share: str
    host: str
    pid: int
    started_at: datetime
    seen_at: datetime
    alive: bool
    status: dict[str, Any]


@router.get("/ingest")
def show_ingest(_actor: Viewer, fleet: TheFleet, session: Reading) -> dict[str, Any]:
    """Show whether ingest works and what it has done since it started.

    `running` and the figures beside it are those of this process, false where ingest runs elsewhere; `workers` are all
    that told the database of themselves within a day.
    """
    own = fleet.announcer.status() if isinstance(fleet.announcer, Ingest) else {"running": False}
    now_us = moments.to_us(fleet.now())
    rows = session.exec(select(IngestWorkerRow).order_by(col(IngestWorkerRow.share)).limit(MAX_LIMIT))
    return {**own, "workers": [_worker(row, now_us) for row in rows]}


@router.get("/outboxes")
def list_outboxes(
    _actor: Viewer, session: Reading, page: Paged, device: Annotated[str | None, Query(max_length=64)] = None
) -> Page[outboxes.OutboxView]:
    """List the outboxes of all devices that are not revoked, by device."""
    statement = select(Device).where(col(Device.revoked_at).is_(None))
    if device is not None:
        statement = statement.where(Device.id == device)
    rows, cursor = fetch_page(session, statement, [col(Device.id)], page)
    return Page(items=outboxes.of(session, [row.id for row in rows]), next_cursor=cursor)


@router.post(
    "/devices/{device}/exports",
    openapi_extra={"requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {}}}}},
)
def absorb_export(actor: Operator, request: Request, fleet: TheFleet, device: str) -> exports.Summary:
    """Take a file that `lineside export` wrote on a device, as if its batches had come over MQTT.

    What the fleet has already changes nothing; what it would not take is in quarantine. Each batch is a transaction of
    its own, so that sending a file again goes on where it broke off.
    """
    with db.read_session(fleet.engine) as session:
        exports.require(devices.require(session, device))
    if not _exports.acquire(blocking=False):
        raise LinesideError("request.too_many", f"{MAX_EXPORTS} exports are being taken already.", "Wait for one.")
    try:
        return exports.absorb(
            fleet.engine, device, chunks_of(request), seams=seams.of_the_fleet(), by=actor, now=fleet.now
        )
    finally:
        _exports.release()


def _worker(row: IngestWorkerRow, now_us: int) -> WorkerView:
    return WorkerView(
        share=row.share,
        host=row.host,
        pid=row.pid,
        started_at=moments.from_us(row.started_at_us),
        seen_at=moments.from_us(row.seen_at_us),
        alive=not row.ended and now_us - row.seen_at_us < ALIVE_WITHIN_US,
        status=msgspec.json.decode(row.status),
    )


def _view_of(row: QuarantineRow, known: Collection[str]) -> QuarantineView:
    return QuarantineView(
        id=row.row or 0,
        device=row.device,
        topic=row.topic,
        epoch=row.epoch,
        lane=row.lane,
        first_seq=row.first_seq,
        last_seq=row.last_seq,
        code=row.code,
        held=row.code in HELD and row.device not in known,
        text=row.text,
        times=row.times,
        received_at=moments.from_us(row.received_at_us),
        last_at=moments.from_us(row.last_at_us),
        payload_bytes=row.payload_bytes,
        excerpt=row.excerpt.decode(errors="replace"),
    )
