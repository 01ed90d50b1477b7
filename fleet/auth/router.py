"""Signing in and out with a browser; `GET /sign-in`, the page itself, is one of the pages."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from fleet.auth import guard, service
from fleet.web import TheFleet, Writing
from wire.errors import LinesideError

router = APIRouter(tags=["sign-in"])
MAX_FORM_BYTES: Final = 4096


async def _form_token(request: Request) -> str:
    data = await request.body()
    if len(data) > MAX_FORM_BYTES:
        raise LinesideError("request.too_large", f"The form may have at most {MAX_FORM_BYTES} bytes.")
    try:
        fields = parse_qs(data.decode("ascii"), strict_parsing=bool(data), max_num_fields=8)
    except ValueError as error:
        raise LinesideError("request.invalid", "The form cannot be read.", "Use the sign-in page.") from error
    return fields.get("token", [""])[0].strip()[: service.MAX_SECRET_CHARS]


@router.post("/sign-in", status_code=HTTPStatus.SEE_OTHER)
def sign_in(
    request: Request, fleet: TheFleet, token: Annotated[str, Depends(_form_token)], session: Writing
) -> Response:
    """Take an operator token from the sign-in form and give the browser a session cookie."""
    guard.require_same_origin(request)
    cookie = service.sign_in(session, token, now=fleet.now(), hours=fleet.settings.session_hours)
    if cookie is None:
        return RedirectResponse("/sign-in?failed=1", status_code=HTTPStatus.SEE_OTHER)
    answer = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        guard.COOKIE,
        cookie,
        max_age=fleet.settings.session_hours * 3600,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return answer


@router.post("/sign-out", status_code=HTTPStatus.SEE_OTHER)
def sign_out(request: Request, fleet: TheFleet, session: Writing) -> Response:
    """End the browser's session."""
    guard.require_same_origin(request)
    service.sign_out(session, request.cookies.get(guard.COOKIE, ""), now=fleet.now())
    answer = RedirectResponse("/sign-in", status_code=HTTPStatus.SEE_OTHER)
    answer.delete_cookie(guard.COOKIE, path="/", httponly=True, samesite="strict")
    return answer
