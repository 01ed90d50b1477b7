"""Puts the fleet's web application together; nothing happens at import."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet import clock, problems
from fleet.audit import router as audit
from fleet.auth import router as auth
from fleet.blobs import router as blob_routes
from fleet.blobs.store import BlobStore
from fleet.deployments import router as deployments
from fleet.deployments.announce import Announcer
from fleet.devices import router as devices
from fleet.ingest import router as ingest
from fleet.ingest.exports import MAX_EXPORT_BYTES
from fleet.inspections import router as inspections
from fleet.migrations import runner
from fleet.pages import router as pages
from fleet.registry import router as registry
from fleet.settings import FleetSettings
from fleet.shadow import router as shadow
from fleet.web import Fleet, Reading, TheFleet
from wire import package
from wire.errors import LinesideError
from wire.mint import Mint

log = logging.getLogger(__name__)

API: Final = "/api/v1"
MAX_BODY_BYTES: Final = 1024 * 1024
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(
    settings: FleetSettings,
    engine: Engine,
    blobs: BlobStore,
    announce: Announcer,
    *,
    now: clock.Now = clock.utc_now,
) -> FastAPI:
    """Return the application over parts that are open already; the caller closes them.

    Raises:
        LinesideError: `database.not_current` when the application starts over an out-of-date schema.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        runner.require_current(engine)
        log.info("The fleet's API has started.", extra={"event": "api.started"})
        yield
        log.info("The fleet's API has stopped.", extra={"event": "api.stopped"})

    app = FastAPI(
        title="Lineside fleet",
        version="1",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # the stock pages load scripts from the internet
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.fleet = Fleet(settings=settings, engine=engine, blobs=blobs, announcer=announce, mint=Mint(), now=now)
    problems.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(SecurityHeaders)
    for one in (audit, devices, registry, blob_routes, deployments, inspections, ingest, shadow):
        app.include_router(one.router, prefix=API)
    app.include_router(auth.router, include_in_schema=False)
    app.include_router(pages.router, include_in_schema=False)
    app.add_api_route("/healthz", healthz, tags=["health"], summary="Whether the fleet can answer")
    app.add_api_route(f"{API}/healthz", healthz, include_in_schema=False)
    return app


def healthz(fleet: TheFleet, session: Reading) -> dict[str, str]:
    """Answer where the database does; also names the kind of broker in use."""
    session.connection().exec_driver_sql("SELECT 1")
    return {"status": "ok", "broker": fleet.settings.broker}


class BodyLimit:
    """Refuses a body over the limit: before it is read where its length is told, else at the first byte too many."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = _limit_of(scope["path"])
        refusal = LinesideError("request.too_large", f"The body may have at most {limit} bytes.", "Send less.")
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            await problems.respond(refusal)(scope, receive, send)
            return
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limit:
                raise refusal
            return message

        await self._app(scope, counted, send)


def _limit_of(path: str) -> int:
    if path.startswith(f"{API}/blobs/"):
        return package.MAX_FILE_BYTES
    if path.startswith(f"{API}/devices/") and path.endswith("/exports"):
        return MAX_EXPORT_BYTES
    return MAX_BODY_BYTES


class SecurityHeaders:
    """Adds the security headers to every answer that does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
