"""A device that does a deployment again because it has forgotten it: its disk is new, or an old copy was put back.

It counts its reports from 1 again, so that they look like ones already taken. They are told apart by their times: a
device makes a report again the same in every byte. The former reports are kept, with sequences below 0.
"""

from __future__ import annotations

from sqlmodel import Session, col, delete, select

from fleet import db
from fleet.deployments import progress
from fleet.deployments.tables import Deployment, ReportEntry
from wire import codec
from wire.deployment import DeploymentReport, DeploymentState


def is_former(session: Session, report: DeploymentReport) -> bool:
    """Tell whether a report was taken before the device began anew."""
    former = (
        select(ReportEntry.sequence)
        .where(ReportEntry.deployment_id == report.deployment_id)
        .where(col(ReportEntry.sequence) < 0)
        .where(ReportEntry.at == report.at)
        .where(ReportEntry.state == report.state.value)
    )
    return session.exec(former).first() is not None


def is_begun(session: Session, report: DeploymentReport) -> bool:
    """Tell whether a report whose sequence was taken already is a later word than the one that was taken."""
    taken = session.get(ReportEntry, (report.deployment_id, report.sequence))
    return taken is not None and report.at > codec.decode(taken.body.encode(), DeploymentReport).at


def begin(session: Session, row: Deployment) -> None:
    """Set the reports so far behind, and open the deployment again unless the fleet has ended it."""
    entries = session.exec(
        select(ReportEntry).where(ReportEntry.deployment_id == row.id).order_by(col(ReportEntry.sequence))
    ).all()
    former = [entry.model_dump() | {"sequence": place - len(entries)} for place, entry in enumerate(entries)]
    session.exec(delete(ReportEntry).where(col(ReportEntry.deployment_id) == row.id))
    db.insert_ignoring(session, ReportEntry, former)
    row.sequence = 0
    if DeploymentState(row.state) not in progress.FLEET_ENDS:
        row.state, row.probation, row.ended_at = DeploymentState.QUEUED.value, None, None
