"""Enrolment: one-use claims, and the credential a device gets for one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session, col, select, update

from fleet.audit import service as audit
from fleet.auth import secret
from fleet.auth.actor import Actor, Kind
from fleet.deployments import service as deployments
from fleet.devices.tables import Claim, Device
from wire import ids
from wire.enrolment import EnrolmentRequest
from wire.errors import LinesideError

DEFAULT_VALID: Final = timedelta(minutes=60)
MAX_VALID: Final = timedelta(days=30)


def create_claim(session: Session, *, device: str, by: Actor, now: datetime, valid: timedelta = DEFAULT_VALID) -> str:
    """Make a claim token for one device; the secret is returned this once.

    Raises:
        LinesideError: `usage.invalid` for a name that is no name, or a time that is not allowed.
    """
    if not ids.is_name(device):
        raise LinesideError("usage.invalid", f"{device!r} is not a name.", "Use small letters, digits and hyphens.")
    if not timedelta(0) < valid <= MAX_VALID:
        raise LinesideError("usage.invalid", f"A claim cannot be valid for {valid}.", f"Choose up to {MAX_VALID}.")
    plain = secret.make(secret.CLAIM)
    session.add(
        Claim(
            secret_hash=secret.hash_of(plain),
            device=device,
            created_at=now,
            created_by=by.label,
            expires_at=now + valid,
        )
    )
    detail = {"valid_minutes": round(valid.total_seconds() / 60)}
    audit.record(session, actor=by.label, action="claim.created", subject=device, detail=detail, at=now)
    return plain


def enrol(session: Session, request: EnrolmentRequest, *, now: datetime) -> str:
    """Use up a claim and give the device its credential, which is returned this once.

    A device that was enrolled before (a new disk, or revoked and claimed anew) keeps its history, loses its old
    credential, and its boots are counted from the beginning. Deployments that its revocation has ended go on.

    Raises:
        LinesideError: `claim.invalid`, the same for unknown, used, expired and meant for another device.
    """
    used = session.exec(
        update(Claim)
        .where(col(Claim.secret_hash) == secret.hash_of(request.claim_token))
        .where(col(Claim.device) == request.device)
        .where(col(Claim.used_at).is_(None))
        .where(col(Claim.expires_at) > now)
        .values(used_at=now)
    )
    if used.rowcount != 1:
        raise LinesideError(
            "claim.invalid",
            f"The claim token does not enrol {request.device!r}: it is unknown, used, expired or for another device.",
            f"Make a new one: lineside-fleet claim create --device {request.device}",
        )
    plain = secret.make(secret.DEVICE)
    device = session.exec(select(Device).where(Device.id == request.device)).first()
    again = device is not None
    if device is None:
        device = Device(
            id=request.device,
            shard=ids.shard_of(request.device),
            credential_lookup="",
            credential_hash="",
            enrolled_at=now,
            architecture="",
            agent_version="",
        )
    device.credential_lookup = secret.lookup_of(plain)
    device.credential_hash = secret.hash_of(plain)
    device.architecture = request.architecture
    device.agent_version = request.agent_version
    if device.revoked_at is not None:
        deployments.reopen_removed(session, device.id, device.revoked_at, now)
    device.revoked_at = None
    device.online, device.boot, device.state_revision = False, 0, 0
    session.add(device)
    audit.record(
        session,
        actor=f"{Kind.DEVICE}:{device.id}",
        action="device.enrolled",
        subject=device.id,
        detail={"again": again, "agent_version": request.agent_version, "architecture": request.architecture},
        at=now,
    )
    return plain
