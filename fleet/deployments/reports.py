"""Takes the devices' reports on deployments.

A report older than one already taken changes nothing but is accepted: it must settle on the device, and the history
keeps it. A device that has forgotten what it told counts from 1 again, which `anew` recognizes. Only a report about
another device's deployment is refused, or one that contradicts itself.

A report about a deployment that is not in the database makes its row. Where the device says that a person beside it
asked (an import, a rollback), that is how the fleet learns of it. Where it says that the fleet asked, the fleet has
forgotten: an older database was restored, or the device was another fleet's. Refusing would lose the only account of
what was done there, and holding it would hold it for ever, so it is taken and says so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session, col, delete, select

from fleet import db
from fleet.absorb import Absorbed, Received, Refused
from fleet.deployments import anew, progress, running
from fleet.deployments.tables import Deployment, ReportEntry
from fleet.registry.tables import ModelVersion
from wire import codec
from wire.deployment import ENDS, FLEET_OWNED, DeploymentReport, DeploymentState, Origin

log = logging.getLogger(__name__)

REPORTS_KEPT: Final = 1000
MAX_SEQUENCE: Final = 2**53
FOUND_KEPT: Final = 500  # deployments of one device that the fleet learned of by a report
FORGOTTEN: Final = "unknown"  # who asked for a deployment that this database has no record of
INSTALLED: Final = frozenset({DeploymentState.SUCCEEDED, DeploymentState.ALREADY_INSTALLED})


class ReportSlice:
    """Takes the deployments lane."""

    def absorb(self, session: Session, messages: Sequence[Received]) -> Absorbed:
        """See `fleet.absorb.Slice`."""
        refused: list[Refused] = []
        duplicates = 0
        for message in messages:
            outcome = _absorb(session, message)
            if isinstance(outcome, Refused):
                refused.append(outcome)
            elif not outcome:
                duplicates += 1
        return Absorbed(accepted=len(messages) - len(refused), refused=tuple(refused), duplicates=duplicates)


def _absorb(session: Session, message: Received) -> Refused | bool:
    """Take one report; returns whether it is new, or why it is refused."""
    report: DeploymentReport = message.body
    row = session.get(Deployment, report.deployment_id)
    refusal = _refusal(row, report, message.device)
    if refusal is not None:
        return Refused(message=message, code=refusal[0], text=refusal[1])
    if row is None:
        row = _found(session, report, message)
    if anew.is_former(session, report):
        return False
    result = _keep(session, row, report, message.received_at)
    if result is None and anew.is_begun(session, report):
        log.warning(
            "%s does %s anew: it has forgotten what it told of it.",
            row.device,
            row.id,
            extra={"event": "deployment.begun_anew", "device": row.device},
        )
        anew.begin(session, row)
        result = _keep(session, row, report, message.received_at)
    if result is None:
        return False
    _apply(row, report, result, message.received_at)
    if report.state in INSTALLED:
        row.installed_at = running.believable(session, row.device, report.at, message.received_at)
    session.add(row)
    _prune_reports(session, row.id)
    if report.inferring_digest is not None:
        running.observe(
            session,
            device=row.device,
            model=row.model,
            digest=report.inferring_digest,
            at=report.at,
            received_at=message.received_at,
            deployment_id=row.id if report.inferring_digest == row.digest else None,
        )
    return True


def _refusal(row: Deployment | None, report: DeploymentReport, device: str) -> tuple[str, str] | None:
    if row is not None and row.device != device:
        return "message.foreign_id", f"{report.deployment_id} is no deployment of this device."
    if row is not None and (row.model, row.digest) != (report.model, report.digest):
        text = f"{row.id} is about {row.model} {row.digest}, not {report.model} {report.digest}."
        return "message.invalid_value", text
    if report.sequence > MAX_SEQUENCE:
        return "message.invalid_value", f"Sequence {report.sequence} is too high."
    if report.state in FLEET_OWNED:
        return "message.invalid_value", f"A device cannot report {report.state}."
    return None


def _found(session: Session, report: DeploymentReport, message: Received) -> Deployment:
    """Make the row of a deployment that the fleet learns of by this report."""
    local = report.origin is Origin.DEVICE
    version = session.get(ModelVersion, report.digest)
    # The device tells what its copy of the version says of itself, 0 where that cannot be read.
    known = version.release if version is not None and version.model == report.model else None
    row = Deployment(
        id=report.deployment_id,
        device=message.device,
        model=report.model,
        digest=report.digest,
        release=known if known is not None else report.release or None,
        origin=report.origin.value,
        by=report.by,
        state=report.state.value,
        created_at=running.believable(session, message.device, report.at, message.received_at),
        created_by=f"device: {report.by or 'unnamed'}"[:100] if local else FORGOTTEN,
        updated_at=message.received_at,
    )
    session.add(row)
    session.flush()
    if not local:
        log.warning(
            "%s reports on %s, which this database has no record of.",
            message.device,
            report.deployment_id,
            extra={"event": "deployment.unknown", "device": message.device},
        )
    _prune(session, row)
    return row


def _keep(
    session: Session, row: Deployment, report: DeploymentReport, received_at: datetime
) -> progress.Progress | None:
    """Keep a report; returns what it does to its deployment, None where its sequence was taken already."""
    result = progress.after(DeploymentState(row.state), row.sequence, report.state, report.sequence)
    assert result is not None  # noqa: S101 - `_refusal` has refused what a device cannot report
    entry: dict[str, Any] = {
        "deployment_id": row.id,
        "sequence": report.sequence,
        "state": report.state.value,
        "at": report.at,
        "received_at": received_at,
        "irregular": result.irregular,
        "body": codec.encode(report).decode(),
    }
    return result if db.insert_ignoring(session, ReportEntry, [entry]) else None


def _prune_reports(session: Session, deployment: str) -> None:
    """Keep the reports with the highest sequences; counted, since a device that lost its journal leaps ahead."""
    edge = session.exec(
        select(ReportEntry.sequence)
        .where(ReportEntry.deployment_id == deployment)
        .order_by(col(ReportEntry.sequence).desc())
        .offset(REPORTS_KEPT)
        .limit(1)
    ).first()
    if edge is not None:
        session.exec(
            delete(ReportEntry)
            .where(col(ReportEntry.deployment_id) == deployment)
            .where(col(ReportEntry.sequence) <= edge)
        )


def _prune(session: Session, found: Deployment) -> None:
    """Drop the oldest of the deployments that came by reports alone: nothing else bounds how many there are.

    Ended or not: of hundreds that a device has begun since, it has long ended the oldest, and its word on that is lost.
    The one just found stays, however old: the report in hand is about it.
    """
    old = session.exec(
        select(Deployment.id)
        .where(Deployment.device == found.device)
        .where(Deployment.id != found.id)
        .where((col(Deployment.origin) == Origin.DEVICE.value) | (col(Deployment.created_by) == FORGOTTEN))
        .order_by(col(Deployment.created_at).desc(), col(Deployment.id).desc())
        .offset(FOUND_KEPT - 1)
    ).all()
    if old:
        session.exec(delete(ReportEntry).where(col(ReportEntry.deployment_id).in_(old)))
        session.exec(delete(Deployment).where(col(Deployment.id).in_(old)))


def _apply(row: Deployment, report: DeploymentReport, result: progress.Progress, received_at: datetime) -> None:
    if result.irregular:
        row.irregular += 1
        log.warning(
            "Deployment %s: %s was reported in the state %s.",
            row.id,
            report.state,
            row.state,
            extra={"event": "deployment.irregular", "device": row.device},
        )
    if report.probation is not None and (result.moved or result.late):
        row.probation = codec.encode(report.probation).decode()
    if result.moved:
        stand(row, report, received_at)


def stand(row: Deployment, report: DeploymentReport, now: datetime) -> None:
    """Let a deployment stand where a report says."""
    row.state, row.sequence, row.attempt = report.state.value, report.sequence, report.attempt
    row.code, row.reason, row.updated_at = report.code, report.reason, now
    row.hold_reason = report.hold.reason.value if report.hold is not None else None
    row.hold_until = report.hold.deadline if report.hold is not None else None
    row.hold_text = report.hold.text if report.hold is not None else ""
    if report.state in ENDS:
        row.ended_at = row.ended_at or now
