"""Writes rows for a person."""

from __future__ import annotations

from collections.abc import Sequence

from wire import command_line


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; nothing but its head where there are no rows."""
    for line in command_line.table(head, rows):
        print(line)
