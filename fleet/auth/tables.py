"""Tables of people's tokens and browsers' sessions; secrets are stored as SHA-256 only."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, SQLModel

from fleet.db import UtcTime


class OperatorToken(SQLModel, table=True):
    """A person's or program's token.

    `lookup` is the beginning of the secret, by which the row is found; `secret_hash` decides.
    """

    __tablename__ = "operator_token"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=64)
    role: str = Field(max_length=16)
    lookup: str = Field(unique=True, max_length=32)
    secret_hash: str = Field(max_length=64)
    created_at: datetime = Field(sa_type=UtcTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcTime)


class BrowserSession(SQLModel, table=True):
    """A browser that is signed in; it may do what its token may, as long as the token stands."""

    __tablename__ = "browser_session"

    secret_hash: str = Field(primary_key=True, max_length=64)
    token_id: int = Field(foreign_key="operator_token.id", index=True)
    created_at: datetime = Field(sa_type=UtcTime)
    expires_at: datetime = Field(sa_type=UtcTime, index=True)
