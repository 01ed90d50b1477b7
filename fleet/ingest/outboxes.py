"""The state of each device's outbox: what its newest health record tells, and what the fleet holds back of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import case, func
from sqlmodel import Session, col, select

from fleet.devices import retention
from fleet.devices.tables import DeviceHealth
from fleet.ingest.route import HELD
from fleet.ingest.tables import QuarantineRow


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxView:
    """A device's outbox; all that is told is None before the device's first health record.

    Args:
        told_at: by the device's clock.
        unsettled: records that are not acknowledged.
        dropped: records given up since the outbox was made, for want of room.
        pictures_waiting: kept, and not uploaded yet.
        pictures_dropped: hours in which pictures were given up, with the threshold that holds for each.
        held: rows of the quarantine whose records the device keeps.
        refused: rows of the quarantine whose records it let go.
    """

    device: str
    told_at: datetime | None
    received_at: datetime | None
    unsettled: int | None
    bytes: int | None
    dropped: int | None
    pictures_waiting: int | None
    pictures_dropped: list[dict[str, Any]]
    held: int
    refused: int


def of(session: Session, devices: Sequence[str]) -> list[OutboxView]:
    """Return the outboxes of devices, in their order."""
    kept = _quarantined(session, devices)
    newest = retention.newest_health(session, devices)
    return [_view(device, newest.get(device), *kept.get(device, (0, 0))) for device in devices]


def _quarantined(session: Session, devices: Sequence[str]) -> dict[str, tuple[int, int]]:
    held = func.sum(case((col(QuarantineRow.code).in_(sorted(HELD)), 1), else_=0))
    rows = session.exec(
        select(QuarantineRow.device, held, func.count())
        .where(col(QuarantineRow.device).in_(devices))
        .group_by(col(QuarantineRow.device))
    )
    return {str(device): (int(few), int(count) - int(few)) for device, few, count in rows}


def _view(device: str, row: DeviceHealth | None, held: int, refused: int) -> OutboxView:
    told: dict[str, Any] = msgspec.json.decode(row.body) if row is not None else {}
    return OutboxView(
        device=device,
        told_at=row.at if row is not None else None,
        received_at=row.received_at if row is not None else None,
        unsettled=told.get("outbox_unsettled"),
        bytes=told.get("outbox_bytes"),
        dropped=told.get("outbox_dropped"),
        pictures_waiting=told.get("pictures_waiting"),
        pictures_dropped=told.get("pictures_dropped", []),
        held=held,
        refused=refused,
    )
