"""The database: how it is opened, the one reading and the one writing session, and how rows are named and stored.

On SQLite there is one writer at a time: a writing transaction takes the lock when it begins (BEGIN IMMEDIATE), so two
writers wait for each other instead of failing half-way. What a device is told is committed must outlive a power cut,
hence synchronous=FULL.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import DateTime, Dialect, Engine, Table, TypeDecorator, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlmodel import Session, SQLModel

FILE_NAME: Final = "fleet.db"
BUSY_TIMEOUT_MS: Final = 15_000
JOURNAL_LIMIT_BYTES: Final = 64 * 1024 * 1024
# A record with its columns is about 1.6 KB: two fit a page of SQLite's default 4 KB, nine one of 16 KB, and a commit
# writes whole pages. Measured: a third less time for a row. A database that was made with other pages keeps them.
PAGE_BYTES: Final = 16 * 1024
CACHE_KIB: Final = 8 * 1024  # for each connection
MAX_BOUND_VALUES: Final = 30_000  # SQLite allows 32,766 in one statement
_WRITES: Final = "lineside_writes"
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)

# Every constraint has a name, so that a later migration can change it.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcTime(TypeDecorator[datetime]):
    """A column of aware times in UTC; a naive time is refused, and times come back aware.

    What no date in UTC can hold (the year 1, east of Greenwich) becomes the nearest: a device whose clock has lost its
    senses must get its records settled, too.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            value = _EARLIEST if value.year == 1 else _LATEST
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def open_engine(path: Path) -> Engine:
    """Open the SQLite database at `path`, made empty where there is none; its schema is the migrations' business."""
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=40, pool_timeout=30.0)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


@contextlib.contextmanager
def write_session(engine: Engine) -> Iterator[Session]:
    """Give a session whose transaction is committed at the end of the block, or rolled back where it raises.

    The lock is taken by the first statement, not before.
    """
    with Session(engine.execution_options(**{_WRITES: True}), expire_on_commit=False) as session:
        try:
            yield session
            session.commit()
        except BaseException:
            session.rollback()
            raise


@contextlib.contextmanager
def read_session(engine: Engine) -> Iterator[Session]:
    """Give a session that sees one moment of the database and never writes."""
    with Session(engine, expire_on_commit=False, autoflush=False) as session:
        yield session  # closing ends the transaction, and leaves the rows that were read usable


def insert_ignoring(session: Session, table: type[SQLModel], rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows, passing over those that are there already (ON CONFLICT DO NOTHING).

    Args:
        rows: column name to value; every row has the same columns.

    Returns:
        How many were new.
    """
    if not rows:
        return 0
    target: Table = table.__table__  # type: ignore[attr-defined]
    size = max(1, MAX_BOUND_VALUES // max(1, len(target.columns)))
    new = 0
    for start in range(0, len(rows), size):
        part = [dict(row) for row in rows[start : start + size]]
        statement: Any
        if session.get_bind().dialect.name == "postgresql":
            statement = postgresql.insert(target).values(part).on_conflict_do_nothing()
        else:
            statement = sqlite.insert(target).values(part).on_conflict_do_nothing()
        new += session.connection().execute(statement).rowcount
    return new


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_on_begin` says, not where the driver guesses
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute(f"PRAGMA page_size={PAGE_BYTES}")
    cursor.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA recursive_triggers=ON")  # so that REPLACE cannot get round the audit's triggers
    cursor.execute(f"PRAGMA journal_size_limit={JOURNAL_LIMIT_BYTES}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
