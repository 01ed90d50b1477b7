"""The pages: sign-in, the live board, its stream, its pictures and its own files."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse

from fleet.auth import guard
from fleet.auth.actor import Actor, Role
from fleet.pages import words
from fleet.pages.live import Live
from fleet.web import Fleet, TheFleet, url_pattern
from wire import ids
from wire.errors import LinesideError

router = APIRouter(tags=["pages"])
_HERE: Final = Path(__file__).parent
_FILES: Final = {
    "icon.svg": "image/svg+xml",
    "live.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "sign-in.js": "text/javascript; charset=utf-8",
}
# Blobs come from devices: only what begins like a picture is served as one.
_PICTURES: Final = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_NO_STORE: Final = {"Cache-Control": "no-store"}
_lives_lock = threading.Lock()


@router.get("/")
def show_board(request: Request, fleet: TheFleet) -> Response:
    """Show the live board, complete without its script."""
    actor = guard.signed_in(request, fleet)
    if actor is None or not actor.may(Role.VIEWER):
        return RedirectResponse("/sign-in", status_code=HTTPStatus.SEE_OTHER)
    return _page("board.html", fleet, board=_live_of(request, fleet).latest().board, actor=actor.name)


@router.get("/sign-in")
def show_sign_in(
    request: Request, fleet: TheFleet, failed: Annotated[str | None, Query(max_length=8)] = None
) -> Response:
    """Show the form that exchanges a token for a session."""
    if failed is None and guard.signed_in(request, fleet) is not None:
        return RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
    return _page("sign-in.html", fleet, failed=failed is not None)


@router.get("/live")
async def stream_board(request: Request, fleet: TheFleet) -> Response:
    """Stream the board as server-sent events while the browser stays signed in."""
    await run_in_threadpool(_require_viewer, request, fleet)
    live = _live_of(request, fleet)
    live.require_room()

    async def goes_on() -> bool:
        if await request.is_disconnected():
            return False
        return await run_in_threadpool(guard.signed_in, request, fleet) is not None

    events: AsyncIterator[bytes] = live.follow(goes_on)
    return StreamingResponse(events, media_type="text/event-stream", headers={**_NO_STORE, "X-Accel-Buffering": "no"})


@router.get("/pictures/{digest}")
def show_picture(
    request: Request, fleet: TheFleet, digest: Annotated[str, InPath(pattern=url_pattern(ids.DIGEST_PATTERN))]
) -> Response:
    """Return a kept picture; a blob that is no picture is not shown as one."""
    _require_viewer(request, fleet)
    pieces = fleet.blobs.open(digest)
    first = next(pieces, b"")
    kind = next((kind for start, kind in _PICTURES.items() if first.startswith(start)), None)
    if kind is None:
        raise LinesideError("resource.not_found", f"{digest} is no picture.")

    def body() -> Iterator[bytes]:
        yield first
        yield from pieces

    return StreamingResponse(body(), media_type=kind, headers={"Cache-Control": "private, max-age=31536000, immutable"})


@router.get("/static/{name}")
def show_file(name: str) -> Response:
    """Return one of the pages' own files."""
    if name not in _FILES:
        raise LinesideError("resource.not_found", f"There is nothing at /static/{name}.")
    return FileResponse(_HERE / "static" / name, media_type=_FILES[name], headers={"Cache-Control": "no-cache"})


def _require_viewer(request: Request, fleet: Fleet) -> Actor:
    actor = guard.signed_in(request, fleet)
    if actor is None or not actor.may(Role.VIEWER):
        raise LinesideError("access.unauthenticated", "Nobody is signed in.", "Open /sign-in.")
    return actor


def _live_of(request: Request, fleet: Fleet) -> Live:
    """Return the application's one `Live`, made at its first use."""
    state = request.app.state
    with _lives_lock:
        live: Live | None = getattr(state, "live", None)
        if live is None:
            live = state.live = Live(fleet)
    return live


def _page(name: str, fleet: Fleet, **values: Any) -> Response:
    now = fleet.now()
    text = (
        _templates()
        .get_template(name)
        .render(
            now=words.stamp(now),
            now_words=words.clock(now),
            ago=functools.partial(_ago, now),
            verdicts=words.VERDICTS,
            **values,
        )
    )
    return HTMLResponse(text, headers=_NO_STORE)


def _ago(now: datetime, stamp: str | None) -> str:
    if stamp is None:
        return "never"
    return words.age((now - datetime.fromisoformat(stamp)).total_seconds())


@functools.cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
