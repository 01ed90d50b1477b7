"""`lineside`: the command line of a device. Commands are imported only when called, so that help is quick."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from wire.errors import REGISTER, LinesideError

_COMMANDS: Final = ("run", "status", "enroll", "infer", "model", "simulate")
_EXTRA: Final = "agent"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="lineside",
        description="Run vision models beside a production line.",
        epilog="Exit status: 0 done, 2 usage, 3 configuration, 4 network, 5 refused by a rule, 6 model, 7 not found, "
        "8 access, 9 internal, 130 interrupted.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        importlib.import_module(f"agent.commands.{name}").add_parser(subparsers)
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
    return REGISTER[error.code].exit_status


def missing_extra(error: ModuleNotFoundError) -> LinesideError:
    """Turn a missing library into words."""
    return LinesideError(
        "config.missing_extra",
        f"This needs {error.name}, which is not installed.",
        f'Install the extra: pip install "lineside[{_EXTRA}]".',
    )


if __name__ == "__main__":
    sys.exit(main())
