"""What commands share that act on the fleet's own folder: its settings, its database, and who acts."""

from __future__ import annotations

import argparse
import contextlib
import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from fleet.auth.actor import Actor
    from fleet.settings import FleetSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a command take --data-dir and --config after its name, too."""
    parser.add_argument("--data-dir", type=Path, metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def settings_of(args: argparse.Namespace, **flags: Any) -> FleetSettings:
    """Return the settings in force for a command."""
    from fleet import settings

    return settings.load(args.config, {"data_dir": args.data_dir, **flags})


@contextlib.contextmanager
def current_database(args: argparse.Namespace) -> Iterator[Engine]:
    """Open the database, refusing one that is not there or has another schema."""
    from fleet import db
    from fleet.migrations import runner
    from wire.errors import LinesideError

    path = settings_of(args).database_path
    if not path.is_file():
        raise LinesideError("database.not_current", f"There is no database at {path}.", runner.NEXT_STEP)
    engine = db.open_engine(path)
    try:
        runner.require_current(engine)
        yield engine
    finally:
        engine.dispose()


def local_actor() -> Actor:
    """Return whoever sits at this command line; access to the folder is access to the fleet."""
    from fleet.auth.actor import Actor, Kind, Role

    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return Actor(kind=Kind.LOCAL, name=name, role=Role.ADMIN)
