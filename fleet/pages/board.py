"""What the live page shows, as one plain value: the page is rendered from it, and its script is sent it as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func
from sqlmodel import Session, col, select

from fleet.deployments import drift
from fleet.deployments.deviation import Deviation
from fleet.deployments.tables import Deployment, VersionChange
from fleet.devices import retention
from fleet.devices.tables import Device, DeviceHealth
from fleet.inspections import moments
from fleet.inspections import service as inspections
from fleet.pages import deployment_lines, words
from fleet.registry.tables import ModelVersion
from wire import codec
from wire.desired import Desired
from wire.messages import Health, Reported

MAX_DEVICES: Final = 200
MAX_PICTURES: Final = 8
MIX_WINDOW: Final = timedelta(hours=1)
LABEL_OF_WIDTH: Final = 16
HEALTH_STALE_S: Final = 35  # three records missed

Board = dict[str, Any]


def take(session: Session, is_present: Callable[[str], bool], now: datetime) -> Board:
    """Read the board.

    Args:
        is_present: tells whether the blob with a digest is here.
    """
    found = session.exec(
        select(Device).where(col(Device.revoked_at).is_(None)).order_by(col(Device.id)).limit(MAX_DEVICES)
    ).all()
    total = session.exec(select(func.count()).select_from(Device).where(col(Device.revoked_at).is_(None))).one()
    names = [device.id for device in found]
    reported = {
        device.id: codec.decode(device.reported.encode(), Reported) for device in found if device.reported is not None
    }
    known = drift.known(session, names, reported)
    desired = known.desired
    releases = {**known.releases, **_releases(session, desired.values())}
    since = _since(session, names)
    deployments = _deployments_of(session, desired.values())
    minutes = inspections.verdicts_per_minute(session, now - MIX_WINDOW)
    health = retention.newest_health(session, names)
    devices = [
        {
            "key": device.id,
            "name": device.id,
            "presence": "online" if device.online else "offline",
            "seen": words.stamp_or_none(device.last_seen_at),
            "running": _running(
                device.id,
                drift.in_use(device.id, known, reported.get(device.id)),
                releases,
                since,
                drift.deviations(device.id, known, reported.get(device.id)),
            ),
            "wanted": deployment_lines.wanted(
                desired.get(device.id),
                deployments,
                releases,
                deployment_lines.shadows(health.get(device.id)),
                reported.get(device.id),
            ),
            **_verdicts(minutes.get(device.id, {}), now),
            **_health_fields(health.get(device.id), now, online=device.online),
        }
        for device in found
    ]
    return {
        "at": words.stamp(now),
        "summary": _summary(devices, total),
        "more": f"{total - len(found)} more devices are not shown here; the API lists them."
        if total > len(found)
        else "",
        "devices": devices,
        "pictures": [_picture(one) for one in inspections.latest_pictures(session, is_present, MAX_PICTURES)],
        "deployments": deployment_lines.recent(session),
    }


def _releases(session: Session, desired: Iterable[Desired]) -> dict[str, int]:
    """Return the release counter of each digest that is asked for, where the registry knows it."""
    digests = {digest for one in desired for model in one.models for digest in (model.active, model.shadow) if digest}
    rows = session.exec(select(ModelVersion.digest, ModelVersion.release).where(col(ModelVersion.digest).in_(digests)))
    return dict(rows.all())


def _since(session: Session, names: list[str]) -> dict[tuple[str, str], datetime]:
    newest = func.max(VersionChange.since)
    rows = session.exec(
        select(VersionChange.device, VersionChange.model, newest)
        .where(col(VersionChange.device).in_(names))
        .group_by(col(VersionChange.device), col(VersionChange.model))
    )
    return {(device, model): since for device, model, since in rows}


def _deployments_of(session: Session, desired: Iterable[Desired]) -> dict[str, Deployment]:
    wanted = [model.deployment_id for one in desired for model in one.models]
    return {row.id: row for row in session.exec(select(Deployment).where(col(Deployment.id).in_(wanted)))}


def _running(
    device: str,
    in_use: Mapping[str, str | None],
    releases: Mapping[str, int],
    since: Mapping[tuple[str, str], datetime],
    deviations: Sequence[Deviation],
) -> list[dict[str, Any]]:
    wrong = {one.model: one for one in deviations}
    return [
        {
            "key": model,
            "model": model,
            "release": deployment_lines.release_words(digest, releases),
            "digest": words.short(digest),
            "full_digest": digest or "",
            "since": words.stamp_or_none(since.get((device, model))),
            "deviates": deployment_lines.deviates(wrong.get(model)),
        }
        for model, digest in in_use.items()
    ]


def _verdicts(minutes: Mapping[int, Mapping[str, int]], now: datetime) -> dict[str, Any]:
    counts = {verdict: sum(one.get(verdict, 0) for one in minutes.values()) for verdict in words.VERDICTS}
    this_minute = moments.to_us(now) // moments.MINUTE_US * moments.MINUTE_US
    last = sum(minutes.get(this_minute - moments.MINUTE_US, {}).values())
    current = sum(minutes.get(this_minute, {}).values())
    return {
        "counts": {verdict: str(count) for verdict, count in counts.items()},
        "bar": words.bar(counts),
        "mix": ", ".join(f"{verdict} {count}" for verdict, count in counts.items()),
        "last_minute": str(last),
        "this_minute": str(current),
    }


def _health_fields(row: DeviceHealth | None, now: datetime, *, online: bool) -> dict[str, Any]:
    """Return the newest health; of a device that is away it is old, even if a person has just brought it in a file."""
    if row is None:
        return {"health_at": None, "health": "none", "cpu": "-", "memory": "-", "disk": "-", "backlog": "-"}
    health = codec.decode(row.body.encode(), Health)
    dropped = f", {health.outbox_dropped} dropped" if health.outbox_dropped else ""
    return {
        "health_at": words.stamp_or_none(row.received_at),
        "health": "stale" if not online or (now - row.received_at).total_seconds() > HEALTH_STALE_S else "fresh",
        "cpu": f"{health.cpu_fraction:.0%}",
        "memory": words.size(health.rss_bytes),
        "disk": f"{health.disk_free_fraction:.0%} free",
        "backlog": f"{health.outbox_unsettled} waiting{dropped}",
    }


def _picture(picture: inspections.Picture) -> dict[str, Any]:
    inspection, view = picture.inspection, picture.view
    text_px = round((view.width_px or 0) / LABEL_OF_WIDTH, 1)
    boxes = [
        {
            "x": finding.box.x1_px,
            "y": finding.box.y1_px,
            "width": max(0.0, finding.box.x2_px - finding.box.x1_px),
            "height": max(0.0, finding.box.y2_px - finding.box.y1_px),
            "label": f"{finding.label} {finding.score:.2f}",
            # Above the box where there is room, otherwise inside it.
            "text_y": finding.box.y1_px - 3 if finding.box.y1_px > text_px + 3 else finding.box.y1_px + text_px,
        }
        for finding in view.findings
        if finding.box is not None
    ]
    findings = ", ".join(f"{finding.label} {finding.score:.2f}" for finding in view.findings[:6])
    return {
        "key": inspection.id,
        "src": f"/pictures/{picture.digest}",
        "alt": f"Part at {inspection.device}, {inspection.station}: {inspection.verdict}; {findings or 'no findings'}",
        "width": view.width_px or 0,
        "height": view.height_px or 0,
        "text_px": text_px,
        "boxes": boxes,
        "verdict": inspection.verdict.value,
        "where": f"{inspection.device} / {inspection.station} / {view.view}",
        "findings": findings or "no findings",
        "score": f"score {inspection.score:.2f}",
        "judged": words.stamp_or_none(inspection.judged_at),
    }


def _summary(devices: list[dict[str, Any]], total: int) -> str:
    """Return the one sentence that is read aloud when it changes; it holds nothing that changes all the time."""
    online = sum(device["presence"] == "online" for device in devices)
    parts = [f"{online} of {words.plural(total, 'device')} online."]
    running: dict[str, int] = {}
    for device in devices:
        for model in device["running"]:
            name = f"{model['model']} {model['release']}"
            running[name] = running.get(name, 0) + 1
    if running:
        parts.append(", ".join(f"{name} on {count}" for name, count in sorted(running.items())) + ".")
    bad = sum(line["tone"] == "bad" for device in devices for line in device["wanted"])
    if bad:
        parts.append(f"{words.plural(bad, 'deployment')} refused or failed.")
    return " ".join(parts)
