"""How both command lines end: one form of error for a person, one exit status for a script."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from wire.errors import LinesideError

EXIT_STATUSES: Final = (
    "Exit status: 0 done, 2 usage, 3 configuration, 4 network, 5 refused by a rule, 6 model, 7 not found, 8 access, "
    "9 internal, 130 interrupted."
)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None, extra: str) -> int:
    """Run the command that the arguments name; return its exit status.

    Args:
        parser: each of whose commands set `run` to a function of the parsed arguments.
        extra: of the distribution, which brings the libraries these commands need.
    """
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
    except LinesideError as error:
        return _complain(error)
    except ModuleNotFoundError as error:
        return _complain(
            LinesideError(
                "config.missing_extra",
                f"This needs {error.name}, which is not installed.",
                f'Install the extra: pip install "lineside[{extra}]".',
            )
        )
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        return _complain(_of_a_file(error))
    return status


def _of_a_file(error: OSError) -> LinesideError:
    """Name a file or folder that the system did not let a command use."""
    sentence = f"{error.filename} cannot be used: {error.strerror}."
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return LinesideError("storage.full", sentence, "Make room.")
    return LinesideError("storage.unusable", sentence, "Check the path and its permissions, or name another folder.")


def _complain(error: LinesideError) -> int:
    """Tell a person what went wrong, on standard error; return the exit status."""
    say(f"error: {error.message}")
    if error.next_step:
        say(f"       {error.next_step}")
    sys.stderr.write(f"       ({error.code})\n")
    return error.entry.exit_status


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows for a person: columns as wide as their content, none ever wrapped; only the head without rows.

    What would move the cursor or colour the terminal is shown as a question mark: names and reasons come from afar.
    """
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


def plain(text: str) -> str:
    """Return a text in one line, without anything a terminal would obey."""
    return "".join(one if one.isprintable() else " " if one.isspace() else "?" for one in text)


def show(text: str) -> None:
    """Print a line of the result; what comes from files, bundles, devices and other people cannot move the cursor."""
    print(plain(text))  # noqa: T201


def say(text: str) -> None:
    """Tell a person a line beside the result, on standard error, likewise."""
    sys.stderr.write(f"{plain(text)}\n")


def print_json(schema: str, content: Mapping[str, object]) -> None:
    """Write a command's machine-readable result, with the id of its schema first."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode({"schema": schema, **content}), indent=2).decode())  # noqa: T201
