"""The dependencies that let a request pass: a bearer token, a device's credential, or a signed-in browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request

from fleet import db
from fleet.auth import secret, service
from fleet.auth.actor import Actor, Kind, Role
from fleet.web import Fleet, TheFleet
from wire.errors import LinesideError

COOKIE: Final = "lineside_session"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
SIGN_IN: Final = "Send `Authorization: Bearer <token>`; `lineside-fleet token create` makes one."


def signed_in(request: Request, fleet: Fleet) -> Actor | None:
    """Return who is signed in by browser; for pages, which lead others to the sign-in page."""
    cookie = request.cookies.get(COOKIE, "")
    if not cookie or len(cookie) > service.MAX_SECRET_CHARS:
        return None
    with db.read_session(fleet.engine) as session:
        return service.actor_of_session(session, cookie, fleet.now())


def any_credential(request: Request, fleet: TheFleet) -> Actor:
    """Return the actor of a request, person or device.

    Raises:
        LinesideError: `access.unauthenticated`, `device.revoked`, or `access.forbidden` where another site sent it.
    """
    header = request.headers.get("authorization")
    if header is None:
        actor = signed_in(request, fleet)
        if actor is None:
            raise LinesideError("access.unauthenticated", "The request carries no valid credential.", SIGN_IN)
        require_same_origin(request)
        return actor
    scheme, _, plain = header.partition(" ")
    plain = plain.strip()
    if scheme.lower() == "bearer" and 0 < len(plain) <= service.MAX_SECRET_CHARS:
        with db.read_session(fleet.engine) as session:
            if plain.startswith(secret.DEVICE):
                found = service.actor_of_device(session, plain)
            else:
                found = service.actor_of_token(session, plain, fleet.now())
        if found is not None:
            return found
    raise LinesideError("access.unauthenticated", "The credential is unknown, expired or revoked.", SIGN_IN)


AnyActor = Annotated[Actor, Depends(any_credential)]


def require(role: Role) -> Callable[[Actor], Actor]:
    """Return a dependency that gives the actor where it has at least `role`, and refuses others."""

    def check(actor: AnyActor) -> Actor:
        if not actor.may(role):
            raise LinesideError(
                "access.forbidden",
                f"{actor.label} may not do this: it needs the role {role}.",
                f"Use a token with the role {role} or a higher one.",
            )
        return actor

    return check


def require_device(actor: AnyActor) -> Actor:
    """Give the actor where it is a device, and refuse people."""
    if actor.kind is not Kind.DEVICE:
        raise LinesideError("access.forbidden", "Only a device may do this.", "Use the device's own credential.")
    return actor


def require_same_origin(request: Request) -> None:
    """Refuse a state-changing request that a page of another site made the browser send.

    Raises:
        LinesideError: `access.forbidden`.
    """
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("origin")
    if origin is not None:
        same = urlsplit(origin).netloc == request.headers.get("host", "") != ""
    else:
        same = request.headers.get("sec-fetch-site") == "same-origin"
    if not same:
        raise LinesideError("access.forbidden", "The request comes from another site.", "Use the fleet's own pages.")


Viewer = Annotated[Actor, Depends(require(Role.VIEWER))]
Operator = Annotated[Actor, Depends(require(Role.OPERATOR))]
Releaser = Annotated[Actor, Depends(require(Role.RELEASER))]
Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
TheDevice = Annotated[Actor, Depends(require_device)]
