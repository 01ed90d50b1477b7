"""`lineside-fleet db`: the database's schema."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fleet.commands import local


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("db", help="prepare the database")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    upgrade = verbs.add_parser("upgrade", help="make the database, or bring it to the newest schema")
    local.add_arguments(upgrade)
    upgrade.set_defaults(run=run_upgrade)


def run_upgrade(args: argparse.Namespace) -> int:
    """Migrate to the newest schema."""
    from fleet import db
    from fleet.migrations import runner

    path = local.settings_of(args).database_path
    engine = db.open_engine(path)
    try:
        before, after = runner.upgrade(engine)
    finally:
        engine.dispose()
    sys.stderr.write(f"{path} " + ("was current already.\n" if before == after else "is ready.\n"))
    print(after)
    return 0
