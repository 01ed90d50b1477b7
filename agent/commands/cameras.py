"""`lineside cameras`: each view's camera, what is wrong with it, and what is done with it at commissioning."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from agent.commands import cameras_calibrate, cameras_probe, cameras_test, running
from wire import command_line
from wire.errors import LinesideError

if TYPE_CHECKING:
    from wire.messages import ViewHealth

SCHEMA: Final = "lineside.cameras/1"
_HEAD: Final = ("VIEW", "STATE", "FRAMES/S", "USED/S", "NEWEST", "DROPPED", "RESTARTS", "SOURCE")
# No part misses them: in a mailbox the newest frame wins, and a stream may begin with frames of before.
_NOT_MISSED: Final = frozenset({"replaced", "stale"})


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("cameras", help="show, try and set up the cameras")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = verbs.add_parser("list", help="show each camera, and what is wrong with it")
    running.add_arguments(listing)
    running.add_json(listing)
    listing.set_defaults(run=run_list)
    cameras_probe.add_parser(verbs)
    cameras_test.add_parser(verbs)
    reference = verbs.add_parser(
        "reference", help="keep what a view sees now as what it should see, with the recipe in force"
    )
    reference.add_argument("view", metavar="STATION/VIEW")
    reference.add_argument("--force", action="store_true", help="also where the picture is black, frozen or so")
    running.add_arguments(reference)
    reference.set_defaults(run=run_reference)
    cameras_calibrate.add_parser(verbs)


def run_list(args: argparse.Namespace) -> int:
    """Show the cameras."""
    word = running.read(args)
    views = list(running.views_of(word.status))
    if args.json:
        listed = [
            {"station": station.health.station, "view": view, "source": source} for station, view, source in views
        ]
        command_line.print_json(SCHEMA, {"at": word.status.at, "cameras": listed})
        return word.end()
    rows = [
        _row(f"{station.health.station}/{view.view}", view, source.source if source is not None else "-")
        for station, view, source in views
    ]
    for line in command_line.table(_HEAD, rows):
        print(line)
    for station, view, _ in views:
        for sentence in running.troubles_of(view):
            print(f"{station.health.station}/{view.view}: {sentence}")
    return word.end()


def run_reference(args: argparse.Namespace) -> int:
    """Keep the picture that a view has now as its reference view."""
    status = running.running(args)
    station, view, _ = running.view_of(status, args.view)
    name = f"{station.health.station}/{view.view}"
    bad = running.troubles_of(view, without=("moved", "blurred"))  # those are told by the reference that is replaced
    if bad and not args.force:
        raise LinesideError(
            "source.unreadable",
            f"{name} is no view to hold others against: {' '.join(bad)}",
            "Set the camera right first, or say --force.",
        )
    seen_ns = time.monotonic_ns()
    answer = json.loads(
        running.ask(status, "POST", f"/v1/stations/{station.health.station}/views/{view.view}/reference", {})
    )
    took_ms = (time.monotonic_ns() - seen_ns) / 1e6
    sys.stderr.write(
        f"{name}: what it sees now is its reference for the recipe {answer['recipe']} "
        f"({answer['width_px']} x {answer['height_px']}, {took_ms:.0f} ms).\n"
    )
    return 0


def _row(name: str, view: ViewHealth, source: str) -> tuple[str, ...]:
    dropped = sum(count for reason, count in view.frames_dropped.items() if reason not in _NOT_MISSED)
    age = f"{running.words_of_s(view.frame_age_ms / 1000)} ago" if view.frame_age_ms is not None else "never"
    rates = (_rate(view.fps_in), _rate(view.fps_used)) if view.connected else ("-", "-")
    return (name, _state(view), *rates, age, str(dropped), str(view.restarts), source)


def _state(view: ViewHealth) -> str:
    if not view.connected:
        return "LOST" if view.trouble else "ended"
    return ", ".join(vital.upper().replace("_", " ") for vital in view.vitals) or "ok"


def _rate(per_second: float | None) -> str:
    return f"{per_second:.1f}" if per_second is not None else "-"
