"""`run.py soak kills`: kill -9 of devices, broker, ingest and fleet at random moments, a thousand times.

Each victim is a real process: mosquitto with the fleet's configuration, `lineside-fleet ingest` and `serve`, and small
devices (`small_device.py`: the agent's own line, ledger, outbox and link, without cameras). Meanwhile the lines never
stop. In the end the lines' own count files are held against the rows: 0 lost, 0 twice, and each part that
nobody inspected is NO_VERDICT(agent_down). Prints one JSON object on its last line; needs mosquitto.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from scripts.plant import PlantError, Process
from scripts.small_plant import SmallPlant

DEVICES: Final = 3
# Out of 24 kills. A device is back in 0.3 s, ingest and fleet need seconds of processor time to start.
VICTIMS: Final = ("device",) * 15 + ("broker",) * 6 + ("ingest",) * 2 + ("fleet",)
PAUSE_S: Final = (0.0, 0.4)
AWAY_S: Final = (0.0, 0.5)
# Ingest is only killed once it has begun to work, and after a moment of it; the others at any moment, starts included.
INGEST_UP_S: Final = (0.0, 2.0)


class Reaper:
    """Kills and starts again, each part on its own time, all on one thread.

    Args:
        say: told the progress.
    """

    def __init__(self, plant: SmallPlant, seed: int, say: Callable[[str], None] = lambda _text: None) -> None:
        self._plant = plant
        self._random = random.Random(seed)  # noqa: S311 - a test must repeat itself
        self._say = say
        self._back_at: dict[str, tuple[float, Process]] = {}
        self._ingest_may_die_at = 0.0
        self.killed: Counter[str] = Counter()

    def reap(self, kills: int, patience_s: float) -> None:
        """Kill so many times, the victims in random order; stop early when the time is over."""
        began = time.monotonic()
        waiting: list[str] = []
        while self.killed.total() < kills and time.monotonic() - began < patience_s:
            waiting = waiting or self._random.sample(VICTIMS, len(VICTIMS))
            victim = next((name for name in waiting if self._kill(name)), None)
            if victim is not None:
                waiting.remove(victim)
                if self.killed.total() % 50 == 0:
                    self._say(f"{self.killed.total()} kills in {time.monotonic() - began:.0f} s")
            self._rest(self._random.uniform(*PAUSE_S))
        for at, process in self._back_at.values():
            time.sleep(max(0.0, at - time.monotonic()))
            self._start(process)
        self._back_at = {}

    def _kill(self, name: str) -> bool:
        """Kill one of these; False where it is away, or not there yet."""
        plant = self._plant
        process = {"broker": plant.broker, "ingest": plant.ingest, "fleet": plant.fleet}.get(name)
        if name == "device":
            process = self._random.choice(plant.devices)
        if process is None or process.name in self._back_at or not process.running:
            return False
        if process is plant.ingest and not self._ingest_is_up():
            return False
        process.kill()
        self.killed[name] += 1
        self._back_at[process.name] = (time.monotonic() + self._random.uniform(*AWAY_S), process)
        return True

    def _ingest_is_up(self) -> bool:
        """Whether it listens, and has done so for a random while."""
        if self._ingest_may_die_at == 0.0:
            try:
                self._plant.wait_ingest(0.0)
            except PlantError:
                return False
            self._ingest_may_die_at = time.monotonic() + self._random.uniform(*INGEST_UP_S)
        return time.monotonic() >= self._ingest_may_die_at

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            for name, (at, process) in list(self._back_at.items()):
                if at <= time.monotonic():
                    del self._back_at[name]
                    self._start(process)
            if time.monotonic() >= until:
                return
            time.sleep(0.01)

    def _start(self, process: Process) -> None:
        if process is self._plant.ingest:
            self._ingest_may_die_at = 0.0
            self._plant.start_ingest()
        else:
            process.start()


def run(
    folder: Path, *, kills: int, seed: int, patience_s: float, say: Callable[[str], None] = lambda _text: None
) -> dict[str, Any]:
    """Run the plant through its kills and return the figures; `faults` must be empty."""
    began = time.monotonic()
    with SmallPlant(folder, devices=DEVICES, rate=12.0, seed=seed, serves=True) as plant:
        reaper = Reaper(plant, seed, say)
        reaper.reap(kills, patience_s)
        reaped = time.monotonic()
        plant.halt_lines()
        plant.wait_ingest()
        plant.settle()
        accounts = plant.accounts()
        refused = sum(device.status().get("records_refused", 0) for device in plant.devices)
        return {
            "schema": "lineside.soak-kills/1",
            "seed": seed,
            "kills": reaper.killed.total(),
            "killed": dict(reaper.killed),
            "seconds": round(reaped - began, 1),
            "seconds_to_settle": round(time.monotonic() - reaped, 1),
            **asdict(accounts),
            "records_refused": refused,
            "faults": accounts.faults(),
        }


def main() -> int:
    """Kill, count, and print the figures."""
    parser = argparse.ArgumentParser(prog="run.py soak kills", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=20_261_122)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long, however many there were")
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    args = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="lineside-kills-") as folder:
        try:
            figures = run(
                Path(folder) / "plant", kills=args.kills, seed=args.seed, patience_s=args.minutes * 60, say=say
            )
        except PlantError as error:
            print(f"error: {error}", file=sys.stderr)
            return 3
    if not args.json:
        for name, value in figures.items():
            print(f"{name:>18}  {value}")
    print(json.dumps(figures))
    return 1 if figures["faults"] or figures["kills"] < args.kills else 0


if __name__ == "__main__":
    sys.exit(main())
