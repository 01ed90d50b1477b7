"""Gathers what `deviation` judges: what devices run, what put it there, and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlmodel import Session, col, func, select

from fleet.deployments import deviation, running
from fleet.deployments.deviation import Account, Deviation, Placed
from fleet.deployments.tables import Deployment, DesiredDocument
from fleet.devices.tables import Device
from fleet.registry.tables import ModelVersion
from wire import codec
from wire.deployment import ENDS, DeploymentState, Origin
from wire.desired import Desired
from wire.messages import Reported

_ENDS: Final = tuple(sorted(state.value for state in ENDS))
Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the database tells of some devices, by (device, model) or by device.

    Args:
        later: the digest in use by a word that is newer than the device's last state: a report that came in a file, or
            before the state could.
    """

    later: Mapping[Key, str | None]
    installed: Mapping[Key, Placed]
    on_the_way: Mapping[Key, tuple[Placed, ...]]
    desired: Mapping[str, Desired]
    deployments: Mapping[str, Placed]
    releases: Mapping[str, int]


def known(session: Session, devices: Sequence[str], reported: Mapping[str, Reported]) -> Known:
    """Read it, in a fixed number of statements however many devices there are."""
    documents = session.exec(select(DesiredDocument).where(col(DesiredDocument.device).in_(devices)))
    desired = {row.device: codec.decode(row.body.encode(), Desired) for row in documents}
    asked = [model.deployment_id for one in desired.values() for model in one.models]
    runs = {model.digest for one in reported.values() for model in one.models if model.digest is not None}
    later = _later(session, devices)
    installed = _installed(session, devices, reported)
    runs |= {placed.digest for placed in installed.values()} | {digest for digest in later.values() if digest}
    versions = session.exec(select(ModelVersion.digest, ModelVersion.release).where(col(ModelVersion.digest).in_(runs)))
    on_the_way: dict[Key, tuple[Placed, ...]] = {}
    still_open = (
        select(Deployment).where(col(Deployment.device).in_(devices)).where(col(Deployment.state).not_in(_ENDS))
    )
    for row in session.exec(still_open):
        key = (row.device, row.model)
        on_the_way[key] = (*on_the_way.get(key, ()), _placed(row))
    return Known(
        later=later,
        installed=installed,
        on_the_way=on_the_way,
        desired=desired,
        deployments={
            row.id: _placed(row) for row in session.exec(select(Deployment).where(col(Deployment.id).in_(asked)))
        },
        releases=dict(versions.all()),
    )


def deviations(device: str, known: Known, reported: Reported | None) -> list[Deviation]:
    """Return how a device's models deviate, by name; what no recipe uses runs nowhere and is not told of."""
    runs = in_use(device, known, reported)
    document = known.desired.get(device)
    desired = {model.model: model for model in document.models} if document is not None else {}
    placed = {model for owner, model in known.installed if owner == device}
    found = []
    for model in sorted((placed | desired.keys()) & runs.keys()):
        asked = desired.get(model)
        found.append(
            deviation.of(
                Account(
                    model=model,
                    runs=runs[model],
                    installed=known.installed.get((device, model)),
                    on_the_way=known.on_the_way.get((device, model), ()),
                    desired=asked,
                    deployment=known.deployments.get(asked.deployment_id) if asked is not None else None,
                    releases=known.releases,
                )
            )
        )
    return [one for one in found if one is not None]


def in_use(device: str, known: Known, reported: Reported | None) -> dict[str, str | None]:
    """Return the digest that a device infers with by its newest word, by model; what no recipe uses is left out."""
    told = {model.model: model.digest for model in reported.models} if reported is not None else {}
    return told | {model: digest for (owner, model), digest in known.later.items() if owner == device}


def _later(session: Session, devices: Sequence[str]) -> dict[Key, str | None]:
    rows = session.exec(select(Device.id, Device.reported_at).where(col(Device.id).in_(devices)))
    reported_at = dict(rows.all())
    found = {}
    for change in running.newest(session, devices):
        told = reported_at.get(change.device)
        # It was said after the state and came after it: one of them alone may be the fault of a clock.
        if told is None or told < min(change.since, change.received_at):
            found[change.device, change.model] = change.digest
    return found


def _installed(session: Session, devices: Sequence[str], reported: Mapping[str, Reported]) -> dict[Key, Placed]:
    """Return the newest deployment that put a version there."""
    rows = {(row.device, row.model): row for row in _newest(session, devices)}
    for row in named(session, reported):
        rows[row.device, row.model] = newer(rows.get((row.device, row.model)), row)
    return {key: _placed(row) for key, row in rows.items()}


def named(session: Session, reported: Mapping[str, Reported]) -> list[Deployment]:
    """Return the deployments that devices name as what put there what they run, where they have said so before."""
    told = {
        model.deployment_id: (device, model.model, model.digest)
        for device, one in reported.items()
        for model in one.models
        if model.deployment_id is not None
    }
    rows = session.exec(
        select(Deployment).where(col(Deployment.id).in_(told)).where(col(Deployment.installed_at).is_not(None))
    )
    return [row for row in rows if told[row.id] == (row.device, row.model, row.digest)]


def newer(newest: Deployment | None, named: Deployment) -> Deployment:
    """Return which of two successes is the newer one: the newest by the device's clock, or the one that it names.

    Where that clock was set back, the one it names came in later. One that came in before the newest is none: the
    device has fallen back to it, and has no account of that.
    """
    if newest is None or newest.ended_at is None or named.ended_at is None:
        return newest or named
    return named if named.ended_at >= newest.ended_at else newest


def _newest(session: Session, devices: Sequence[str]) -> Sequence[Deployment]:
    """Return the newest deployments that put a version there, by the device's own word on when."""
    newest = (
        select(
            col(Deployment.device).label("device"),
            col(Deployment.model).label("model"),
            func.max(Deployment.installed_at).label("at"),
        )
        .where(col(Deployment.device).in_(devices))
        .where(col(Deployment.installed_at).is_not(None))
        .group_by(col(Deployment.device), col(Deployment.model))
        .subquery()
    )
    return session.exec(
        select(Deployment)
        .join(
            newest,
            (col(Deployment.device) == newest.c.device)
            & (col(Deployment.model) == newest.c.model)
            & (col(Deployment.installed_at) == newest.c.at),
        )
        .order_by(col(Deployment.id))
    ).all()


def _placed(row: Deployment) -> Placed:
    return Placed(
        digest=row.digest,
        release=row.release,
        state=DeploymentState(row.state),
        origin=Origin(row.origin),
        by=row.by,
        code=row.code,
    )
