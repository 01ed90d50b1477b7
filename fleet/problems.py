"""Errors as RFC 9457 problems: what went wrong, its stable code and the next step; never a trace or a path inside."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from wire import codec
from wire.errors import LinesideError

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
_CODE_OF_STATUS: Final = {
    401: "access.unauthenticated",
    403: "access.forbidden",
    404: "resource.not_found",
    405: "request.invalid",
    412: "resource.stale",
    413: "request.too_large",
    415: "request.invalid",
    416: "request.invalid",
}


def problem(error: LinesideError, *, status: int | None = None) -> dict[str, Any]:
    """Return the body of a problem."""
    return {
        "type": f"urn:lineside:problem:{error.code}",
        "title": error.entry.title,
        "status": status or error.entry.http_status,
        "detail": error.message,
        "code": error.code,
        "next_step": error.next_step,
    }


def respond(error: LinesideError, *, status: int | None = None, headers: dict[str, str] | None = None) -> Response:
    """Return the answer for an error; a 401 says how to sign in."""
    body = problem(error, status=status)
    extra = dict(headers or {})
    if body["status"] == HTTPStatus.UNAUTHORIZED:
        extra["WWW-Authenticate"] = "Bearer"
    return Response(codec.encode(body), status_code=body["status"], media_type=MEDIA_TYPE, headers=extra)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    app.add_exception_handler(LinesideError, _on_lineside)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(OperationalError, _on_database)
    app.add_exception_handler(Exception, _on_unexpected)


def _on_lineside(request: Request, error: Exception) -> Response:
    assert isinstance(error, LinesideError)  # noqa: S101
    if error.entry.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s failed: %s", request.method, request.url.path, error, extra={"event": "request.failed"})
    return respond(error)


def _on_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    places = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5]]
    return respond(LinesideError("request.invalid", "; ".join(places) + ".", "Correct the request."))


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    fallback = "request.invalid" if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else "internal.unexpected"
    code = _CODE_OF_STATUS.get(error.status_code, fallback)
    messages = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.method} is not possible at {request.url.path}.",
        413: "The body is over the limit for this path.",
    }
    detail = messages.get(error.status_code, str(error.detail))
    return respond(LinesideError(code, detail), status=error.status_code, headers=dict(error.headers or {}))


def _on_database(request: Request, error: Exception) -> Response:
    log.error(
        "%s %s failed in the database: %s",
        request.method,
        request.url.path,
        error.__cause__ or type(error).__name__,
        extra={"event": "database.failed"},
    )
    text = str(error.__cause__ or "").lower()
    if "disk is full" in text or "disk i/o" in text:
        return respond(LinesideError("storage.full", "The database cannot be written.", "Make room, then try again."))
    busy = LinesideError("internal.unexpected", "The database is busy or cannot be used.", "Try again in a moment.")
    return respond(busy, status=503, headers={"Retry-After": "2"})


def _on_unexpected(request: Request, error: Exception) -> Response:
    log.error(
        "%s %s ended in %s",
        request.method,
        request.url.path,
        type(error).__name__,
        exc_info=error,
        extra={"event": "request.crashed"},
    )
    return respond(
        LinesideError("internal.unexpected", "The fleet could not answer.", "Look into its log, and report the fault.")
    )
