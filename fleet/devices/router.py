"""Devices over HTTP: enrolment, lists, health, events, revocation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from sqlmodel import Session, col, select
from starlette.responses import Response

from fleet.auth.actor import Kind
from fleet.auth.guard import Admin, AnyActor, Viewer
from fleet.deployments import drift
from fleet.deployments.deviation import Deviation
from fleet.deployments.deviation import Kind as DeviationKind
from fleet.devices import enrolment, service
from fleet.devices.tables import Device, DeviceEvent, DeviceHealth
from fleet.web import Page, Paged, Reading, TheFleet, Writing, body_of, body_schema, fetch_page
from wire import codec
from wire.enrolment import Enrolment, EnrolmentRequest
from wire.errors import LinesideError
from wire.messages import Reported

router = APIRouter(tags=["devices"])


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """One device.

    Args:
        reported: its reported document (`wire.messages.Reported`), None before its first.
        drift: models whose running version is not the one the newest successful deployment put there.
        deviations: in words: drift, and models that run something else than is desired.
    """

    id: str
    shard: str
    online: bool
    revoked: bool
    enrolled_at: datetime
    last_seen_at: datetime | None
    agent_version: str
    architecture: str
    boot: int
    reported: dict[str, Any] | None
    reported_at: datetime | None
    drift: list[str]
    deviations: list[Deviation]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthView:
    """One health record; `health` is `wire.messages.Health`."""

    id: int
    received_at: datetime
    health: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """One event."""

    id: int
    at: datetime
    received_at: datetime
    name: str
    severity: str
    text: str


@router.post("/enrolments", status_code=HTTPStatus.CREATED, openapi_extra=body_schema(EnrolmentRequest))
def enrol(
    fleet: TheFleet,
    request: Annotated[EnrolmentRequest, Depends(body_of(EnrolmentRequest))],
    response: Response,
    session: Writing,
) -> Enrolment:
    """Exchange a claim token for the device's own credential, which is shown this once."""
    credential = enrolment.enrol(session, request, now=fleet.now())
    response.headers["Cache-Control"] = "no-store"
    return Enrolment(
        device=request.device,
        credential=credential,
        mqtt_host=fleet.settings.mqtt_advertised_host or fleet.settings.mqtt_host,
        mqtt_port=fleet.settings.mqtt_port,
    )


@router.get("/devices")
def list_devices(_actor: Viewer, session: Reading, page: Paged) -> Page[DeviceView]:
    """List devices by name."""
    rows, cursor = fetch_page(session, select(Device), [col(Device.id)], page)
    return Page(items=views_of(session, rows), next_cursor=cursor)


@router.get("/devices/{device}")
def show_device(actor: AnyActor, session: Reading, device: str) -> DeviceView:
    """Show one device; a device may see itself."""
    require_self_or_person(actor.kind, actor.name, device)
    return views_of(session, [service.require(session, device)])[0]


@router.post("/devices/{device}/revocation")
def revoke_device(actor: Admin, fleet: TheFleet, session: Writing, device: str) -> DeviceView:
    """Take a device's access away; a new claim gives it back."""
    row = service.revoke(session, device, by=actor, now=fleet.now())
    session.flush()
    return views_of(session, [row])[0]


@router.get("/devices/{device}/health")
def list_health(_actor: Viewer, session: Reading, page: Paged, device: str) -> Page[HealthView]:
    """List a device's health records, the newest first."""
    service.require(session, device)
    statement = select(DeviceHealth).where(DeviceHealth.device == device)
    rows, cursor = fetch_page(session, statement, [col(DeviceHealth.id)], page, newest_first=True)
    items = [HealthView(id=row.id, received_at=row.received_at, health=msgspec.json.decode(row.body)) for row in rows]
    return Page(items=items, next_cursor=cursor)


@router.get("/devices/{device}/events")
def list_events(_actor: Viewer, session: Reading, page: Paged, device: str) -> Page[EventView]:
    """List a device's events, the newest first."""
    service.require(session, device)
    statement = select(DeviceEvent).where(DeviceEvent.device == device)
    rows, cursor = fetch_page(session, statement, [col(DeviceEvent.id)], page, newest_first=True)
    items = [
        EventView(
            id=row.id,
            at=row.at,
            received_at=row.received_at,
            name=row.name,
            severity=row.severity,
            text=row.text,
        )
        for row in rows
    ]
    return Page(items=items, next_cursor=cursor)


def require_self_or_person(kind: Kind, name: str, device: str) -> None:
    """Refuse a device that asks for another device's papers.

    Raises:
        LinesideError: `access.forbidden`.
    """
    if kind is Kind.DEVICE and name != device:
        raise LinesideError("access.forbidden", f"{name!r} may not see {device!r}.", "A device sees only itself.")


def views_of(session: Session, rows: Sequence[Device]) -> list[DeviceView]:
    """Return devices as the API shows them."""
    reported = {row.id: codec.decode(row.reported.encode(), Reported) for row in rows if row.reported is not None}
    known = drift.known(session, [row.id for row in rows], reported)
    return [_view(row, drift.deviations(row.id, known, reported.get(row.id))) for row in rows]


def _view(row: Device, deviations: list[Deviation]) -> DeviceView:
    return DeviceView(
        id=row.id,
        shard=row.shard,
        online=row.online,
        revoked=row.revoked_at is not None,
        enrolled_at=row.enrolled_at,
        last_seen_at=row.last_seen_at,
        agent_version=row.agent_version,
        architecture=row.architecture,
        boot=row.boot,
        reported=msgspec.json.decode(row.reported) if row.reported is not None else None,
        reported_at=row.reported_at,
        drift=[one.model for one in deviations if one.kind is DeviationKind.DRIFT],
        deviations=deviations,
    )
