"""`lineside`: the command line of a device. Commands are imported only when called, so that help is quick."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from wire import command_line

_COMMANDS: Final = (
    "run",
    "status",
    "stations",
    "cameras",
    "snapshot",
    "recipes",
    "line",
    "enroll",
    "infer",
    "model",
    "models",
    "import_bundle",
    "export_reports",
    "simulate",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="lineside",
        description="Run vision models beside a production line.",
        epilog=command_line.EXIT_STATUSES,
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        importlib.import_module(f"agent.commands.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    return command_line.run(build_parser(), argv, extra="agent")


if __name__ == "__main__":
    sys.exit(main())
