"""Tables of the devices, the claims they enrol with, their health and their events."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel, UniqueConstraint

from fleet.db import UtcTime


class Device(SQLModel, table=True):
    """One enrolled device.

    `boot` and `state_revision` belong to the newest state taken; `reported` is its reported document as JSON. The
    device has been online, or offline, since `state_at`.
    """

    __tablename__ = "device"

    id: str = Field(primary_key=True, max_length=64)
    shard: str = Field(max_length=2, index=True)
    credential_lookup: str = Field(unique=True, max_length=32)
    credential_hash: str = Field(max_length=64)
    enrolled_at: datetime = Field(sa_type=UtcTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcTime)
    architecture: str = Field(max_length=200)
    agent_version: str = Field(max_length=200)
    online: bool = False
    boot: int = Field(default=0, sa_type=BigInteger)
    state_revision: int = Field(default=0, sa_type=BigInteger)
    state_at: datetime | None = Field(default=None, sa_type=UtcTime)
    last_seen_at: datetime | None = Field(default=None, sa_type=UtcTime)
    reported: str | None = None
    reported_at: datetime | None = Field(default=None, sa_type=UtcTime)


class Claim(SQLModel, table=True):
    """A one-use right to enrol one device; `used_at` is set by the enrolment that wins."""

    __tablename__ = "claim"

    secret_hash: str = Field(primary_key=True, max_length=64)
    device: str = Field(max_length=64, index=True)
    created_at: datetime = Field(sa_type=UtcTime)
    created_by: str = Field(max_length=100)
    expires_at: datetime = Field(sa_type=UtcTime)
    used_at: datetime | None = Field(default=None, sa_type=UtcTime)


class DeviceHealth(SQLModel, table=True):
    """One health record; `body` is `wire.messages.Health` as JSON. Only the newest of each device are kept."""

    __tablename__ = "device_health"
    __table_args__ = (UniqueConstraint("device", "epoch", "seq"),)

    id: int | None = Field(default=None, primary_key=True)
    device: str = Field(foreign_key="device.id", max_length=64, index=True)
    epoch: str = Field(max_length=16)
    seq: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=UtcTime)
    received_at: datetime = Field(sa_type=UtcTime)
    body: str


class DeviceEvent(SQLModel, table=True):
    """One event of a device. Only the newest of each device are kept."""

    __tablename__ = "device_event"
    __table_args__ = (UniqueConstraint("device", "epoch", "seq"),)

    id: int | None = Field(default=None, primary_key=True)
    device: str = Field(foreign_key="device.id", max_length=64, index=True)
    epoch: str = Field(max_length=16)
    seq: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=UtcTime)
    received_at: datetime = Field(sa_type=UtcTime)
    name: str = Field(max_length=64)
    severity: str = Field(max_length=16)
    text: str = Field(max_length=1000)
