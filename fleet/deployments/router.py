"""Desired documents, deployments and intervals over HTTP."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, BackgroundTasks, Depends, Header, Query
from sqlmodel import col, select
from starlette.responses import Response

from fleet.auth.guard import AnyActor, Operator, Viewer
from fleet.deployments import cancel, explain, progress, running, service
from fleet.deployments.document import DesiredChoice
from fleet.deployments.gathered import Chain
from fleet.deployments.tables import Deployment, ReportEntry
from fleet.devices import service as devices
from fleet.devices.router import require_self_or_person
from fleet.web import (
    Page,
    Paged,
    PageRequest,
    Reading,
    TheFleet,
    Writing,
    body_of,
    body_schema,
    fetch_page,
    url_pattern,
)
from wire import codec, ids
from wire.desired import Desired
from wire.errors import LinesideError

router = APIRouter(tags=["deployments"])


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentView:
    """One deployment.

    Args:
        release: None where neither the device nor the registry knows it: an unknown release.
        revision: of the desired document that asked for it.
        origin: `fleet`, or `device` where a person beside the machine asked; then `by` names them.
        created_by: `unknown` where the device says the fleet asked, and this database has no record of it.
        hold_text: what a person should know before they end the hold.
        probation: `wire.deployment.ProbationReport`, as far as it is told.
        irregular: counts reports the transition table does not know.
        installed_at: when the device said that it runs.
    """

    id: str
    device: str
    model: str
    release: int | None
    digest: str
    revision: int | None
    origin: str
    by: str
    state: str
    attempt: int
    hold_reason: str | None
    hold_until: datetime | None
    hold_text: str
    probation: dict[str, Any] | None
    code: str
    reason: str
    irregular: int
    created_at: datetime
    created_by: str
    updated_at: datetime
    installed_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """One report as it came; `report` is `wire.deployment.DeploymentReport`.

    Args:
        late: it came after the fleet had ended the deployment, which is expected and changes nothing.
    """

    received_at: datetime
    irregular: bool
    late: bool
    report: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentDetail:
    """One deployment and its reports, the oldest first."""

    deployment: DeploymentView
    reports: list[ReportView]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """What a device ran when."""

    items: list[running.Interval]


def _document(document: Desired) -> Response:
    headers = {"ETag": service.etag_of(document), "Cache-Control": "private, no-cache"}
    return Response(codec.encode(document), media_type="application/json", headers=headers)


@router.get("/devices/{device}/desired")
def read_desired(
    actor: AnyActor,
    session: Reading,
    device: str,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return the desired document; 304 where the device has it already."""
    require_self_or_person(actor.kind, actor.name, device)
    devices.require(session, device)
    document = service.desired_of(session, device)
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    tag = service.etag_of(document)
    if tag in tags:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    return _document(document)


@router.put("/devices/{device}/desired", openapi_extra=body_schema(DesiredChoice))
def write_desired(
    actor: Operator,
    fleet: TheFleet,
    background: BackgroundTasks,
    device: str,
    choice: Annotated[DesiredChoice, Depends(body_of(DesiredChoice))],
    session: Writing,
    if_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Replace the desired document, and wake the device once that is committed."""
    row = devices.require(session, device)
    if row.revoked_at is not None:
        raise LinesideError("device.revoked", f"The device {device!r} is revoked.", "Enrol it again with a new claim.")
    document, changed = service.set_desired(
        session, device=device, choice=choice, if_match=if_match, by=actor, ids=fleet.mint, now=fleet.now()
    )
    if changed:
        background.add_task(fleet.announcer.wake, device, document.revision)
    return _document(document)


@router.get("/deployments")
def list_deployments(
    _actor: Viewer,
    session: Reading,
    page: Paged,
    device: Annotated[str | None, Query(max_length=64)] = None,
    model: Annotated[str | None, Query(max_length=64)] = None,
    digest: Annotated[str | None, Query(max_length=64)] = None,
    state: Annotated[str | None, Query(max_length=32)] = None,
) -> Page[DeploymentView]:
    """List deployments, the newest first."""
    return _list(session, page, {"device": device, "model": model, "digest": digest, "state": state})


@router.get("/devices/{device}/deployments")
def list_device_deployments(_actor: Viewer, session: Reading, page: Paged, device: str) -> Page[DeploymentView]:
    """List one device's deployments, the newest first."""
    devices.require(session, device)
    return _list(session, page, {"device": device})


@router.get("/deployments/{deployment}")
def show_deployment(_actor: Viewer, session: Reading, deployment: str) -> DeploymentDetail:
    """Show one deployment with the reports about it."""
    row = session.get(Deployment, deployment)
    if row is None:
        raise LinesideError("resource.not_found", f"There is no deployment {deployment!r}.", "List deployments.")
    reports = session.exec(
        select(ReportEntry).where(ReportEntry.deployment_id == deployment).order_by(col(ReportEntry.sequence))
    ).all()
    return DeploymentDetail(
        deployment=_view(row),
        reports=[
            ReportView(
                received_at=one.received_at,
                irregular=one.irregular,
                late=row.state in progress.FLEET_ENDS and one.sequence > row.sequence,
                report=msgspec.json.decode(one.body),
            )
            for one in reports
        ],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """Why a deployment is taken back."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


@router.post("/deployments/{deployment}/cancel", openapi_extra=body_schema(CancelRequest))
def cancel_deployment(
    actor: Operator,
    fleet: TheFleet,
    background: BackgroundTasks,
    deployment: str,
    request: Annotated[CancelRequest, Depends(body_of(CancelRequest))],
    response: Response,
    session: Writing,
    if_match: Annotated[str | None, Header()] = None,
) -> DeploymentView:
    """Take an open deployment back: the desired document names what ran before again, or no version of the model.

    Done twice it changes nothing. `If-Match` may hold the ETag of the desired document; the answer has its new one.
    """
    done = cancel.cancel(session, deployment, reason=request.reason, if_match=if_match, by=actor, now=fleet.now())
    if done.changed:
        background.add_task(fleet.announcer.wake, done.deployment.device, done.document.revision)
    response.headers["ETag"] = service.etag_of(done.document)
    return _view(done.deployment)


@router.get("/devices/{device}/intervals")
def list_intervals(
    _actor: Viewer, session: Reading, device: str, model: Annotated[str | None, Query(max_length=64)] = None
) -> Intervals:
    """List what a device inferred with, from when to when."""
    devices.require(session, device)
    return Intervals(items=running.intervals(session, device, model))


@router.get("/devices/{device}/models/{model}/explain")
def explain_version(
    _actor: Viewer,
    fleet: TheFleet,
    session: Reading,
    device: str,
    model: str,
    release: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    digest: Annotated[str | None, Query(pattern=url_pattern(ids.DIGEST_PATTERN))] = None,
) -> Chain:
    """Explain why a device has not got a version, or that it has: all facts in order, and one sentence.

    Without release and digest, the version that the device is asked to run.
    """
    if release is not None and digest is not None:
        raise LinesideError("request.invalid", "A version is named by its release or by its digest.", "Name one.")
    return explain.of(
        session,
        devices.require(session, device),
        model,
        release=release,
        digest=digest,
        limits=fleet.settings.deployment_limits,
        now=fleet.now(),
    )


def _list(session: Reading, page: PageRequest, filters: dict[str, str | None]) -> Page[DeploymentView]:
    statement = select(Deployment)
    for name, value in filters.items():
        if value is not None:
            statement = statement.where(getattr(Deployment, name) == value)
    keys = [col(Deployment.created_at), col(Deployment.id)]
    rows, cursor = fetch_page(session, statement, keys, _place_of(page), newest_first=True)
    return Page(items=[_view(row) for row in rows], next_cursor=cursor)


def _place_of(page: PageRequest) -> PageRequest:
    """Read the time in a cursor."""
    if page.after is None:
        return page
    try:
        at, deployment = page.after
        place: Any = (datetime.fromisoformat(str(at)).astimezone(UTC), str(deployment))
    except (ValueError, OverflowError) as error:
        raise LinesideError(
            "request.invalid", "The cursor is not one of this list.", "Begin again without a cursor."
        ) from error
    return replace(page, after=place)


def _view(row: Deployment) -> DeploymentView:
    values = {name: getattr(row, name) for name in DeploymentView.__dataclass_fields__}
    values["probation"] = msgspec.json.decode(row.probation) if row.probation is not None else None
    return DeploymentView(**values)
