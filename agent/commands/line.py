"""`lineside line`: say that the line must not be touched for a while, or that it may be again."""

from __future__ import annotations

import argparse
import re
from typing import Any, Final

from agent.commands import ordering, running
from wire import command_line
from wire.errors import LinesideError

SCHEMA: Final = "lineside.line/1"
LONGEST_S: Final = 7 * 86400.0
_UNITS_S: Final = {"min": 60.0, "h": 3600.0, "d": 86400.0}


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("line", help="say that no version may be swapped for a while, or that one may be")
    running.add_arguments(parser)
    running.add_json(parser)
    parser.set_defaults(run=show)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    busy = verbs.add_parser("busy", help="swap no version until the time is over or the line is free")
    running.add_arguments(busy, below=True)
    busy.add_argument(
        "--for", dest="for_s", type=_seconds, required=True, metavar="TIME", help="30min, 8h or 2d; at most 7d"
    )
    busy.add_argument("--why", default="", metavar="TEXT", help="what whoever wonders should know")
    busy.set_defaults(run=take)
    free = verbs.add_parser("free", help="versions may be swapped again")
    running.add_arguments(free, below=True)
    free.set_defaults(run=release)


def show(args: argparse.Namespace) -> int:
    """Tell whether the line is busy."""
    from datetime import UTC, datetime

    from agent.deploy import line_busy

    lock = line_busy.read(running.data_dir_of(args), datetime.now(UTC))
    if args.json:
        command_line.print_json(SCHEMA, {"busy": lock})
    elif lock is None:
        print("free")
    else:
        command_line.show(f"busy until {lock.until.astimezone():%Y-%m-%d %H:%M}{f': {lock.why}' if lock.why else ''}")
    return 0


def take(args: argparse.Namespace) -> int:
    """Set the lock; a deployment that is ready waits until it is over."""
    from datetime import timedelta

    from agent.clock import NOT_BEFORE, SystemClock
    from agent.deploy import line_busy

    now = SystemClock().now_utc()
    if now < NOT_BEFORE:
        raise LinesideError(
            "resource.conflict",
            f"The clock of this device is wrong: it says {now:%Y-%m-%d %H:%M} UTC. A lock would be over as soon as the "
            "clock is set.",
            "Set it first, by a time server or by hand (as root: timedatectl set-time), then give the lock again.",
        )
    folder = running.data_dir_of(args)
    if not folder.is_dir():
        raise LinesideError("resource.not_found", f"{folder}: no agent has its files there.", "Name its data folder.")
    ordering.may_write_in(folder, "Do it")
    until = now + timedelta(seconds=args.for_s)
    lock = line_busy.LineBusy(until=until, why=command_line.plain(args.why)[:200])
    line_busy.take(folder, lock, ordering.disk_of(folder))
    print(f"busy until {until.astimezone():%Y-%m-%d %H:%M}")
    return 0


def release(args: argparse.Namespace) -> int:
    """Remove the lock."""
    from agent.deploy import line_busy

    folder = running.data_dir_of(args)
    if folder.is_dir():
        ordering.may_write_in(folder, "Do it")
    line_busy.free(folder)
    print("free")
    return 0


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})(min|h|d)", text)
    if found is None or not 0 < (seconds := int(found[1]) * _UNITS_S[found[2]]) <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not 30min, 8h or 2d, and at most 7d")
    return seconds
