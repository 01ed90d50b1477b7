"""Measures how far a timed reject pulse is from its moment: the thread and the lock of GpioOutput on a chip in memory.

.venv/bin/python scripts/measure_pulse.py --pulses 3000 [--busy-threads 2] [--ordinary] [--json]

What a real wire adds (the kernel's and the chip's part) is not in these figures. `--busy-threads` runs Python loops
beside it, which take the interpreter as a busy agent does.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import random
import sys
import threading
import time
from datetime import UTC, datetime

from agent.clock import SystemClock
from agent.line.gpio_chip import FakeChip
from agent.line.gpio_output import GpioOutput
from agent.line.settings import GpioOutputSettings
from agent.line.trigger import Answer, StationState, Trigger
from wire.inspection import Reason, Route, Verdict

DELAY_MS = 40.0
WIDTH_MS = 10.0
SWITCH_INTERVAL_S = 0.0005  # as agent/app.py sets it


def spin(stop: threading.Event) -> None:
    """Use the interpreter as a busy station does: some milliseconds at a time."""
    rng = random.Random(5)  # noqa: S311  (a seeded load)
    while not stop.is_set():
        until = time.perf_counter() + rng.uniform(0.001, 0.004)
        while time.perf_counter() < until:
            sum(range(100))
        time.sleep(rng.uniform(0.001, 0.004))


def _refuse(*_: object) -> None:
    raise PermissionError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pulses", type=int, default=3000)
    parser.add_argument("--busy-threads", type=int, default=0)
    parser.add_argument("--ordinary", action="store_true", help="as on a system that gives no real-time priority")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.ordinary:
        os.sched_setscheduler = _refuse
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    chip, clock = FakeChip(), SystemClock()
    rng = random.Random(3)  # noqa: S311  (a seeded load)
    settings = GpioOutputSettings(chip="fake", line=1, action="pulse", delay_ms=DELAY_MS, width_ms=WIDTH_MS)
    output = GpioOutput(settings, clock, name="measured", capacity=100, open_chip=lambda _path: chip)
    while output.counts().trouble:
        time.sleep(0.01)
    output.set_state(StationState(ready=True))
    stop = threading.Event()
    busy = [threading.Thread(target=spin, args=(stop,), daemon=True) for _ in range(args.busy_threads)]
    for thread in busy:
        thread.start()
    time.sleep(0.1)
    chip.levels.clear()
    due = []
    for number in range(args.pulses):
        now_ns = clock.monotonic_ns()
        trigger = Trigger(id=f"p{number}", run="r", sequence=number + 1, at_ns=now_ns, at_utc=datetime.now(UTC))
        due.append(now_ns + int(DELAY_MS * 1e6))
        output.expect(trigger)
        output.answer(
            Answer(
                trigger=trigger, inspection_id="", verdict=Verdict.NG, reason=Reason.RULE_FIRED, route=Route.REJECT,
                recipe="default", judged_ns=now_ns,
            )
        )  # fmt: skip
        time.sleep(rng.uniform(0.012, 0.02))  # further apart than a pulse is wide, so that each one is seen
    time.sleep(0.2)
    stop.set()
    for thread in busy:
        thread.join(2)
    counts, real_time = output.counts(), output.real_time
    begun = [level.at_ns for level in chip.levels if level.high is True]
    output.close()
    # Pulses that were given begin at most half their width late, and their moments are further apart than that.
    late_ms = sorted((at - due[bisect.bisect_right(due, at) - 1]) / 1e6 for at in begun)

    def at(share: float) -> float:
        return round(late_ms[min(len(late_ms) - 1, int(share * len(late_ms)))], 3)

    found = {
        "schema": "lineside.measure-pulse/1",
        "pulses": len(late_ms),
        "not_given": counts.failed,
        "busy_threads": args.busy_threads,
        "real_time": real_time,
        "late_ms": {"min": round(late_ms[0], 3), "p50": at(0.5), "p99": at(0.99), "p99_9": at(0.999),
                    "max": round(late_ms[-1], 3)},
    }  # fmt: skip
    print(json.dumps(found) if args.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
