"""`lineside snapshot`: the picture a view has now, as a file to look at."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from agent.commands import running
from wire.errors import LinesideError

_ENDINGS: Final = {".jpg", ".jpeg"}


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("snapshot", help="save the picture a view has now (the accounts do not change)")
    parser.add_argument("view", metavar="STATION/VIEW", help="see lineside cameras list")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="a JPEG file (default: STATION-VIEW.jpg in this folder)"
    )
    running.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Save the picture."""
    status = running.running(args)
    station, view, _ = running.view_of(status, args.view)
    name = f"{station.health.station}-{view.view}"
    path: Path = args.output or Path(f"{name}.jpg")
    if path.suffix.lower() not in _ENDINGS:
        raise LinesideError("usage.invalid", f"{path} is not named like a JPEG file.", f"For example: -o {name}.jpg")
    picture = running.ask(status, "GET", f"/v1/stations/{station.health.station}/views/{view.view}/snapshot.jpg")
    path.write_bytes(picture)
    print(path)
    sys.stderr.write(f"{station.health.station}/{view.view}: {len(picture) / 1000:.0f} kB written.\n")
    for vital in view.vitals:
        from agent.health.troubles import VITAL_WORDS

        sys.stderr.write(f"note: {VITAL_WORDS.get(vital, vital)}.\n")
    return 0
