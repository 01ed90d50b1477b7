"""Runs the migrations, and tells whether a database has the schema this version of Lineside needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, OperationalError

from wire.errors import LinesideError

FOLDER: Final = Path(__file__).parent
NEXT_STEP: Final = "Run `lineside-fleet db upgrade` with the same --data-dir or --config."


def head() -> str:
    """Return the revision this version of Lineside needs."""
    revision = ScriptDirectory(str(FOLDER)).get_current_head()
    if revision is None:
        raise LinesideError("internal.unexpected", "The migrations are missing from this installation.", "Reinstall.")
    return revision


def current(engine: Engine) -> str | None:
    """Return the revision a database has; None where it is empty.

    Raises:
        LinesideError: `storage.*` where the file cannot be opened or is no database.
    """
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except OperationalError as error:
        raise LinesideError(
            "storage.unusable",
            f"{engine.url.database} cannot be used: {error.orig}.",
            "Check the path and its permissions, and the room on the disk.",
        ) from error
    except DatabaseError as error:
        raise LinesideError(
            "storage.corrupt",
            f"{engine.url.database} cannot be read: {error.orig}.",
            "Bring back a copy, or move the file away and run `lineside-fleet db upgrade`.",
        ) from error


def upgrade(engine: Engine, target: str = "head") -> tuple[str | None, str]:
    """Bring a database to the newest schema in one transaction; returns the revisions before and after.

    Args:
        target: another revision, for tests.

    Raises:
        LinesideError: `storage.corrupt` where rows would refer to others that are not there.
    """
    before = current(engine)
    with _without_foreign_keys(engine) as connection, connection.begin():
        _run(connection, command.upgrade, target)
    return before, head()


def downgrade(engine: Engine, target: str) -> None:
    """Take a database back to an older schema; what that cannot hold is lost."""
    with _without_foreign_keys(engine) as connection, connection.begin():
        _run(connection, command.downgrade, target)


def _run(connection: Connection, act: Callable[[Config, str], None], target: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    act(config, target)
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            tables = ", ".join(sorted({str(row[0]) for row in broken}))
            raise LinesideError(
                "storage.corrupt",
                f"Rows of {tables} refer to others that are not there; nothing was changed.",
                "Bring back a copy of the database, and report the fault.",
            )


@contextlib.contextmanager
def _without_foreign_keys(engine: Engine) -> Iterator[Connection]:
    """Connect with SQLite's foreign keys off: it changes a table by making it anew, and dropping the old one.

    Inside a transaction they cannot be switched, so the driver is told before one begins.
    """
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        if connection.dialect.name == "sqlite":
            raw.execute("PRAGMA foreign_keys=OFF")
        try:
            yield connection
        finally:
            if connection.dialect.name == "sqlite":
                raw.execute("PRAGMA foreign_keys=ON")


def require_current(engine: Engine) -> None:
    """Refuse a database with another schema.

    Raises:
        LinesideError: `database.not_current`, naming the command that helps.
    """
    found, needed = current(engine), head()
    if found == needed:
        return
    known = {script.revision for script in ScriptDirectory(str(FOLDER)).walk_revisions()}
    if found is not None and found not in known:
        raise LinesideError(
            "database.not_current",
            f"The database has the schema {found}, which a newer version of Lineside made; this one knows {needed}.",
            "Install that newer version.",
        )
    state = "is empty" if found is None else f"has the schema {found}"
    raise LinesideError("database.not_current", f"The database {state}; this version needs {needed}.", NEXT_STEP)
