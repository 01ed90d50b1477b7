"""Tables of the models and their versions; a version never changes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel, UniqueConstraint

from fleet.db import UtcTime


class Model(SQLModel, table=True):
    """A model by name."""

    __tablename__ = "model"

    name: str = Field(primary_key=True, max_length=64)
    created_at: datetime = Field(sa_type=UtcTime)


class ModelVersion(SQLModel, table=True):
    """One version; `index_json` and `manifest_json` are what was pushed, `bytes` the sum of its files."""

    __tablename__ = "model_version"
    __table_args__ = (UniqueConstraint("model", "release"),)

    digest: str = Field(primary_key=True, max_length=64)
    model: str = Field(foreign_key="model.name", max_length=64, index=True)
    release: int = Field(sa_type=BigInteger)
    task: str = Field(max_length=16)
    bytes: int = Field(sa_type=BigInteger)
    index_json: str
    manifest_json: str
    created_at: datetime = Field(sa_type=UtcTime)
    created_by: str = Field(max_length=100)
