"""Drift: a device runs another version than its last successful deployment put there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlmodel import Session, col, func, select

from fleet.deployments.tables import Deployment
from wire.deployment import ENDS, DeploymentState
from wire.messages import Reported

INSTALLED: Final = (DeploymentState.SUCCEEDED.value, DeploymentState.ALREADY_INSTALLED.value)
_ENDS: Final = tuple(sorted(state.value for state in ENDS))


def expected(session: Session, devices: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return the digest each (device, model) should run; without those that are being changed just now."""
    newest = (
        select(func.max(Deployment.id))
        .where(col(Deployment.device).in_(devices))
        .where(col(Deployment.state).in_(INSTALLED))
        .group_by(col(Deployment.device), col(Deployment.model))
    )
    installed = session.exec(
        select(Deployment.device, Deployment.model, Deployment.digest).where(col(Deployment.id).in_(newest))
    ).all()
    changing = set(
        session.exec(
            select(Deployment.device, Deployment.model)
            .where(col(Deployment.device).in_(devices))
            .where(col(Deployment.state).not_in(_ENDS))
        ).all()
    )
    return {(device, model): digest for device, model, digest in installed if (device, model) not in changing}


def drifted(device: str, expected: Mapping[tuple[str, str], str], reported: Reported | None) -> list[str]:
    """Return the models that run another version than expected; none where the device has not reported yet."""
    if reported is None:
        return []
    running = {model.model: model.digest for model in reported.models}
    return sorted(
        model for (owner, model), digest in expected.items() if owner == device and running.get(model) != digest
    )
