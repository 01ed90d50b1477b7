"""`lineside-fleet`: the command line of the server. Commands import what they need only when called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wire.errors import LinesideError

_COMMANDS: Final = ("serve", "db", "claim", "token", "models", "devices", "desired")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="lineside-fleet",
        description="Manage the vision models of a fleet of devices.",
        epilog="Exit status: 0 done, 2 usage, 3 configuration, 4 network, 5 refused by a rule, 6 model, 7 not found, "
        "8 access, 9 internal, 130 interrupted.",
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="the fleet's folder (default: ./fleet-data)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        importlib.import_module(f"fleet.commands.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    args = build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except LinesideError as error:
        return complain(error)
    except ModuleNotFoundError as error:
        return complain(missing_extra(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return status


def complain(error: LinesideError) -> int:
    """Tell a person what went wrong, on standard error; return the exit status."""
    sys.stderr.write(f"error: {error.message}\n")
    if error.next_step:
        sys.stderr.write(f"       {error.next_step}\n")
    sys.stderr.write(f"       ({error.code})\n")
    return error.entry.exit_status


def missing_extra(error: ModuleNotFoundError) -> LinesideError:
    """Turn a missing library into words."""
    return LinesideError(
        "config.missing_extra",
        f"This needs {error.name}, which is not installed.",
        'Install the extra: pip install "lineside[fleet]".',
    )


if __name__ == "__main__":
    sys.exit(main())
