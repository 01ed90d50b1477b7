"""`lineside status`: what the running agent does, for the person beside the machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agent.status import Status

_FRESH_S: Final = 10.0


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("status", help="show what the agent on this device does")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    where.add_argument("--data-dir", type=Path, metavar="DIR", help="the agent's data folder")
    parser.add_argument("--json", action="store_true", help="write the status as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the status; 7 where no agent runs, 9 where one runs that has nothing to say."""
    import sys
    from datetime import UTC, datetime

    from agent import status
    from wire import codec

    if args.config is not None:
        from agent import settings

        data_dir = settings.load(args.config).data_dir
    else:
        data_dir = args.data_dir
    found = status.read(data_dir)
    age_s = (datetime.now(UTC) - found.at).total_seconds()
    is_silent = age_s > _FRESH_S and _runs(found)
    if args.json:
        print(codec.encode(found).decode())
    else:
        for line in _lines(found, age_s, is_silent=is_silent):
            print(line)
    if is_silent:
        sys.stderr.write(
            f"The agent (process {found.pid}) runs, but has written nothing for {age_s:.0f} s: look at its log, and "
            "whether the disk is full.\n"
        )
        return 9
    if age_s > _FRESH_S:
        sys.stderr.write(f"The agent does not run: its last word is {age_s:.0f} s old.\n")
        return 7
    return 0


def _runs(found: Status) -> bool:
    """Whether the process that wrote the status is still there; a later one of the same number is another."""
    import psutil

    try:
        return psutil.Process(found.pid).create_time() <= found.at.timestamp()
    except psutil.Error:
        return False


def _lines(found: Status, age_s: float, *, is_silent: bool) -> list[str]:
    if is_silent:
        link = "SILENT; this was its last word"
    elif age_s > _FRESH_S:
        link = "NOT RUNNING; this was its last word"
    else:
        link = f"connected (MQTT {found.mqtt_protocol})" if found.connected else "NOT connected to the broker"
    lines = [
        f"{found.device}   {link}   {age_s:.0f} s ago",
        f"outbox      {found.outbox_unsettled} records wait for the fleet, {found.outbox_dropped} dropped",
        f"pictures    {found.pictures_waiting} wait for the fleet",
    ]
    for model in found.models:
        digest = model.digest[:12] if model.digest else "none active"
        lines.append(f"model       {model.model}: {digest}  on {model.provider or '-'}")
    for station in found.stations:
        verdicts = "  ".join(f"{name} {count}" for name, count in station.verdicts.items())
        p50, p99 = station.health.latency_p50_ms, station.health.latency_p99_ms
        latency = f"  p50 {p50:.1f} ms, p99 {p99:.1f} ms" if p50 is not None and p99 is not None else ""
        state = "ready" if station.ready else "NOT ready (no model)"
        lines.append(f"station     {station.health.station}: {state}  {verdicts}  missed {station.missed}{latency}")
    lines += [f"refused     {sentence}" for sentence in found.refusals]
    lines += [f"STALLED     thread {name}" for name in found.threads_stalled]
    return lines
