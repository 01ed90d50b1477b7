"""Gathers what `deviation` judges: what devices run, what put it there, and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlmodel import Session, col, func, select

from fleet.deployments import deviation
from fleet.deployments.deviation import Account, Deviation, Placed
from fleet.deployments.tables import Deployment, DesiredDocument
from fleet.registry.tables import ModelVersion
from wire import codec
from wire.deployment import ENDS, DeploymentState, Origin
from wire.desired import Desired
from wire.messages import Reported

_ENDS: Final = tuple(sorted(state.value for state in ENDS))
Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the database tells of some devices, by (device, model) or by device."""

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
    installed = _installed(session, devices)
    runs |= {placed.digest for placed in installed.values()}
    versions = session.exec(select(ModelVersion.digest, ModelVersion.release).where(col(ModelVersion.digest).in_(runs)))
    on_the_way: dict[Key, tuple[Placed, ...]] = {}
    still_open = (
        select(Deployment).where(col(Deployment.device).in_(devices)).where(col(Deployment.state).not_in(_ENDS))
    )
    for row in session.exec(still_open):
        key = (row.device, row.model)
        on_the_way[key] = (*on_the_way.get(key, ()), _placed(row))
    return Known(
        installed=installed,
        on_the_way=on_the_way,
        desired=desired,
        deployments={
            row.id: _placed(row) for row in session.exec(select(Deployment).where(col(Deployment.id).in_(asked)))
        },
        releases=dict(versions.all()),
    )


def deviations(device: str, known: Known, reported: Reported | None) -> list[Deviation]:
    """Return how a device's models deviate, by name; none where it has not reported yet."""
    if reported is None:
        return []
    running = {model.model: model.digest for model in reported.models}
    document = known.desired.get(device)
    desired = {model.model: model for model in document.models} if document is not None else {}
    placed = {model for owner, model in known.installed if owner == device}
    found = []
    for model in sorted(placed | (desired.keys() & running.keys())):
        asked = desired.get(model)
        found.append(
            deviation.of(
                Account(
                    model=model,
                    runs=running.get(model),
                    installed=known.installed.get((device, model)),
                    on_the_way=known.on_the_way.get((device, model), ()),
                    desired=asked,
                    deployment=known.deployments.get(asked.deployment_id) if asked is not None else None,
                    releases=known.releases,
                )
            )
        )
    return [one for one in found if one is not None]


def _installed(session: Session, devices: Sequence[str]) -> dict[Key, Placed]:
    """Return the newest deployment that put a version there, by the device's own word on when."""
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
    rows = session.exec(
        select(Deployment)
        .join(
            newest,
            (col(Deployment.device) == newest.c.device)
            & (col(Deployment.model) == newest.c.model)
            & (col(Deployment.installed_at) == newest.c.at),
        )
        .order_by(col(Deployment.id))
    )
    return {(row.device, row.model): _placed(row) for row in rows}


def _placed(row: Deployment) -> Placed:
    return Placed(
        digest=row.digest,
        release=row.release,
        state=DeploymentState(row.state),
        origin=Origin(row.origin),
        by=row.by,
        code=row.code,
    )
