"""Keeps desired documents, and the deployments that they start and end."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, select, update

from fleet.audit import service as audit
from fleet.auth.actor import Actor
from fleet.deployments import document, reports
from fleet.deployments.reports import ReportSlice
from fleet.deployments.tables import Deployment, DesiredDocument, ReportEntry
from fleet.devices.tables import Device
from fleet.registry.tables import ModelVersion
from wire import codec, mint
from wire.deployment import ENDS, DeploymentReport, DeploymentState, Origin
from wire.desired import Desired, DesiredModel
from wire.errors import LinesideError
from wire.manifest import Manifest
from wire.messages import Reported

__all__ = ["ReportSlice"]  # ingest finds it here

OPEN: Final = tuple(sorted(state.value for state in DeploymentState if state not in ENDS))
# Ends from which a person may ask for the same version again.
LOST: Final = tuple(sorted(ENDS - {DeploymentState.SUCCEEDED, DeploymentState.ALREADY_INSTALLED}))


def desired_of(session: Session, device: str) -> Desired:
    """Return the desired document in force; of a device nobody asked anything of, an empty one at revision 0."""
    row = session.get(DesiredDocument, device)
    return codec.decode(row.body.encode(), Desired) if row is not None else Desired(device=device, revision=0)


def etag_of(document: Desired) -> str:
    """Return the strong entity tag of a document: its revision, and the start of the SHA-256 of what is sent.

    The revision alone names two documents where an older database was restored and something else was asked for since.
    """
    return f'"{document.revision}-{hashlib.sha256(codec.encode(document)).hexdigest()[:8]}"'


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
    require_match(if_match, current)
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
    put_in_force(session, following, by=by, now=now)
    shadows = {one.model: one.shadow for one in choice.models if one.shadow is not None}
    detail = {"revision": following.revision, "models": {one.model: one.release for one in following.models}}
    audit.record(
        session,
        actor=by.label,
        action="desired.changed",
        subject=device,
        detail=detail | ({"shadows": shadows} if shadows else {}),
        at=now,
    )
    return following, True


def put_in_force(session: Session, following: Desired, *, by: Actor, now: datetime) -> None:
    """Make a document the one in force; its deployments are the caller's business."""
    row = session.get(DesiredDocument, following.device) or DesiredDocument(
        device=following.device, revision=0, body="", changed_at=now, changed_by=by.label
    )
    row.revision, row.body = following.revision, codec.encode(following).decode()
    row.changed_at, row.changed_by = now, by.label
    session.add(row)


def remove_open(session: Session, device: str, now: datetime) -> None:
    """End all open deployments of a device that is gone."""
    _end(session, device, None, DeploymentState.REMOVED, "The device was revoked.", now)


def reopen_removed(session: Session, device: str, revoked_at: datetime, now: datetime) -> None:
    """Take back what `remove_open` has ended, since the device was let in anew and its document names it as before.

    Each stands where the device told last, be it while it was revoked.
    """
    rows = session.exec(
        select(Deployment)
        .where(Deployment.device == device)
        .where(Deployment.state == DeploymentState.REMOVED.value)
        .where(Deployment.ended_at == revoked_at)
    ).all()
    for row in rows:
        row.state, row.reason, row.updated_at, row.ended_at = DeploymentState.QUEUED.value, "", now, None
        newest = session.exec(
            select(ReportEntry)
            .where(ReportEntry.deployment_id == row.id)
            .where(col(ReportEntry.sequence) > 0)
            .order_by(col(ReportEntry.sequence).desc())
        ).first()
        if newest is not None:
            reports.stand(row, codec.decode(newest.body.encode(), DeploymentReport), now)
        session.add(row)


def require_match(if_match: str | None, current: Desired) -> None:
    """Refuse a change that is not based on the document in force.

    Raises:
        LinesideError: `resource.precondition_required` or `resource.stale`.
    """
    if if_match is None:
        raise LinesideError(
            "resource.precondition_required",
            "A desired document is changed only with If-Match.",
            "Read the document, and send its ETag in If-Match.",
        )
    tags = [tag.strip() for tag in if_match.split(",")]
    now = etag_of(current)
    if "*" not in tags and now not in tags:
        raise LinesideError(
            "resource.stale",
            f"The desired document of {current.device!r} has changed: its ETag is {now} now, not {if_match}.",
            "Read it again, and decide again.",
        )


def _versions(session: Session, choice: document.DesiredChoice) -> document.Versions:
    names = {one.model for one in choice.models}
    releases = {one.release for one in choice.models} | {one.shadow for one in choice.models if one.shadow is not None}
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
    """Return the document's deployments that have ended, and whose version does not run, or no longer.

    A device never does a deployment again that has ended there, be it that a person went back since.
    """
    asked = [model.deployment_id for model in current.models]
    rows = session.exec(select(Deployment).where(col(Deployment.id).in_(asked))).all()
    device = session.get(Device, current.device)
    told = device.reported if device is not None else None
    reported = codec.decode(told.encode(), Reported) if told is not None else None
    runs = {one.model: one.digest for one in reported.models} if reported is not None else {}
    return frozenset(
        row.id
        for row in rows
        if row.state in LOST
        or (row.state not in OPEN and runs.get(row.model, row.digest) != row.digest)
        or (row.state not in OPEN and _replaced(session, row))
    )


def _replaced(session: Session, row: Deployment) -> bool:
    """Tell whether a later deployment has put another version there."""
    if row.installed_at is None:
        return False
    later = (
        select(Deployment.digest)
        .where(Deployment.device == row.device)
        .where(Deployment.model == row.model)
        .where(col(Deployment.installed_at) > row.installed_at)
        .order_by(col(Deployment.installed_at).desc(), col(Deployment.id).desc())
    )
    return session.exec(later).first() not in (None, row.digest)


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
        session.add(_queued(following, model, by=by, now=now))


def _queued(document: Desired, model: DesiredModel, *, by: Actor, now: datetime) -> Deployment:
    return Deployment(
        id=model.deployment_id,
        device=document.device,
        revision=document.revision,
        model=model.model,
        digest=model.active,
        release=model.release,
        state=DeploymentState.QUEUED.value,
        created_at=now,
        created_by=by.label,
        updated_at=now,
    )


def _end(session: Session, device: str, model: str | None, state: DeploymentState, reason: str, now: datetime) -> None:
    """End open deployments of a device; those of one model leave alone what a person at the device asked for."""
    statement = (
        update(Deployment)
        .where(col(Deployment.device) == device)
        .where(col(Deployment.state).in_(OPEN))
        .values(
            state=state.value,
            reason=reason,
            updated_at=now,
            ended_at=now,
            hold_reason=None,
            hold_until=None,
            hold_text="",
        )
    )
    if model is not None:
        statement = statement.where(col(Deployment.model) == model).where(col(Deployment.origin) == Origin.FLEET.value)
    session.exec(statement)
