"""The audit's table: rows are added and never changed, which triggers of the database itself see to."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, SQLModel

from fleet.db import UtcTime


class AuditEntry(SQLModel, table=True):
    """One act. `detail` is JSON."""

    __tablename__ = "audit_entry"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UtcTime)
    actor: str = Field(max_length=100)
    action: str = Field(max_length=64)
    subject: str = Field(max_length=200, index=True)
    detail: str = "{}"
