"""What ran where and when: only the changes are kept, and intervals are read from them.

A device tells the digest of its session in its states and in each report on a deployment. These arrive out of order: a
state comes at once, a report may wait in the outbox for weeks. So each word is set into the line of changes at its own
time: it adds nothing where the change before it says the same, and it replaces the change after it where that one says
the same (the version ran earlier than was known). Only a live state is always the newest word, even where the device's
clock has been set back meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session, col, delete, func, select

from fleet.deployments.tables import VersionChange
from fleet.devices.tables import Device
from wire.messages import RunningModel

CLOCK_SLACK: Final = timedelta(seconds=30)
CHANGES_KEPT: Final = 1000  # of each model of a device: an agent that starts again makes two


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A device inferred with `digest` from `since` to `until`; None there means: as far as is known, still."""

    model: str
    digest: str | None
    since: datetime
    until: datetime | None
    deployment_id: str | None


def observe_state(
    session: Session, *, device: str, models: Sequence[RunningModel], at: datetime, received_at: datetime
) -> None:
    """Set into the line of changes what a device's live state says: what it does not list runs no more.

    Args:
        at: by the device's clock. Where an older word has a later time that clock was set back since, and the time of
            receipt stands in for it.
    """
    former = {change.model: change for change in newest(session, [device])}
    listed = {model.model: model for model in models}
    for name in sorted(listed.keys() | former.keys()):
        model, change = listed.get(name), former.get(name)
        set_back = change is not None and change.since > at + CLOCK_SLACK
        observe(
            session,
            device=device,
            model=name,
            digest=model.digest if model is not None else None,
            at=received_at if set_back else at,
            received_at=received_at,
            deployment_id=model.deployment_id if model is not None else None,
        )


def newest(session: Session, devices: Sequence[str]) -> Sequence[VersionChange]:
    """Return the newest change of each model of some devices."""
    latest = (
        select(VersionChange.device, VersionChange.model, func.max(VersionChange.since).label("since"))
        .where(col(VersionChange.device).in_(devices))
        .group_by(col(VersionChange.device), col(VersionChange.model))
        .subquery()
    )
    return session.exec(
        select(VersionChange).join(
            latest,
            (col(VersionChange.device) == latest.c.device)
            & (col(VersionChange.model) == latest.c.model)
            & (col(VersionChange.since) == latest.c.since),
        )
    ).all()


def observe(
    session: Session,
    *,
    device: str,
    model: str,
    digest: str | None,
    at: datetime,
    received_at: datetime,
    deployment_id: str | None,
) -> None:
    """Set a device's word about the version in use into the line of changes.

    Args:
        digest: of the session in use, None where the model does not run.
        at: by the device's clock; a time before its enrolment or in the future cannot be right, and the time of
            receipt stands in for it.
    """
    at = believable(session, device, at, received_at)
    line = select(VersionChange).where(VersionChange.device == device).where(VersionChange.model == model)
    since = col(VersionChange.since)
    before = session.exec(line.where(since <= at).order_by(since.desc()).limit(1)).first()
    if before is not None and before.digest == digest:
        return
    if before is None and digest is None:
        return  # nothing ran before anything ran
    after = session.exec(line.where(since > at).order_by(since.asc()).limit(1)).first()
    if before is not None and before.since == at:
        before.digest, before.deployment_id, before.received_at = digest, deployment_id, received_at
        session.add(before)
    else:
        session.add(
            VersionChange(
                device=device,
                model=model,
                since=at,
                digest=digest,
                deployment_id=deployment_id,
                received_at=received_at,
            )
        )
    if after is not None and after.digest == digest:
        session.delete(after)
    session.flush()
    _prune(session, device, model)


def _prune(session: Session, device: str, model: str) -> None:
    of_model = (col(VersionChange.device) == device, col(VersionChange.model) == model)
    newest = select(VersionChange.since).where(*of_model).order_by(col(VersionChange.since).desc())
    edge = session.exec(newest.offset(CHANGES_KEPT).limit(1)).first()
    if edge is not None:
        session.exec(delete(VersionChange).where(*of_model).where(col(VersionChange.since) <= edge))


def believable(session: Session, device: str, at: datetime, received_at: datetime) -> datetime:
    """Return a time by a device's clock, or that of its receipt where it cannot be right."""
    row = session.get(Device, device)
    wrong = at > received_at + CLOCK_SLACK or (row is not None and at < row.enrolled_at - CLOCK_SLACK)
    return received_at if wrong else at


def intervals(session: Session, device: str, model: str | None = None) -> list[Interval]:
    """Return what a device ran, model by model, the oldest first."""
    statement = select(VersionChange).where(VersionChange.device == device)
    if model is not None:
        statement = statement.where(VersionChange.model == model)
    changes = session.exec(statement.order_by(col(VersionChange.model), col(VersionChange.since))).all()
    found: list[Interval] = []
    for index, change in enumerate(changes):
        following = changes[index + 1] if index + 1 < len(changes) else None
        found.append(
            Interval(
                model=change.model,
                digest=change.digest,
                since=change.since,
                until=following.since if following is not None and following.model == change.model else None,
                deployment_id=change.deployment_id,
            )
        )
    return found
