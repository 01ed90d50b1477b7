"""Ends deployments that nothing is heard of. Each tick reads everything anew, so that it may run twice, or late."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet import clock, db
from fleet.audit import service as audit
from fleet.deployments import timeouts
from fleet.deployments.service import OPEN
from fleet.deployments.tables import Deployment
from fleet.deployments.timeouts import Limits, TimedOut, Waiting
from fleet.devices.tables import Device
from fleet.ingest import beat
from fleet.ingest.listening import Listening
from wire import codec
from wire.deployment import DeploymentState, Origin
from wire.messages import Reported

log = logging.getLogger(__name__)

EVERY_S: Final = 60.0
ACTOR: Final = "fleet:ticker"


class Ticker:
    """A thread that ticks now and then until it is stopped."""

    def __init__(
        self, engine: Engine, limits: Limits, *, now: clock.Now = clock.utc_now, every_s: float = EVERY_S
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._now = now
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deployments-ticker")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, within a tick."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                tick(self._engine, self._limits, self._now())
            except Exception:
                log.exception("Deployments could not be looked through.", extra={"event": "deployment.tick_failed"})


def tick(engine: Engine, limits: Limits, now: datetime) -> list[str]:
    """Give up what is over its time; returns the ids of the deployments that ended."""
    with db.read_session(engine) as session:
        if not _due(session, limits, now):
            return []  # the common case takes no turn from those who write
    ended: list[str] = []
    with db.write_session(engine) as session:
        session.connection()  # the lock is taken here: nothing changes between the reading and the end
        for row, reason in _due(session, limits, now):
            row.state, row.reason, row.code = DeploymentState.TIMED_OUT.value, reason[:1000], ""
            row.hold_reason, row.hold_until, row.hold_text = None, None, ""
            row.updated_at = row.ended_at = now
            session.add(row)
            audit.record(
                session,
                actor=ACTOR,
                action="deployment.timed_out",
                subject=row.device,
                detail={"deployment": row.id, "reason": reason},
                at=now,
            )
            ended.append(row.id)
            log.warning(
                "%s: the deployment %s of %s timed out. %s",
                row.device,
                row.id,
                row.model,
                reason,
                extra={"event": "deployment.timed_out", "device": row.device},
            )
    return ended


def waiting_of(row: Deployment, device: Device, *, listening: Listening | None, behind_local: bool) -> Waiting:
    """Return what `timeouts.judge` needs to know of an open deployment."""
    reported = codec.decode(device.reported.encode(), Reported) if device.reported is not None else None
    return Waiting(
        state=DeploymentState(row.state),
        created_at=row.created_at,
        heard_at=row.updated_at,
        hold_until=row.hold_until,
        last_seen_at=device.last_seen_at,
        online_since=device.state_at if device.online else None,
        listening=listening,
        behind_local=behind_local,
        read=reported is not None and row.revision is not None and reported.desired_revision >= row.revision,
    )


def _due(session: Session, limits: Limits, now: datetime) -> list[tuple[Deployment, str]]:
    rows: Sequence[tuple[Deployment, Device]] = session.exec(
        select(Deployment, Device)
        .join(Device, col(Device.id) == col(Deployment.device))
        .where(col(Deployment.state).in_(OPEN))
        .order_by(col(Deployment.id))
    ).all()
    local = {(row.device, row.model) for row, _ in rows if row.origin == Origin.DEVICE.value}
    heard = beat.heard(session, now)
    due: list[tuple[Deployment, str]] = []
    for row, device in rows:
        behind = row.origin == Origin.FLEET.value and (row.device, row.model) in local
        waiting = waiting_of(row, device, listening=heard.get(device.shard), behind_local=behind)
        found = timeouts.judge(waiting, limits, now)
        if isinstance(found, TimedOut):
            due.append((row, found.reason))
    return due
