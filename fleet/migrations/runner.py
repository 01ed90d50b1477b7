"""Runs the migrations, and tells whether a database has the schema this version of Lineside needs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
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


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Bring a database to the newest schema in one transaction; returns the revisions before and after."""
    before = current(engine)
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, head()


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
