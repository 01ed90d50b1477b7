"""Writes the audit; every act that changes something calls `record` in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session

from fleet.audit.tables import AuditEntry
from wire import codec


def record(
    session: Session, *, actor: str, action: str, subject: str, at: datetime, detail: Mapping[str, Any] | None = None
) -> None:
    """Add an entry.

    Args:
        actor: `Actor.label`.
        action: dotted, past tense: `device.enrolled`.
        subject: what it was done to.
        detail: values that JSON can hold; never a secret.
    """
    session.add(
        AuditEntry(
            at=at, actor=actor, action=action, subject=subject, detail=codec.canonical(dict(detail or {})).decode()
        )
    )
