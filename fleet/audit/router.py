"""Reading the audit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from sqlmodel import col, select

from fleet.audit.tables import AuditEntry
from fleet.auth.guard import Admin
from fleet.web import Page, Paged, Reading, fetch_page

router = APIRouter(tags=["audit"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditView:
    """One act."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


@router.get("/audit")
def list_audit(
    _actor: Admin, session: Reading, page: Paged, subject: Annotated[str | None, Query(max_length=200)] = None
) -> Page[AuditView]:
    """List acts, the newest first."""
    statement = select(AuditEntry)
    if subject is not None:
        statement = statement.where(AuditEntry.subject == subject)
    rows, cursor = fetch_page(session, statement, [col(AuditEntry.id)], page, newest_first=True)
    return Page(items=[_view(row) for row in rows], next_cursor=cursor)


def _view(row: AuditEntry) -> AuditView:
    return AuditView(
        id=row.id or 0,
        at=row.at,
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        detail=msgspec.json.decode(row.detail),
    )
