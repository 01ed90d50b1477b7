"""Tables of desired documents, deployments, their reports, and the changes of what runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel, UniqueConstraint

from fleet.db import UtcTime


class DesiredDocument(SQLModel, table=True):
    """The desired document of one device in force; `body` is `wire.desired.Desired` as JSON."""

    __tablename__ = "desired_document"

    device: str = Field(primary_key=True, foreign_key="device.id", max_length=64)
    revision: int = Field(sa_type=BigInteger)
    body: str
    changed_at: datetime = Field(sa_type=UtcTime)
    changed_by: str = Field(max_length=100)


class Deployment(SQLModel, table=True):
    """One device x one model x one version; `sequence` is that of the newest report taken.

    Args:
        digest: no foreign key, since a person beside the machine may bring a version the registry never saw.
        release: None where neither the device nor the registry knows it.
        revision: of the desired document that first asked for it; None where none did, or it was made before 0003.
        origin, by: who asked (`wire.deployment.Origin`); `by` names the person where that was at the device.
        probation: `wire.deployment.ProbationReport` as JSON, of the newest report that had one.
        irregular: counts reports that the transition table does not allow from the state they met.
        installed_at: when the device said that the version runs, by its own clock where that can be right.
    """

    __tablename__ = "deployment"
    # Ids that a device makes tell the time by its own clock, which may be years off.
    __table_args__: ClassVar[Any] = (Index("ix_deployment_created_at_id", "created_at", "id"),)

    id: str = Field(primary_key=True, max_length=36)
    device: str = Field(foreign_key="device.id", max_length=64, index=True)
    model: str = Field(max_length=64)
    digest: str = Field(max_length=64, index=True)
    release: int | None = Field(default=None, sa_type=BigInteger)
    revision: int | None = Field(default=None, sa_type=BigInteger)
    origin: str = Field(default="fleet", max_length=16, sa_column_kwargs={"server_default": "fleet"})
    by: str = Field(default="", max_length=200, sa_column_kwargs={"server_default": ""})
    state: str = Field(max_length=32, index=True)
    sequence: int = Field(default=0, sa_type=BigInteger)
    attempt: int = Field(default=0, sa_type=BigInteger)
    hold_reason: str | None = Field(default=None, max_length=32)
    hold_until: datetime | None = Field(default=None, sa_type=UtcTime)
    hold_text: str = Field(default="", max_length=500, sa_column_kwargs={"server_default": ""})
    probation: str | None = None
    code: str = Field(default="", max_length=64)
    reason: str = Field(default="", max_length=1000)
    irregular: int = 0
    created_at: datetime = Field(sa_type=UtcTime)
    created_by: str = Field(max_length=100)
    updated_at: datetime = Field(sa_type=UtcTime)
    installed_at: datetime | None = Field(default=None, sa_type=UtcTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcTime)


class ReportEntry(SQLModel, table=True):
    """One report as it came; `irregular` where the transition table does not allow it."""

    __tablename__ = "deployment_report"

    deployment_id: str = Field(primary_key=True, foreign_key="deployment.id", max_length=36)
    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    state: str = Field(max_length=32)
    at: datetime = Field(sa_type=UtcTime)
    received_at: datetime = Field(sa_type=UtcTime)
    irregular: bool = False
    body: str


class VersionChange(SQLModel, table=True):
    """From `since` on, the device inferred with `digest` for this model (None: with nothing), until the next change."""

    __tablename__ = "version_change"
    __table_args__ = (UniqueConstraint("device", "model", "since"),)

    id: int | None = Field(default=None, primary_key=True)
    device: str = Field(foreign_key="device.id", max_length=64)
    model: str = Field(max_length=64)
    since: datetime = Field(sa_type=UtcTime)
    digest: str | None = Field(default=None, max_length=64, index=True)
    deployment_id: str | None = Field(default=None, max_length=36)
    received_at: datetime = Field(sa_type=UtcTime)
