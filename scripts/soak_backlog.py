"""`run.py soak backlog`: a device comes back after two weeks offline with a million records; live ones stay fresh.

The outbox is made with its records in it (`backlog.py`). Then the device starts, beside a line that moves: catching up,
until all of it is rows, the age of each live record when ingest received it is what an operator sees. Real mosquitto,
`lineside-fleet ingest` and a small device, as in `soak kills`. Prints one JSON object on its last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psutil

from scripts import backlog
from scripts.plant import PlantError, wait_for
from scripts.small_plant import SmallDeviceProcess, SmallPlant

STALLED_S: Final = 60.0
_MB: Final = 2**20


def run(
    folder: Path, *, records: int, rate: float, seed: int, say: Callable[[str], None] = lambda _text: None
) -> dict[str, Any]:
    """Leave records behind, catch up, and return the figures; `faults` must be empty.

    Raises:
        PlantError: where nothing arrives any more.
    """
    made: list[int] = []

    def leave_behind(device: SmallDeviceProcess) -> None:
        made.append(backlog.make(device.folder, device.line_file, device.name, records))
        say(f"{records} records left behind, {made[0] / _MB:.0f} MB")

    options = ("--max-mb", str(max(256, records // 500)))
    with SmallPlant(folder, rate=rate, seed=seed, device_options=options, prepare=leave_behind) as plant:
        (device,) = plant.devices

        def arrived_now() -> int:
            return int(plant.rows("SELECT count(*) FROM inspection WHERE trigger_run = ?", backlog.RUN)[0][0])

        wait_for("the backlog flows", arrived_now, 60)
        began, before = time.monotonic(), psutil.Process(device.pid).cpu_times()
        ingest_before = psutil.Process(plant.ingest.pid).cpu_times()
        first = arrived = arrived_now()
        moved = began
        while arrived < records:
            time.sleep(1.0)
            now = arrived_now()
            if now // 100_000 > arrived // 100_000:
                say(f"{now} arrived in {time.monotonic() - began:.0f} s")
            moved = time.monotonic() if now > arrived else moved
            arrived = now
            if time.monotonic() - moved > STALLED_S or not device.running:
                raise PlantError(f"only {arrived} of {records} arrived:\n{device.tail()}")
        seconds = time.monotonic() - began
        live = plant.rows(
            "SELECT (received_at_us - judged_at_us) / 1e6 FROM inspection WHERE trigger_run != ?", backlog.RUN
        )
        ages_s = sorted(age for (age,) in live)
        cpu, ingest_cpu = psutil.Process(device.pid).cpu_times(), psutil.Process(plant.ingest.pid).cpu_times()
        memory_mb = {
            "device_mb": psutil.Process(device.pid).memory_info().rss / _MB,
            "ingest_mb": psutil.Process(plant.ingest.pid).memory_info().rss / _MB,
        }
        plant.halt_lines()
        plant.settle()
        accounts = plant.accounts()
        return {
            "schema": "lineside.soak-backlog/1",
            "records": records,
            "outbox_mb": round(made[0] / _MB),
            "seconds": round(seconds, 1),
            "records_per_s": round((arrived - first) / seconds),
            "live_records": len(ages_s),
            "live_p50_s": round(statistics.median(ages_s), 3),
            "live_p90_s": round(ages_s[len(ages_s) * 9 // 10], 3),
            "live_p99_s": round(ages_s[len(ages_s) * 99 // 100], 3),
            "live_max_s": round(ages_s[-1], 3),
            "device_cpu_us_per_record": round(_spent_s(before, cpu) * 1e6 / records, 1),
            "ingest_cpu_us_per_record": round(_spent_s(ingest_before, ingest_cpu) * 1e6 / records, 1),
            **{name: round(value) for name, value in memory_mb.items()},
            **asdict(accounts),
            "faults": accounts.faults(),
        }


def _spent_s(before: Any, after: Any) -> float:
    return float(after.user + after.system - before.user - before.system)


def main() -> int:
    """Catch up, count, and print the figures."""
    parser = argparse.ArgumentParser(prog="run.py soak backlog", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=10.0, help="live parts per second")
    parser.add_argument("--seed", type=int, default=20_261_127)
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lineside-backlog-") as folder:
        try:
            figures = run(
                Path(folder) / "plant",
                records=args.records,
                rate=args.rate,
                seed=args.seed,
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )
        except PlantError as error:
            print(f"error: {error}", file=sys.stderr)
            return 3
    if not args.json:
        for name, value in figures.items():
            print(f"{name:>26}  {value}")
    print(json.dumps(figures))
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
