"""Takes what devices say of themselves: state, health and events."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, update

from fleet import db
from fleet.absorb import Absorbed, Received
from fleet.audit import service as audit
from fleet.auth.actor import Actor
from fleet.deployments import running
from fleet.deployments import service as deployments
from fleet.devices import presence, retention
from fleet.devices.tables import Device, DeviceEvent, DeviceHealth
from wire import codec
from wire.errors import LinesideError
from wire.messages import State

log = logging.getLogger(__name__)

HEALTH_KEPT: Final = 8640  # a day of one every 10 s
EVENTS_KEPT: Final = 10_000


def require(session: Session, device: str) -> Device:
    """Return a device.

    Raises:
        LinesideError: `resource.not_found`.
    """
    row = session.get(Device, device)
    if row is None:
        raise LinesideError(
            "resource.not_found", f"There is no device {device!r}.", "See `lineside-fleet devices list`."
        )
    return row


def absorb_state(session: Session, state: State, now: datetime) -> bool:
    """Take a birth, a report or a will of a known device; False where it is no news or the device is unknown."""
    row = session.get(Device, state.device)
    if row is None:
        return False
    known = presence.Known(boot=row.boot, revision=row.state_revision, online=row.online)
    news = presence.after(known, state)
    if news is None:
        return False
    if news.online != row.online:
        word = "online" if news.online else "offline"
        log.info("%s is %s.", row.id, word, extra={"event": f"device.went_{word}", "device": row.id})
    if (news.online, news.boot) != (row.online, row.boot):
        row.state_at = now
    row.boot, row.state_revision, row.online = news.boot, news.revision, news.online
    if state.online:
        row.last_seen_at = now
    if state.reported is not None:
        row.reported = codec.encode(state.reported).decode()
        row.reported_at = now
        row.agent_version = state.reported.agent_version
        row.architecture = state.reported.architecture
        running.observe_state(session, device=row.id, models=state.reported.models, at=state.at or now, received_at=now)
    session.add(row)
    session.flush()
    return True


def revoke(session: Session, device: str, *, by: Actor, now: datetime) -> Device:
    """Take a device's access away and end its open deployments; done twice it changes nothing.

    Raises:
        LinesideError: `resource.not_found`.
    """
    row = require(session, device)
    if row.revoked_at is None:
        row.revoked_at = now
        row.online = False
        session.add(row)
        deployments.remove_open(session, device, now)
        audit.record(session, actor=by.label, action="device.revoked", subject=device, at=now)
    return row


class HealthSlice:
    """Takes the health lane."""

    def absorb(self, session: Session, messages: Sequence[Received]) -> Absorbed:
        """See `fleet.absorb.Slice`."""
        rows = [
            {
                "device": message.device,
                "epoch": message.epoch,
                "seq": message.seq,
                "at": message.body.at,
                "received_at": message.received_at,
                "body": codec.encode(message.body).decode(),
            }
            for message in retention.worth_keeping(session, DeviceHealth, messages, HEALTH_KEPT)
        ]
        new = db.insert_ignoring(session, DeviceHealth, rows)
        _seen(session, messages)
        retention.prune(session, DeviceHealth, messages, HEALTH_KEPT)
        return Absorbed(accepted=len(messages), duplicates=len(messages) - new)


class EventSlice:
    """Takes the events lane."""

    def absorb(self, session: Session, messages: Sequence[Received]) -> Absorbed:
        """See `fleet.absorb.Slice`."""
        rows = [
            {
                "device": message.device,
                "epoch": message.epoch,
                "seq": message.seq,
                "at": message.body.at,
                "received_at": message.received_at,
                "name": message.body.name,
                "severity": message.body.severity.value,
                "text": message.body.text,
            }
            for message in retention.worth_keeping(session, DeviceEvent, messages, EVENTS_KEPT)
        ]
        new = db.insert_ignoring(session, DeviceEvent, rows)
        _seen(session, messages)
        retention.prune(session, DeviceEvent, messages, EVENTS_KEPT)
        return Absorbed(accepted=len(messages), duplicates=len(messages) - new)


def _seen(session: Session, messages: Sequence[Received]) -> None:
    latest: dict[str, datetime] = {}
    for message in messages:
        if message.carried:
            continue
        latest[message.device] = max(message.received_at, latest.get(message.device, message.received_at))
    for device, at in latest.items():
        session.exec(
            update(Device)
            .where(col(Device.id) == device)
            .where(col(Device.last_seen_at).is_(None) | (col(Device.last_seen_at) < at))
            .values(last_seen_at=at)
        )
