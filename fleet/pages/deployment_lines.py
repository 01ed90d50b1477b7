"""How the live page puts deployments, shadows and deviations into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sqlmodel import Session, col, select

from fleet.deployments.deviation import Deviation, Kind, asked_by
from fleet.deployments.reports import FORGOTTEN
from fleet.deployments.tables import Deployment, ReportEntry
from fleet.devices.tables import DeviceHealth
from fleet.pages import words
from wire import codec
from wire.deployment import DeploymentState, Origin, ProbationReport
from wire.desired import Desired
from wire.messages import Health, Reported, ShadowHealth

MAX_DEPLOYMENTS: Final = 10
BAD_STATES: Final = frozenset({"refused", "failed_no_change", "failed_reverted", "failed_revert_failed", "timed_out"})
GOOD_STATES: Final = frozenset({"succeeded", "already_installed"})


def wanted(
    desired: Desired | None,
    deployments: Mapping[str, Deployment],
    releases: Mapping[str, int],
    shadows: Mapping[str, ShadowHealth],
    reported: Reported | None = None,
) -> list[dict[str, Any]]:
    """Return a line for each model that a device is asked to run.

    Args:
        deployments: by id.
        releases: of digests that the registry knows.
        shadows: what the device tells of its candidates, by digest.
        reported: which of them run, and why one does not.
    """
    troubles = {one.model: one.shadow_trouble for one in reported.models} if reported is not None else {}
    lines = []
    for model in desired.models if desired is not None else ():
        row = deployments.get(model.deployment_id)
        state = row.state if row is not None else "unknown"
        lines.append(
            {
                "key": model.model,
                "model": model.model,
                "release": f"release {model.release}",
                "digest": words.short(model.active),
                "state": state.replace("_", " "),
                "tone": _tone(state),
                "why": _why(row),
                "shadow": _shadow(model.shadow, releases, shadows, troubles.get(model.model, "")),
            }
        )
    return lines


def recent(session: Session) -> list[dict[str, Any]]:
    """Return a line for each of the newest deployments."""
    newest = (col(Deployment.created_at).desc(), col(Deployment.id).desc())
    rows = session.exec(select(Deployment).order_by(*newest).limit(MAX_DEPLOYMENTS)).all()
    reports = session.exec(
        select(ReportEntry.deployment_id, ReportEntry.state)
        .where(col(ReportEntry.deployment_id).in_([row.id for row in rows]))
        .order_by(col(ReportEntry.deployment_id), col(ReportEntry.sequence))
    ).all()
    # What a person at the device asks for, the fleet never queued.
    trails = {row.id: [] if row.origin == Origin.DEVICE.value else ["queued"] for row in rows}
    for deployment_id, state in reports:
        trail = trails[deployment_id]
        if trail[-1:] != [state.replace("_", " ")]:
            trail.append(state.replace("_", " "))
    return [
        {
            "key": row.id,
            "device": row.device,
            "version": f"{row.model} {_told(row)}",
            "digest": words.short(row.digest),
            "state": row.state.replace("_", " "),
            "tone": _tone(row.state),
            "trail": " > ".join(trails[row.id][-8:]),
            "why": "; ".join(part for part in (_asked(row), _why(row)) if part),
            "updated": words.stamp_or_none(row.updated_at),
        }
        for row in rows
    ]


def deviates(deviation: Deviation | None) -> str:
    """Return how what runs is not what it should be, empty where it is."""
    if deviation is None:
        return ""
    return f"drift: {deviation.text}" if deviation.kind is Kind.DRIFT else deviation.text


def shadows(row: DeviceHealth | None) -> Mapping[str, ShadowHealth]:
    """Return what the stations tell of each candidate, added up over them."""
    found: dict[str, ShadowHealth] = {}
    health = codec.decode(row.body.encode(), Health) if row is not None else None
    for one in (shadow for station in health.stations for shadow in station.shadows) if health is not None else ():
        former = found.get(one.digest)
        if former is not None:
            one = replace(  # noqa: PLW2901
                one,
                chosen=one.chosen + former.chosen,
                compared=one.compared + former.compared,
                disagreed=one.disagreed + former.disagreed,
            )
        found[one.digest] = one
    return found


def _shadow(
    digest: str | None, releases: Mapping[str, int], told: Mapping[str, ShadowHealth], trouble: str = ""
) -> str:
    if digest is None:
        return ""
    seen = told.get(digest)
    parts = [trouble.rstrip(".")] if trouble else []
    if seen is not None:
        parts.append(f"{seen.compared} of {seen.chosen} chosen parts compared, {seen.disagreed} differ")
    return f"shadow {release_words(digest, releases)}: {'; '.join(parts) or 'nothing told yet'}"


def release_words(digest: str | None, releases: Mapping[str, int]) -> str:
    """Return a version's release in words."""
    if digest is None:
        return "not running"
    return f"release {releases[digest]}" if digest in releases else "unknown release"


def _told(row: Deployment) -> str:
    return f"release {row.release}" if row.release is not None else "unknown release"


def _asked(row: Deployment) -> str:
    """Return who asked, where that was not this fleet."""
    if row.created_by == FORGOTTEN:
        return "this database has no record of asking for it"
    return asked_by(Origin(row.origin), row.by)


def _why(row: Deployment | None) -> str:
    """Return what a deployment waits for, what probation has seen, or why it ended."""
    if row is None:
        return ""
    parts = []
    if row.hold_reason:
        until = f" until {words.clock(row.hold_until)}" if row.hold_until is not None else ""
        text = f": {row.hold_text.rstrip('.')}" if row.hold_text else ""
        parts.append(f"waits: {row.hold_reason.replace('_', ' ')}{until}{text}")
    if row.probation is not None and row.state == DeploymentState.PROBATION.value:
        seen = codec.decode(row.probation.encode(), ProbationReport)
        parts.append(f"{seen.parts} of {seen.parts_needed} parts, {seen.faults} without verdict")
    parts.append(": ".join(part for part in (row.code, row.reason) if part))
    return "; ".join(part for part in parts if part)


def _tone(state: str) -> str:
    if state in BAD_STATES:
        return "bad"
    return "good" if state in GOOD_STATES else "busy"
