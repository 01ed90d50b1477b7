"""Keeps desired documents and deployments, and takes the devices' reports."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, delete, select, update

from fleet import db
from fleet.absorb import Absorbed, Received, Refused
from fleet.audit import service as audit
from fleet.auth.actor import Actor
from fleet.deployments import document, progress, running
from fleet.deployments.tables import Deployment, DesiredDocument, ReportEntry
from fleet.registry.tables import ModelVersion
from wire import codec, mint
from wire.deployment import ENDS, DeploymentReport, DeploymentState
from wire.desired import Desired, DesiredModel
from wire.errors import LinesideError
from wire.manifest import Manifest

log = logging.getLogger(__name__)

OPEN: Final = tuple(sorted(state.value for state in DeploymentState if state not in ENDS))
# Ends from which a person may ask for the same version again.
LOST: Final = tuple(sorted(ENDS - {DeploymentState.SUCCEEDED, DeploymentState.ALREADY_INSTALLED}))
REPORTS_KEPT: Final = 1000
MAX_SEQUENCE: Final = 2**53


def desired_of(session: Session, device: str) -> Desired:
    """Return the desired document in force; of a device nobody asked anything of, an empty one at revision 0."""
    row = session.get(DesiredDocument, device)
    return codec.decode(row.body.encode(), Desired) if row is not None else Desired(device=device, revision=0)


def etag_of(document: Desired) -> str:
    """Return the strong entity tag of a document: its revision."""
    return f'"{document.revision}"'


def set_desired(
    session: Session,
    *,
    device: str,
    choice: document.DesiredChoice,
    if_match: str | None,
    by: Actor,
    ids: mint.Mint,
    now: datetime,
) -> tuple[Desired, bool]:
    """Replace a device's desired document; returns it, and whether it changed.

    Args:
        if_match: the If-Match header; without it a change could silently undo somebody else's.

    Raises:
        LinesideError: `resource.precondition_required`, `resource.stale`, or what `document.compose` raises.
    """
    current = desired_of(session, device)
    _require_match(if_match, current)
    following = document.compose(
        current,
        choice,
        versions=_versions(session, choice),
        lost=_lost(session, current),
        new_id=ids.uuid7,
        new_salt=mint.salt,
    )
    if following is current:
        return current, False
    _move_deployments(session, current, following, by=by, now=now)
    row = session.get(DesiredDocument, device) or DesiredDocument(
        device=device, revision=0, body="", changed_at=now, changed_by=by.label
    )
    row.revision, row.body = following.revision, codec.encode(following).decode()
    row.changed_at, row.changed_by = now, by.label
    session.add(row)
    audit.record(
        session,
        actor=by.label,
        action="desired.changed",
        subject=device,
        detail={"revision": following.revision, "models": {one.model: one.release for one in following.models}},
        at=now,
    )
    return following, True


def remove_open(session: Session, device: str, now: datetime) -> None:
    """End all open deployments of a device that is gone."""
    _end(session, device, None, DeploymentState.REMOVED, "The device was revoked.", now)


class ReportSlice:
    """Takes the deployments lane.

    A report older than one already taken changes nothing but is accepted: it must settle on the device, and the
    history keeps it. Only a report about another device's deployment, or about none of ours, is refused.
    """

    def absorb(self, session: Session, messages: Sequence[Received]) -> Absorbed:
        """See `fleet.absorb.Slice`."""
        refused = [one for one in (_absorb_report(session, message) for message in messages) if one is not None]
        return Absorbed(accepted=len(messages) - len(refused), refused=tuple(refused))


def _absorb_report(session: Session, message: Received) -> Refused | None:
    report: DeploymentReport = message.body
    row = session.get(Deployment, report.deployment_id)
    if row is None or row.device != message.device:
        return Refused(
            message=message, code="message.foreign_id", text=f"{report.deployment_id} is no deployment of this device."
        )
    if (row.model, row.digest) != (report.model, report.digest):
        text = f"{row.id} is about {row.model} {row.digest}, not {report.model} {report.digest}."
        return Refused(message=message, code="message.invalid_value", text=text)
    if report.sequence > MAX_SEQUENCE:
        return Refused(message=message, code="message.invalid_value", text=f"Sequence {report.sequence} is too high.")
    result = progress.after(DeploymentState(row.state), row.sequence, report.state, report.sequence)
    if result is None:
        return Refused(message=message, code="message.invalid_value", text=f"A device cannot report {report.state}.")
    new = db.insert_ignoring(
        session,
        ReportEntry,
        [
            {
                "deployment_id": row.id,
                "sequence": report.sequence,
                "state": report.state.value,
                "at": report.at,
                "received_at": message.received_at,
                "irregular": result.irregular,
                "body": codec.encode(report).decode(),
            }
        ],
    )
    if new:
        _apply(row, report, result, message.received_at)
        session.add(row)
        session.exec(
            delete(ReportEntry)
            .where(col(ReportEntry.deployment_id) == row.id)
            .where(col(ReportEntry.sequence) <= report.sequence - REPORTS_KEPT)
        )
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
    return None


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
    if not result.moved:
        return
    row.state, row.sequence, row.attempt = result.state.value, report.sequence, report.attempt
    row.code, row.reason, row.updated_at = report.code, report.reason, received_at
    row.hold_reason = report.hold.reason.value if report.hold is not None else None
    row.hold_until = report.hold.deadline if report.hold is not None else None
    if result.state in ENDS:
        row.ended_at = row.ended_at or received_at


def _require_match(if_match: str | None, current: Desired) -> None:
    if if_match is None:
        raise LinesideError(
            "resource.precondition_required",
            "A desired document is changed only with If-Match.",
            "Read the document, and send its ETag in If-Match.",
        )
    tags = [tag.strip() for tag in if_match.split(",")]
    if "*" not in tags and etag_of(current) not in tags:
        raise LinesideError(
            "resource.stale",
            f"The desired document of {current.device!r} is at revision {current.revision} now, not {if_match}.",
            "Read it again, and decide again.",
        )


def _versions(session: Session, choice: document.DesiredChoice) -> document.Versions:
    names = {one.model for one in choice.models}
    releases = {one.release for one in choice.models}
    rows = session.exec(
        select(ModelVersion).where(col(ModelVersion.model).in_(names)).where(col(ModelVersion.release).in_(releases))
    ).all()
    return {
        (row.model, row.release): document.Version(
            digest=row.digest, manifest=codec.decode(row.manifest_json.encode(), Manifest)
        )
        for row in rows
    }


def _lost(session: Session, current: Desired) -> frozenset[str]:
    asked = [model.deployment_id for model in current.models]
    rows = session.exec(
        select(Deployment.id).where(col(Deployment.id).in_(asked)).where(col(Deployment.state).in_(LOST))
    ).all()
    return frozenset(rows)


def _move_deployments(session: Session, current: Desired, following: Desired, *, by: Actor, now: datetime) -> None:
    former = {model.model: model for model in current.models}
    wanted = {model.model: model for model in following.models}
    for name in former.keys() - wanted.keys():
        _end(session, current.device, name, DeploymentState.CANCELED, "The model is no longer asked for.", now)
    for name, model in wanted.items():
        before = former.get(name)
        if before is not None and before.deployment_id == model.deployment_id:
            continue
        reason = f"Release {model.release} was asked for."
        _end(session, current.device, name, DeploymentState.SUPERSEDED, reason, now)
        session.add(_queued(current.device, model, by=by, now=now))


def _queued(device: str, model: DesiredModel, *, by: Actor, now: datetime) -> Deployment:
    return Deployment(
        id=model.deployment_id,
        device=device,
        model=model.model,
        digest=model.active,
        release=model.release,
        state=DeploymentState.QUEUED.value,
        created_at=now,
        created_by=by.label,
        updated_at=now,
    )


def _end(session: Session, device: str, model: str | None, state: DeploymentState, reason: str, now: datetime) -> None:
    statement = (
        update(Deployment)
        .where(col(Deployment.device) == device)
        .where(col(Deployment.state).in_(OPEN))
        .values(state=state.value, reason=reason, updated_at=now, ended_at=now)
    )
    if model is not None:
        statement = statement.where(col(Deployment.model) == model)
    session.exec(statement)
