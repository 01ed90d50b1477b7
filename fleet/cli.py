"""`lineside-fleet`: the command line of the server. Commands import what they need only when called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wire import command_line

_COMMANDS: Final = (
    "serve",
    "ingest",
    "db",
    "claim",
    "token",
    "models",
    "devices",
    "desired",
    "deployments",
    "shadow",
    "why_not",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="lineside-fleet",
        description="Manage the vision models of a fleet of devices.",
        epilog=command_line.EXIT_STATUSES,
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the fleet's folder (default: ./fleet-data)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        importlib.import_module(f"fleet.commands.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    return command_line.run(build_parser(), argv, extra="fleet")


if __name__ == "__main__":
    sys.exit(main())
