"""What people ask of a candidate: how it compares with the active version, and where there is no evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import text, tuple_
from sqlmodel import Session, col, func, select

from fleet.deployments.tables import DesiredDocument
from fleet.devices import retention
from fleet.devices.tables import Device, DeviceHealth
from fleet.inspections import moments
from fleet.registry.tables import ModelVersion
from fleet.shadow import matrix
from fleet.shadow.matrix import Counted, Matrix
from fleet.shadow.tables import ShadowPairRow
from wire import codec
from wire.desired import Desired
from wire.messages import Health, Reported


@dataclass(frozen=True, slots=True, kw_only=True)
class OfDevice:
    """One device's part of a comparison."""

    device: str
    matrix: Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """The candidate against one active version, in all and by device.

    Args:
        active_release: None where the registry does not know the version.
    """

    active_digest: str
    active_release: int | None
    matrix: Matrix
    devices: list[OfDevice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one device says of a candidate: parts that were meant for it and never compared are missing evidence.

    Args:
        asked: the desired document names the candidate.
        runs: the device says that its session is in use; None before its first report.
        trouble: why it does not run.
        told_at: by the device's clock, of the health record with the figures; None where none has any.
        chosen, compared, disagreed, skipped: since the candidate began there, over all stations.
        kept: pairs that are in the database.
    """

    device: str
    asked: bool
    runs: bool | None
    trouble: str
    told_at: datetime | None
    chosen: int
    compared: int
    disagreed: int
    skipped: dict[str, int] = field(default_factory=dict)
    kept: int = 0


def against(session: Session, digest: str, device: str | None = None) -> list[Against]:
    """Return how a candidate compares with each active version it ran beside, the latest first."""
    counted = _counted(session, digest, device)
    actives = sorted({active for active, _ in counted})
    rows = session.exec(
        select(ModelVersion.digest, ModelVersion.release).where(col(ModelVersion.digest).in_(actives))
    ).all()
    releases = dict(rows)
    found = []
    for active in actives:
        devices = sorted(name for other, name in counted if other == active)
        found.append(
            Against(
                active_digest=active,
                active_release=releases.get(active),
                matrix=matrix.of(one for name in devices for one in counted[active, name]),
                devices=[OfDevice(device=name, matrix=matrix.of(counted[active, name])) for name in devices],
            )
        )
    return sorted(found, key=lambda one: str(one.matrix.last_at), reverse=True)


def evidence(session: Session, model: str, digest: str, device: str | None = None) -> list[Evidence]:
    """Return what the devices that have the candidate, or are asked to, say of it, by device."""
    asked = _asked(session, digest)
    kept = dict(
        session.exec(
            select(ShadowPairRow.device, func.count())
            .where(ShadowPairRow.digest == digest)
            .group_by(col(ShadowPairRow.device))
        ).all()
    )
    names = [device] if device is not None else sorted(asked | kept.keys())
    rows = {row.id: row for row in session.exec(select(Device).where(col(Device.id).in_(names)))}
    newest = retention.newest_health(session, names)
    return [
        _evidence(rows[name], model, digest, name in asked, kept.get(name, 0), newest.get(name))
        for name in names
        if name in rows
    ]


def disagreements(
    session: Session,
    digest: str,
    *,
    device: str | None = None,
    active_digest: str | None = None,
    limit: int,
    after: Sequence[str | int] | None = None,
) -> tuple[list[ShadowPairRow], list[str | int] | None]:
    """Return parts on which the two disagree, the newest part first.

    Args:
        after: the last part of the page before: inspection's id and device.

    Returns:
        The rows, and `after` of the next page or None.
    """
    part, owner = col(ShadowPairRow.inspection_id), col(ShadowPairRow.device)
    statement = select(ShadowPairRow).where(ShadowPairRow.digest == digest)
    statement = statement.where(text("disagreed = 1"))  # literally what the partial index says: SQLite asks so
    if device is not None:
        statement = statement.where(owner == device)
    if active_digest is not None:
        statement = statement.where(ShadowPairRow.active_digest == active_digest)
    if after is not None:
        statement = statement.where(tuple_(part, owner) < (moments.id_bytes(str(after[0])), str(after[1])))
    rows = list(session.exec(statement.order_by(part.desc(), owner.desc()).limit(limit + 1)))
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], [moments.id_text(last.inspection_id), last.device]


def _counted(session: Session, digest: str, device: str | None) -> dict[tuple[str, str], list[Counted]]:
    at = col(ShadowPairRow.at_us)
    keys: list[Any] = [
        col(ShadowPairRow.active_digest),
        col(ShadowPairRow.device),
        col(ShadowPairRow.active_verdict),
        col(ShadowPairRow.verdict),
    ]
    statement: Any = select(*keys, func.count(), func.min(at), func.max(at)).where(ShadowPairRow.digest == digest)  # type: ignore[call-overload]
    if device is not None:
        statement = statement.where(ShadowPairRow.device == device)
    found: dict[tuple[str, str], list[Counted]] = {}
    for active, name, active_verdict, verdict, count, first_us, last_us in session.exec(statement.group_by(*keys)):
        found.setdefault((active, name), []).append(
            Counted(
                active_verdict=active_verdict,
                verdict=verdict,
                count=int(count),
                first_at=moments.from_us(first_us),
                last_at=moments.from_us(last_us),
            )
        )
    return found


def _asked(session: Session, digest: str) -> set[str]:
    """Return the devices whose desired document names the candidate."""
    rows = session.exec(select(DesiredDocument).where(col(DesiredDocument.body).contains(digest)))
    return {
        row.device
        for row in rows
        if any(model.shadow == digest for model in codec.decode(row.body.encode(), Desired).models)
    }


def _evidence(row: Device, model: str, digest: str, asked: bool, kept: int, newest: DeviceHealth | None) -> Evidence:
    health = codec.decode(newest.body.encode(), Health) if newest is not None else None
    reported = codec.decode(row.reported.encode(), Reported) if row.reported is not None else None
    mine = [one for one in reported.models if one.model == model] if reported is not None else []
    runs = any(one.shadow_digest == digest for one in mine)
    trouble = [one.shadow_trouble for one in mine if asked and not runs and one.shadow_trouble]
    told = [one for station in health.stations for one in station.shadows if one.digest == digest] if health else []
    skipped: dict[str, int] = {}
    for one in told:
        for reason, count in one.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
    return Evidence(
        device=row.id,
        asked=asked,
        runs=runs if reported is not None else None,
        trouble="; ".join(trouble),
        told_at=health.at if told and health is not None else None,
        chosen=sum(one.chosen for one in told),
        compared=sum(one.compared for one in told),
        disagreed=sum(one.disagreed for one in told),
        skipped=skipped,
        kept=kept,
    )
