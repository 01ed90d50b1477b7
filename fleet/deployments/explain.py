"""Gathers what the fleet knows of one device and one version; `chain` puts it in order and answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, select

from fleet.deployments import chain, deviation, drift, running, service, ticker, timeouts
from fleet.deployments.gathered import Asked, Chain, Gathered, Told
from fleet.deployments.tables import Deployment, DesiredDocument, ReportEntry
from fleet.deployments.timeouts import Limits
from fleet.devices.tables import Device
from fleet.ingest import beat
from fleet.registry.tables import ModelVersion
from wire import codec
from wire.deployment import DeploymentReport, DeploymentState, Origin
from wire.errors import LinesideError
from wire.messages import Reported

DEPLOYMENTS_SHOWN: Final = 5
REPORTS_SHOWN: Final = 100


def of(
    session: Session,
    device: Device,
    model: str,
    *,
    release: int | None,
    digest: str | None,
    limits: Limits,
    now: datetime,
) -> Chain:
    """Explain one device and one version: the one named by release or digest, else the one that is desired.

    Raises:
        LinesideError: `resource.not_found` where there is no such version, or none is named and none desired.
    """
    desired = service.desired_of(session, device.id)
    asked_now = next((one for one in desired.models if one.model == model), None)
    if release is None and digest is None:
        if asked_now is None:
            raise LinesideError(
                "resource.not_found",
                f"{device.id} is not asked to run {model!r}.",
                "Name a version with --release N; `lineside-fleet desired set` asks for one.",
            )
        release, digest = asked_now.release, asked_now.active
    version = _version(session, model, release, digest)
    wanted = version.digest if version is not None else digest
    rows = _deployments(session, device.id, model, wanted, release)
    if wanted is None:
        wanted = rows[-1].digest if rows else None
    if wanted is None:
        raise LinesideError(
            "resource.not_found", f"There is no release {release} of {model!r}.", "See `lineside-fleet models list`."
        )
    reported = codec.decode(device.reported.encode(), Reported) if device.reported is not None else None
    document = session.get(DesiredDocument, device.id)
    interval = next((one for one in reversed(running.intervals(session, device.id, model)) if one.until is None), None)
    told = {} if reported is None else {device.id: reported}
    known = drift.known(session, [device.id], told)
    runs = drift.in_use(device.id, known, reported).get(model)
    release_there, registered = _release_of(session, device.id, model, runs)
    deviations = [one for one in drift.deviations(device.id, known, reported) if one.model == model]
    return chain.of(
        Gathered(
            device=device.id,
            model=model,
            release=version.release if version is not None else release if release is not None else _told(rows),
            digest=wanted,
            now=now,
            registered_at=version.created_at if version is not None else None,
            registered_by=version.created_by if version is not None else "",
            desired_digest=asked_now.active if asked_now is not None else None,
            desired_release=asked_now.release if asked_now is not None else None,
            desired_revision=desired.revision,
            desired_at=document.changed_at if document is not None else None,
            desired_by=document.changed_by if document is not None else "",
            online=device.online,
            last_seen_at=device.last_seen_at,
            revoked_at=device.revoked_at,
            read_revision=reported.desired_revision if reported is not None else None,
            reported_at=device.reported_at,
            refusals=reported.refusals if reported is not None else (),
            runs_digest=runs,
            runs_release=release_there,
            runs_registered=registered,
            runs_since=interval.since if interval is not None and interval.digest == runs else None,
            deviation=deviations[0].text if deviations else "",
            asked=[_asked(session, row, device, limits, now) for row in rows],
        )
    )


def _version(session: Session, model: str, release: int | None, digest: str | None) -> ModelVersion | None:
    statement = select(ModelVersion).where(ModelVersion.model == model)
    if digest is not None:
        return session.exec(statement.where(ModelVersion.digest == digest)).first()
    return session.exec(statement.where(col(ModelVersion.release) == release)).first()


def _deployments(
    session: Session, device: str, model: str, digest: str | None, release: int | None
) -> list[Deployment]:
    """Return the newest deployments of a version, the oldest first."""
    statement = select(Deployment).where(Deployment.device == device).where(Deployment.model == model)
    if digest is not None:
        statement = statement.where(Deployment.digest == digest)
    else:
        statement = statement.where(col(Deployment.release) == release)
    newest = session.exec(
        statement.order_by(col(Deployment.created_at).desc(), col(Deployment.id).desc()).limit(DEPLOYMENTS_SHOWN)
    ).all()
    return list(reversed(newest))


def _asked(session: Session, row: Deployment, device: Device, limits: Limits, now: datetime) -> Asked:
    local = None
    waits = ""
    if row.state in service.OPEN:
        local = session.exec(
            select(Deployment)
            .where(Deployment.device == row.device)
            .where(Deployment.model == row.model)
            .where(Deployment.origin == Origin.DEVICE.value)
            .where(col(Deployment.state).in_(service.OPEN))
            .where(Deployment.id != row.id)
        ).first()
        heard = beat.heard(session, now).get(device.shard)
        waiting = ticker.waiting_of(row, device, listening=heard, behind_local=local is not None)
        found = timeouts.judge(waiting, limits, now)
        waits = found.text if isinstance(found, timeouts.Waits) else found.reason
    return Asked(
        id=row.id,
        state=DeploymentState(row.state),
        origin=Origin(row.origin),
        by=row.by,
        created_at=row.created_at,
        created_by=row.created_by,
        revision=row.revision,
        reason=row.reason,
        code=row.code,
        ended_at=row.ended_at,
        reports=_reports(session, row.id),
        waits=waits,
        behind="" if local is None else _behind(session, local),
    )


def _behind(session: Session, local: Deployment) -> str:
    registered = session.get(ModelVersion, local.digest) is not None
    what = deviation.words_of(local.digest, local.release, registered=registered)
    return f"{what} was {deviation.asked_by(Origin.DEVICE, local.by)} and is {local.state.replace('_', ' ')}"


def _reports(session: Session, deployment: str) -> Sequence[Told]:
    rows = session.exec(
        select(ReportEntry)
        .where(ReportEntry.deployment_id == deployment)
        .order_by(col(ReportEntry.sequence).desc())
        .limit(REPORTS_SHOWN)
    ).all()
    return [
        Told(report=codec.decode(row.body.encode(), DeploymentReport), received_at=row.received_at)
        for row in reversed(rows)
    ]


def _release_of(session: Session, device: str, model: str, digest: str | None) -> tuple[int | None, bool]:
    """Return a version's release by the registry, else by what the device told of it; and whether it is registered."""
    version = session.get(ModelVersion, digest) if digest is not None else None
    if digest is None or version is not None:
        return (version.release if version is not None else None), True
    rows = session.exec(
        select(Deployment)
        .where(Deployment.device == device)
        .where(Deployment.model == model)
        .where(Deployment.digest == digest)
    ).all()
    return _told(rows), False


def _told(rows: Sequence[Deployment]) -> int | None:
    return next((row.release for row in reversed(rows) if row.release is not None), None)
