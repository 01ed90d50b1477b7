"""Tables of ingest: the quarantine (what it would not take, and why), and the workers' signs of life."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

ROW_ID = BigInteger().with_variant(Integer(), "sqlite")


class QuarantineRow(SQLModel, table=True):
    """Neighbouring records of one message refused for the same reason, or a whole message that cannot be read.

    A device that sends the same again raises `times` and adds no row: `fingerprint` is a hash of topic, place and
    bytes.
    """

    __tablename__ = "quarantine"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("fingerprint", name="uq_quarantine_fingerprint"),
        Index("ix_quarantine_device_row", "device", "row"),
    )

    row: int | None = Field(default=None, sa_column=Column(ROW_ID, primary_key=True, autoincrement=True))
    fingerprint: bytes = Field(sa_column=Column(LargeBinary(16), nullable=False))
    received_at_us: int = Field(sa_type=BigInteger)
    last_at_us: int = Field(sa_type=BigInteger)
    times: int
    topic: str
    device: str | None = None
    epoch: str | None = None
    lane: str | None = None
    first_seq: int | None = Field(default=None, sa_type=BigInteger)
    last_seq: int | None = Field(default=None, sa_type=BigInteger)
    code: str
    text: str
    payload_bytes: int
    excerpt: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class IngestWorkerRow(SQLModel, table=True):
    """One ingest worker by its share of the devices; `status` is its counters as JSON, `ended` after a goodbye."""

    __tablename__ = "ingest_worker"

    share: str = Field(primary_key=True, max_length=8)
    host: str = Field(max_length=255)
    pid: int
    started_at_us: int = Field(sa_type=BigInteger)
    seen_at_us: int = Field(sa_type=BigInteger)
    ended: bool = False
    status: str
