"""The quarantine and ingest's own counters over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlmodel import col, select

from fleet.auth.guard import Viewer
from fleet.ingest.tables import QuarantineRow
from fleet.ingest.worker import Ingest
from fleet.inspections import moments
from fleet.web import Page, Paged, Reading, TheFleet, fetch_page

router = APIRouter(tags=["ingest"])


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineView:
    """Neighbouring records refused for one reason, or a message that cannot be read.

    Args:
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
    return Page(items=[_view_of(row) for row in rows], next_cursor=cursor)


@router.get("/ingest")
def show_ingest(_actor: Viewer, fleet: TheFleet) -> dict[str, Any]:
    """Show whether ingest works and what it has done since it started; `running` is false where it runs elsewhere."""
    return fleet.announcer.status() if isinstance(fleet.announcer, Ingest) else {"running": False}


def _view_of(row: QuarantineRow) -> QuarantineView:
    return QuarantineView(
        id=row.row or 0,
        device=row.device,
        topic=row.topic,
        epoch=row.epoch,
        lane=row.lane,
        first_seq=row.first_seq,
        last_seq=row.last_seq,
        code=row.code,
        text=row.text,
        times=row.times,
        received_at=moments.from_us(row.received_at_us),
        last_at=moments.from_us(row.last_at_us),
        payload_bytes=row.payload_bytes,
        excerpt=row.excerpt.decode(errors="replace"),
    )
