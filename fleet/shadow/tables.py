"""The table of pairs: one part, judged by the active version and by a candidate."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

ROW_ID = BigInteger().with_variant(Integer(), "sqlite")


class ShadowPairRow(SQLModel, table=True):
    """One pair; `body` is the whole `wire.messages.ShadowPair` as JSON where the two disagree, and NULL elsewhere.

    Only the newest parts of each device and candidate are kept, by the time-ordered id of the inspection: what the
    table holds does not depend on the order in which pairs come, nor on how often.
    """

    __tablename__ = "shadow_pair"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("digest", "device", "inspection_id", name="uq_shadow_pair_part"),
        # What people look at; few rows disagree, so the common one costs it nothing.
        Index("ix_shadow_pair_disagreed", "digest", "inspection_id", "device", sqlite_where=text("disagreed = 1")),
        Index("ix_shadow_pair_device", "device", "digest"),
    )

    row: int | None = Field(default=None, sa_column=Column(ROW_ID, primary_key=True))
    device: str
    model: str
    digest: str
    active_digest: str
    inspection_id: bytes = Field(sa_column=Column(LargeBinary(16), nullable=False))
    at_us: int = Field(sa_type=BigInteger)
    received_at_us: int = Field(sa_type=BigInteger)
    station: str
    recipe: str
    rate: float
    active_verdict: str
    verdict: str
    disagreed: bool = Field(sa_column=Column(Boolean, nullable=False))
    body: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
