"""`lineside stations`: each station of this device, what it has judged, and why it does not."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from agent.commands import running
from wire import command_line

if TYPE_CHECKING:
    from agent.status import StationStatus

SCHEMA: Final = "lineside.stations/1"
_HEAD: Final = (
    "STATION",
    "STATE",
    "RECIPE",
    "OK",
    "NG",
    "UNSURE",
    "NO_VERDICT",
    "MISSED",
    "LATE",
    "P50",
    "P99",
    "LINE",
)


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("stations", help="show the stations, what they have judged, and why one does not")
    running.add_arguments(parser)
    running.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the stations."""
    word = running.read(args)
    if args.json:
        command_line.print_json(SCHEMA, {"at": word.status.at, "stations": word.status.stations})
        return word.end()
    for line in command_line.table(_HEAD, [_row(station) for station in word.status.stations]):
        print(line)
    for station in word.status.stations:
        for sentence in _troubles(station):
            print(f"{station.health.station}: {sentence}")
    return word.end()


def _row(station: StationStatus) -> tuple[str, ...]:
    health = station.health
    verdicts = station.verdicts
    return (
        health.station,
        "ready" if station.ready else "NOT READY",
        health.recipe or "-",
        *(str(verdicts.get(name, 0)) for name in ("OK", "NG", "UNSURE", "NO_VERDICT")),
        str(station.missed),
        str(health.deadline_misses),
        _ms(health.latency_p50_ms),
        _ms(health.latency_p99_ms),
        station.line or "-",
    )


def _troubles(station: StationStatus) -> list[str]:
    """Return what is wrong, and what a person may wonder about, in sentences."""
    health = station.health
    found = []
    if not station.ready:
        found.append(f"not ready: {health.not_ready or 'a view has no model.'}")
    if station.line_trouble:
        found.append(f"the line: {station.line_trouble}")
    if station.without_verdict:
        counts = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in station.without_verdict.items())
        found.append(f"without verdict because of: {counts}")
    if station.unrecorded:
        found.append(f"{station.unrecorded} parts could not be recorded and had no verdict: is the disk full?")
    if health.repeats:
        found.append(f"{health.repeats} triggers came twice and were judged once")
    for output in station.outputs:
        counts = f"{output.sent} verdicts sent, {output.failed} failed, {output.dropped} dropped"
        found.append(f"output {output.name}: {output.trouble or 'fine'} ({counts})")
    return found


def _ms(milliseconds: float | None) -> str:
    return f"{milliseconds:.1f} ms" if milliseconds is not None else "-"
