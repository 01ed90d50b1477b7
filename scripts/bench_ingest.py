"""`run.py bench ingest`: what the fleet's ingest takes in beside the same chain written by hand, in one run.

The contestants are those of `ingest_parts.py`. They take turns, each in a new process over a new database, behind a
mosquitto with the fleet's own configuration, fed the same messages by `mqtt_load.py`: one event a message, and ten. The
clock runs until every event is acknowledged to its device. Wall time on a shared machine is noisy, so the contestants'
own processor time stands beside it. Prints one JSON object on its last line. Needs mosquitto.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scripts.mqtt_load import Message

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PARTS: Final = ("raw", "lineside")
EVENTS_PER_MESSAGE: Final = (1, 10)
WINDOW: Final = 2_000  # messages
GOALS: Final = {"ratio": 0.8, "events_per_s": 25_000, "messages_per_s": 5_000, "commit_p99_ms": 1_000}


def main() -> int:
    """Measure both contestants and print the figures beside the goals."""
    parser = argparse.ArgumentParser(prog="run.py bench ingest", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--messages", type=int, default=12_000, help="of one event; of ten, a quarter as many")
    args = parser.parse_args()
    from fleet.broker import mosquitto

    program = mosquitto.find()
    if program is None:
        print("error: this bench needs mosquitto (apt install mosquitto).", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as folder:
        figures = measure(program, Path(folder), args)
    if not args.json:
        print(table(figures))
    print(json.dumps(figures))
    return 0


def measure(program: Path, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run both contestants `rounds` times, in turn, and take medians."""
    from scripts import mqtt_load

    results: dict[str, Any] = {}
    for events in EVENTS_PER_MESSAGE:
        count = args.messages if events == 1 else max(args.devices, args.messages // 4)
        found: dict[str, list[dict[str, float]]] = {part: [] for part in PARTS}
        for number in range(args.rounds):
            made = mqtt_load.messages_of(args.devices, count, events)
            for part in PARTS if number % 2 == 0 else reversed(PARTS):
                with broker(program, folder) as port:
                    found[part].append(run(part, port, made, args.devices, folder))
                row = found[part][-1]
                print(
                    f"{events} events a message, round {number + 1}: {part} {row['events_per_s']:.0f} events/s, "
                    f"{row['cpu_us_per_event']:.1f} us of processor time an event",
                    file=sys.stderr,
                    flush=True,
                )
        results[str(events)] = summary(found)
    return {
        "schema": "lineside.bench-ingest/1",
        "rounds": args.rounds,
        "devices": args.devices,
        "cores": len(os.sched_getaffinity(0)),
        "goals": GOALS,
        "events_per_message": results,
    }


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return medians of each contestant, and the median of the rounds' own ratios."""
    medians = {
        part: {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
        for part, rows in found.items()
    }
    pairs = list(zip(found["lineside"], found["raw"], strict=True))
    return {
        **medians,
        "throughput_ratio": round(statistics.median(a["events_per_s"] / b["events_per_s"] for a, b in pairs), 3),
        "cpu_ratio": round(statistics.median(a["cpu_us_per_event"] / b["cpu_us_per_event"] for a, b in pairs), 3),
    }


def run(part: str, port: int, made: list[Message], devices: int, folder: Path) -> dict[str, float]:
    """Start a contestant, have it take in all messages, and return its figures.

    Raises:
        RuntimeError: where its table holds another number of rows than there were events.
    """
    from scripts import mqtt_load

    with tempfile.TemporaryDirectory(dir=folder) as own:
        command = [sys.executable, str(ROOT / "scripts" / "ingest_parts.py"), part, "--port", str(port)]
        command += ["--folder", own, "--devices", str(devices)]
        child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if child.stdout is None or child.stdout.readline() != "ready\n":
                raise RuntimeError(f"{part} did not start")
            carried = mqtt_load.carry(port, made, window=WINDOW * made[0].events)
            rest, _ = child.communicate(timeout=60)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        told = json.loads(rest.splitlines()[-1])
    if told["rows"] != carried.events:
        raise RuntimeError(f"{part} has {told['rows']} rows for {carried.events} events")
    return {
        "events_per_s": carried.events / carried.seconds,
        "messages_per_s": carried.messages / carried.seconds,
        "cpu_us_per_event": told["cpu_s"] * 1e6 / carried.events,
        "commits": told["commits"],
        "commit_p50_ms": told["commit_p50_ms"],
        "commit_p99_ms": told["commit_p99_ms"],
        "rss_mb": told["rss_mb"],
        "bytes_per_event": carried.bytes_per_event,
    }


@contextlib.contextmanager
def broker(program: Path, folder: Path) -> Iterator[int]:
    """Run a mosquitto with the fleet's own configuration, and give its port."""
    from fleet.broker import mosquitto
    from scripts.plant import free_port, wait_for

    port = free_port()
    command = mosquitto.command(program, folder / f"broker-{port}", "127.0.0.1", port)
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        import socket

        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
        except OSError:
            return False
        return True

    try:
        wait_for("mosquitto listens", answers, 10)
        time.sleep(0.05)
        yield port
    finally:
        child.terminate()
        child.wait(10)


def table(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [f"{'':24}{'raw':>12}{'lineside':>12}{'ratio':>8}  goal"]
    for events, found in figures["events_per_message"].items():
        raw, own = found["raw"], found["lineside"]
        for key, goal, ratio in (
            ("events_per_s", ">= 0.8 of raw", found["throughput_ratio"]),
            ("messages_per_s", "", None),
            ("cpu_us_per_event", "", found["cpu_ratio"]),
            ("commit_p99_ms", "< 1000", None),
            ("rss_mb", "", None),
        ):
            shown = "" if ratio is None else f"{ratio:8.2f}"
            lines.append(f"{events:>2} x {key:19}{raw[key]:12.1f}{own[key]:12.1f}{shown:>8}  {goal}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
