"""Makes and checks tokens and sessions."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlmodel import Session, col, delete, select

from fleet.audit import service as audit
from fleet.auth import secret
from fleet.auth.actor import Actor, Kind, Role
from fleet.auth.tables import BrowserSession, OperatorToken
from fleet.devices.tables import Device
from wire import ids
from wire.errors import LinesideError

MAX_SECRET_CHARS = 200


def create_token(
    session: Session, *, name: str, role: Role, by: Actor, now: datetime, expires_at: datetime | None = None
) -> str:
    """Make an operator token; the secret is returned this once.

    Raises:
        LinesideError: `usage.invalid` for a name that is no name, `resource.conflict` where it is taken.
    """
    if not ids.is_name(name):
        raise LinesideError("usage.invalid", f"{name!r} is not a name.", "Use small letters, digits and hyphens.")
    if session.exec(select(OperatorToken).where(OperatorToken.name == name)).first() is not None:
        raise LinesideError("resource.conflict", f"There is a token named {name!r} already.", "Choose another name.")
    plain = secret.make(secret.OPERATOR)
    session.add(
        OperatorToken(
            name=name,
            role=role.value,
            lookup=secret.lookup_of(plain),
            secret_hash=secret.hash_of(plain),
            created_at=now,
            expires_at=expires_at,
        )
    )
    audit.record(session, actor=by.label, action="token.created", subject=name, detail={"role": role.value}, at=now)
    return plain


def actor_of_token(session: Session, plain: str, now: datetime) -> Actor | None:
    """Return whose operator token this is; None where it is unknown, revoked or expired."""
    row = _token(session, plain)
    return _actor(row, now) if row is not None else None


def actor_of_device(session: Session, plain: str) -> Actor | None:
    """Return which device's credential this is, None where it is unknown.

    Raises:
        LinesideError: `device.revoked`.
    """
    row = session.exec(select(Device).where(Device.credential_lookup == secret.lookup_of(plain))).first()
    if row is None or not secret.matches(plain, row.credential_hash):
        return None
    if row.revoked_at is not None:
        raise LinesideError("device.revoked", f"The device {row.id!r} is revoked.", "Enrol it again with a new claim.")
    return Actor(kind=Kind.DEVICE, name=row.id)


def sign_in(session: Session, plain: str, *, now: datetime, hours: int) -> str | None:
    """Begin a browser's session with an operator token; returns its secret, or None where the token is not valid."""
    row = _token(session, plain)
    actor = _actor(row, now) if row is not None else None
    if row is None or row.id is None or actor is None:
        return None
    session.exec(delete(BrowserSession).where(col(BrowserSession.expires_at) <= now))
    cookie = secret.make(secret.SESSION)
    session.add(
        BrowserSession(
            secret_hash=secret.hash_of(cookie),
            token_id=row.id,
            created_at=now,
            expires_at=now + timedelta(hours=hours),
        )
    )
    audit.record(session, actor=actor.label, action="session.started", subject=actor.name, at=now)
    return cookie


def sign_out(session: Session, cookie: str, *, now: datetime) -> None:
    """End a browser's session."""
    row = session.get(BrowserSession, secret.hash_of(cookie))
    if row is None:
        return
    token = session.get(OperatorToken, row.token_id)
    name = token.name if token is not None else ""
    session.delete(row)
    audit.record(session, actor=f"{Kind.OPERATOR}:{name}", action="session.ended", subject=name, at=now)


def actor_of_session(session: Session, cookie: str, now: datetime) -> Actor | None:
    """Return who is signed in with this cookie; None where it is unknown, expired, or its token no longer stands."""
    # The key is the hash of 256 random bits, so finding the row is the comparison.
    row = session.get(BrowserSession, secret.hash_of(cookie))
    if row is None or row.expires_at <= now:
        return None
    token = session.get(OperatorToken, row.token_id)
    return _actor(token, now) if token is not None else None


def _token(session: Session, plain: str) -> OperatorToken | None:
    row = session.exec(select(OperatorToken).where(OperatorToken.lookup == secret.lookup_of(plain))).first()
    return row if row is not None and secret.matches(plain, row.secret_hash) else None


def _actor(row: OperatorToken, now: datetime) -> Actor | None:
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        return None
    return Actor(kind=Kind.OPERATOR, name=row.name, role=Role(row.role))
