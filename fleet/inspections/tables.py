"""The tables of inspections and of exact counts.

Ids are kept as their 16 bytes: half the size of the text form in the table and in each index, and UUIDv7 grows with
time, so that new rows land at the right edge of the unique index (random ids fall to a tenth of the rate at 1.5 M
rows). The integer primary key is SQLite's rowid. Times are microseconds since 1970, UTC: exact, sortable, the same on
every database.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlmodel import Field, SQLModel

ROW_ID = BigInteger().with_variant(Integer(), "sqlite")


class InspectionRow(SQLModel, table=True):
    """One inspection: the columns people search by, and the full record as the device wrote it, as JSON text.

    `clock_suspect` where the device doubted its clock, or its times cannot be right (see `fleet.inspections.clocks`).
    """

    __tablename__ = "inspection"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("id", name="uq_inspection_id"),
        Index("ix_inspection_device_id", "device", "id"),
        Index("ix_inspection_model_digest_id", "model_digest", "id"),
        Index("ix_inspection_triggered_at", "triggered_at_us"),
        # Few rows have these, so the partial indexes cost the common OK row nothing.
        Index("ix_inspection_verdict_id", "verdict", "id", sqlite_where=text("verdict != 'OK'")),
        Index("ix_inspection_part_id", "part_id", "id", sqlite_where=text("part_id IS NOT NULL")),
        Index("ix_inspection_lot", "lot", "id", sqlite_where=text("lot IS NOT NULL")),
        Index("ix_inspection_clock_suspect", "id", sqlite_where=text("clock_suspect = 1")),
        Index("ix_inspection_picture", "id", sqlite_where=text("picture_digest IS NOT NULL")),
    )

    row: int | None = Field(default=None, sa_column=Column(ROW_ID, primary_key=True))
    id: bytes = Field(sa_column=Column(LargeBinary(16), nullable=False))
    device: str
    epoch: str
    seq: int = Field(sa_type=BigInteger)
    station: str
    recipe: str
    recipe_revision: int = Field(sa_type=BigInteger)
    verdict: str
    reason: str
    rule_fired: str
    score: float
    mode: str
    kept: bool
    model_digest: str | None = None
    picture_digest: str | None = None
    part_id: str | None = None
    lot: str | None = None
    trigger_id: str
    trigger_run: str | None = None
    trigger_sequence: int | None = Field(default=None, sa_type=BigInteger)
    triggered_at_us: int = Field(sa_type=BigInteger)
    judged_at_us: int = Field(sa_type=BigInteger)
    received_at_us: int = Field(sa_type=BigInteger)
    time_source: str
    clock_suspect: bool = Field(default=False, sa_column=Column(Boolean, nullable=False, server_default=false()))
    record: str = Field(sa_column=Column(Text, nullable=False))


class CounterCell(SQLModel, table=True):
    """How many inspections one cell counted in one minute of one outbox epoch; it only grows."""

    __tablename__ = "counter_cell"
    __table_args__: ClassVar[Any] = (
        Index("ix_counter_cell_minute", "minute_us"),
        {"sqlite_with_rowid": False},
    )

    device: str = Field(primary_key=True)
    epoch: str = Field(primary_key=True)
    minute_us: int = Field(primary_key=True, sa_type=BigInteger)
    station: str = Field(primary_key=True)
    recipe: str = Field(primary_key=True)
    # Empty where no model ran: a key column cannot be NULL.
    model_digest: str = Field(primary_key=True)
    verdict: str = Field(primary_key=True)
    stratum: str = Field(primary_key=True)
    count: int = Field(sa_type=BigInteger)
