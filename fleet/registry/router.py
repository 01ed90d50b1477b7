"""Models and their versions over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response
from sqlmodel import col, func, select

from fleet.auth.guard import Releaser, Viewer
from fleet.registry import service
from fleet.registry.tables import Model, ModelVersion
from fleet.web import Page, Paged, Reading, TheFleet, Writing, body_schema, fetch_page
from wire import package
from wire.errors import LinesideError
from wire.package import PackageIndex

router = APIRouter(tags=["models"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A model, how many versions it has, and the highest release."""

    name: str
    created_at: datetime
    versions: int
    newest_release: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionView:
    """A model version; `bytes` is the sum of its files."""

    model: str
    release: int
    digest: str
    task: str
    bytes: int
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDetail:
    """A model version with its index and manifest (`wire.package.PackageIndex`, `wire.manifest.Manifest`)."""

    version: VersionView
    index: dict[str, Any]
    manifest: dict[str, Any]


async def _index_bytes(request: Request) -> bytes:
    return await request.body()


IndexBody = Annotated[bytes, Depends(_index_bytes)]


@router.post("/models/{name}/versions", status_code=HTTPStatus.CREATED, openapi_extra=body_schema(PackageIndex))
def push_version(
    actor: Releaser, fleet: TheFleet, name: str, data: IndexBody, response: Response, session: Writing
) -> VersionView:
    """Register a version by its index, once its files are uploaded: 201 when new, 200 when it was there."""
    index = package.read_index(data)
    if index.model != name:
        raise LinesideError("package.invalid", f"The index is of {index.model!r}, not {name!r}.", "Use its own path.")
    row, new = service.push(session, fleet.blobs, index, by=actor, now=fleet.now())
    if not new:
        response.status_code = HTTPStatus.OK
    return _view(row)


@router.get("/models")
def list_models(_actor: Viewer, session: Reading, page: Paged) -> Page[ModelView]:
    """List models by name."""
    rows, cursor = fetch_page(session, select(Model), [col(Model.name)], page)
    counts = {
        model: (versions, newest)
        for model, versions, newest in session.exec(
            select(ModelVersion.model, func.count(), func.max(ModelVersion.release))
            .where(col(ModelVersion.model).in_([row.name for row in rows]))
            .group_by(col(ModelVersion.model))
        ).all()
    }
    items = []
    for row in rows:
        versions, newest = counts.get(row.name, (0, None))
        items.append(ModelView(name=row.name, created_at=row.created_at, versions=versions, newest_release=newest))
    return Page(items=items, next_cursor=cursor)


@router.get("/models/{name}/versions")
def list_versions(_actor: Viewer, session: Reading, page: Paged, name: str) -> Page[VersionView]:
    """List a model's versions, the highest release first."""
    if session.get(Model, name) is None:
        raise LinesideError("resource.not_found", f"There is no model {name!r}.", "See `lineside-fleet models list`.")
    statement = select(ModelVersion).where(ModelVersion.model == name)
    rows, cursor = fetch_page(session, statement, [col(ModelVersion.release)], page, newest_first=True)
    return Page(items=[_view(row) for row in rows], next_cursor=cursor)


@router.get("/models/{name}/versions/{release}")
def show_version(
    _actor: Viewer, session: Reading, name: str, release: Annotated[int, Path(ge=1, le=2**53)]
) -> VersionDetail:
    """Show one version."""
    row = service.version(session, name, release)
    return VersionDetail(
        version=_view(row),
        index=msgspec.json.decode(row.index_json),
        manifest=msgspec.json.decode(row.manifest_json),
    )


def _view(row: ModelVersion) -> VersionView:
    return VersionView(**{name: getattr(row, name) for name in VersionView.__dataclass_fields__})
