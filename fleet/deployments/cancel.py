"""Takes an open deployment back: it ends as canceled, and the desired document names what ran before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from fleet.audit import service as audit
from fleet.auth.actor import Actor
from fleet.deployments import document, drift, service
from fleet.deployments.tables import Deployment
from fleet.devices.tables import Device
from fleet.registry.tables import ModelVersion
from wire import codec
from wire.deployment import DeploymentState, Origin
from wire.desired import Desired, DesiredModel
from wire.errors import LinesideError
from wire.manifest import Manifest
from wire.messages import Reported


@dataclass(frozen=True, slots=True, kw_only=True)
class Canceled:
    """A deployment that a person took back.

    Args:
        document: the desired document now in force.
        changed: whether this call has changed it.
    """

    deployment: Deployment
    document: Desired
    changed: bool


def cancel(
    session: Session, deployment: str, *, reason: str, if_match: str | None, by: Actor, now: datetime
) -> Canceled:
    """End an open deployment of the fleet's; the desired document goes back to what ran before, or to no version.

    Done twice it changes nothing. Recipes that the former version does not allow do not stop it: the deployment's
    reason names them.

    Args:
        if_match: the If-Match header, of the desired document; it may be left out, since the deployment's id already
            says what is meant.

    Raises:
        LinesideError: `resource.not_found`, `resource.stale`, or `resource.conflict` where it has ended, or was asked
            for at the device.
    """
    row = session.get(Deployment, deployment)
    if row is None:
        raise LinesideError("resource.not_found", f"There is no deployment {deployment!r}.", "List deployments.")
    current = service.desired_of(session, row.device)
    if row.state == DeploymentState.CANCELED.value:
        return Canceled(deployment=row, document=current, changed=False)
    _require_cancelable(row)
    if if_match is not None:
        service.require_match(if_match, current)
    before = _former(session, row)
    former = _as_desired(*before) if before is not None else None
    following = document.without_deployment(current, row.id, former)
    misfits = document.misfits(following, _manifest_of(before[1])) if before is not None else []
    if following is not current:
        service.put_in_force(session, following, by=by, now=now)
    went = f"back to release {former.release}" if former is not None else "to no version"
    row.state, row.ended_at, row.updated_at = DeploymentState.CANCELED.value, now, now
    row.code, row.reason = "", f"{by.label} took it back: {reason}"
    if former is not None and misfits:
        refuses = f"The device refuses what release {former.release} does not allow"
        row.reason = f"{row.reason.rstrip('.')}. {refuses}: {' '.join(misfits)}"
    row.reason = row.reason[:1000]
    row.hold_reason, row.hold_until, row.hold_text = None, None, ""
    session.add(row)
    session.flush()
    audit.record(
        session,
        actor=by.label,
        action="deployment.canceled",
        subject=row.device,
        detail={"deployment": row.id, "reason": reason, "revision": following.revision, "desired": went},
        at=now,
    )
    return Canceled(deployment=row, document=following, changed=following is not current)


def _require_cancelable(row: Deployment) -> None:
    if row.state not in service.OPEN:
        raise LinesideError(
            "resource.conflict",
            f"The deployment {row.id} has ended already: {row.state.replace('_', ' ')}.",
            "Ask for another release with `lineside-fleet desired set`.",
        )
    if row.origin == Origin.DEVICE.value:
        raise LinesideError(
            "resource.conflict",
            f"The deployment {row.id} was asked for at the device {row.device}; only there can it be taken back.",
            f"On the device: `lineside models rollback {row.model}`.",
        )


def _former(session: Session, row: Deployment) -> tuple[Deployment, ModelVersion] | None:
    """Return what ran before a deployment: the newest that succeeded there, of a version the registry has."""
    found = session.exec(
        select(Deployment, ModelVersion)
        .join(ModelVersion, col(ModelVersion.digest) == col(Deployment.digest))
        .where(Deployment.device == row.device)
        .where(Deployment.model == row.model)
        .where(Deployment.id != row.id)
        .where(ModelVersion.model == row.model)
        .where(col(Deployment.installed_at).is_not(None))
        .order_by(col(Deployment.installed_at).desc(), col(Deployment.id).desc())
    ).first()
    for named in drift.named(session, _reported(session, row.device)):
        version = session.get(ModelVersion, named.digest)
        if named.id == row.id or named.model != row.model or version is None or version.model != row.model:
            continue
        if drift.newer(found[0] if found is not None else None, named) is named:
            return named, version
    return found


def _reported(session: Session, device: str) -> dict[str, Reported]:
    row = session.get(Device, device)
    if row is None or row.reported is None:
        return {}
    return {device: codec.decode(row.reported.encode(), Reported)}


def _as_desired(deployment: Deployment, version: ModelVersion) -> DesiredModel:
    return DesiredModel(
        model=version.model, active=version.digest, release=version.release, deployment_id=deployment.id
    )


def _manifest_of(version: ModelVersion) -> Manifest:
    return codec.decode(version.manifest_json.encode(), Manifest)
