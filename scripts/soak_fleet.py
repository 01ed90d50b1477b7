"""`run.py soak fleet`: a thousand devices on real MQTT connections, the API asked meanwhile, and every record counted.

The fleet is what `lineside-fleet` starts: mosquitto with its configuration, `ingest` and `serve` as processes, SQLite.
The devices are those of `device_crowd.py`: health every 30 s and one batch a second each. Measured are the processor
time and the memory of each server process, the API's times of answer, and rows against what the devices sent. Prints
one JSON object on its last line; needs mosquitto.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from scripts.plant import PlantError, wait_for
from scripts.small_plant import ROOT, SmallPlant, enrol

CROWD: Final = 500  # devices a process
ASKED_PER_S: Final = 8.0
SAMPLED_EVERY_S: Final = 2.0
_MB: Final = 2**20


class Asker:
    """Asks the API as pages and people do, one question after the other, and notes how long each took."""

    def __init__(self, port: int, token: str, devices: int, seed: int) -> None:
        self._port, self._headers, self._devices = port, {"Authorization": f"Bearer {token}"}, devices
        self._random = random.Random(seed)  # noqa: S311
        self._connection: http.client.HTTPConnection | None = None
        self.seconds: dict[str, list[float]] = {}
        self.failed = 0

    def ask(self) -> None:
        """Put one question."""
        name = f"crowd-{self._random.randrange(self._devices)}"
        kind, path = self._random.choice(
            (
                ("devices", "/devices?limit=50"),
                ("device", f"/devices/{name}"),
                ("health", f"/devices/{name}/health?limit=20"),
                ("inspections", "/inspections?limit=50"),
                ("inspections of a device", f"/inspections?device={name}&limit=50"),
                ("inspections NG", "/inspections?verdict=NG&limit=50"),
                ("counters", f"/counters?device={name}&limit=50"),
                ("outboxes", "/outboxes"),
                ("quarantine", "/quarantine"),
                ("ingest", "/ingest"),
            )
        )
        began = time.monotonic()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
            self._connection.request("GET", f"/api/v1{path}", headers=self._headers)
            answer = self._connection.getresponse()
            answer.read()
            self.failed += answer.status != http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            self.failed += 1
            self._connection = None
        self.seconds.setdefault(kind, []).append(time.monotonic() - began)


class Watch:
    """Samples memory and processor time of the server processes."""

    def __init__(self, plant: SmallPlant) -> None:
        parts = {"broker": plant.broker, "ingest": plant.ingest, "serve": plant.fleet}
        self._parts = {name: psutil.Process(part.pid) for name, part in parts.items() if part is not None}
        self.memory: dict[str, list[float]] = {name: [] for name in self._parts}
        self._cpu = {name: self._cpu_s(part) for name, part in self._parts.items()}
        self._began = time.monotonic()

    def sample(self) -> None:
        """Note the memory of now."""
        for name, part in self._parts.items():
            self.memory[name].append(part.memory_info().rss / _MB)

    def figures(self) -> dict[str, dict[str, float]]:
        """Return for each process its share of a core, and its memory early, late and at most."""
        seconds = time.monotonic() - self._began
        found = {}
        for name, part in self._parts.items():
            samples = self.memory[name]
            fifth = max(1, len(samples) // 5)
            early, late = statistics.median(samples[fifth : 2 * fifth]), statistics.median(samples[-fifth:])
            found[name] = {
                "cores": round((self._cpu_s(part) - self._cpu[name]) / seconds, 3),
                "early_mb": round(early, 1),
                "late_mb": round(late, 1),
                "most_mb": round(max(samples), 1),
            }
        return found

    @staticmethod
    def _cpu_s(part: psutil.Process) -> float:
        times = part.cpu_times()
        return float(times.user + times.system)


def run(
    folder: Path,
    *,
    devices: int,
    seconds: float,
    events: int = 1,
    seed: int = 1,
    say: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Run a crowd against a fleet and return the figures; `faults` must be empty."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, devices + 500), hard), hard))
    with SmallPlant(folder, devices=0, serves=True) as plant:
        enrol(folder / "fleet", [f"crowd-{number}" for number in range(devices)])
        asker = Asker(plant.http_port, _token(plant), devices, seed)
        wait_for("the API answers", lambda: _answers(asker), 40)
        crowds = [_crowd(plant, first, min(CROWD, devices - first), seconds, events)
                  for first in range(0, devices, CROWD)]  # fmt: skip
        try:
            watch = _watch_while(plant, crowds, asker, seconds, say)
            told = [json.loads((crowd.communicate(timeout=120)[0] or "{}").splitlines()[-1]) for crowd in crowds]
        finally:
            for crowd in crowds:
                crowd.kill()
                crowd.wait()
        return _summary(plant, told, watch, asker, {"devices": devices, "seconds": seconds, "events_per_batch": events})


def _watch_while(
    plant: SmallPlant,
    crowds: list[subprocess.Popen[str]],
    asker: Asker,
    seconds: float,
    say: Callable[[str], None],
) -> Watch:
    began = time.monotonic()
    watch = Watch(plant)
    sampled, said = 0.0, 0
    while (now := time.monotonic()) < began + seconds:
        asker.ask()
        if now - sampled >= SAMPLED_EVERY_S:
            sampled = now
            watch.sample()
        if (now - began) // 60 > said:
            said += 1
            ((rows,),) = plant.rows("SELECT count(*) FROM inspection")
            say(f"{said} min: {rows} rows; {watch.figures()}")
        if any(crowd.poll() not in (None, 0) for crowd in crowds):
            raise PlantError("a crowd of devices ended")
        time.sleep(max(0.0, 1 / ASKED_PER_S - (time.monotonic() - now)))
    watch.sample()
    return watch


def _summary(
    plant: SmallPlant, told: list[dict[str, Any]], watch: Watch, asker: Asker, what: dict[str, float]
) -> dict[str, Any]:
    sent = {name: counts for one in told for name, counts in one["sent"].items()}
    rows = {name: (count, last) for name, count, last in plant.rows(
        "SELECT device, count(*), max(seq) FROM inspection GROUP BY device")}  # fmt: skip
    health = dict(plant.rows("SELECT device, count(*) FROM device_health GROUP BY device"))
    doubles = plant.rows("SELECT count(*) - count(DISTINCT trigger_id) FROM inspection")[0][0]
    faults = {
        "lost": sum(max(0, count - rows.get(name, (0, 0))[0]) for name, (count, _) in sent.items()),
        "twice": int(doubles) + sum(max(0, rows.get(name, (0, 0))[0] - count) for name, (count, _) in sent.items()),
        "health_lost": sum(max(0, count - health.get(name, 0)) for name, (_, count) in sent.items()),
        "unsettled": sum(one["unsettled"] for one in told),
        "quarantined": plant.rows("SELECT count(*) FROM quarantine")[0][0],
        "api_failed": asker.failed,
    }
    times_ms = sorted(value * 1000 for values in asker.seconds.values() for value in values)
    (ingest,) = plant.rows("SELECT status FROM ingest_worker")
    return {
        "schema": "lineside.soak-fleet/1",
        **what,
        "cores_of_the_machine": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 1),
        "records": sum(count for count, _ in sent.values()),
        "health_records": sum(count for _, count in sent.values()),
        "connections": sum(one["connections"] for one in told),
        "messages_repeated": sum(one["repeated"] for one in told),
        "settling_s": round(max(one["settling_s"] for one in told), 1),
        "ack_p50_ms": round(statistics.median(one["ack_p50_ms"] for one in told), 1),
        "ack_p99_ms": round(max(one["ack_p99_ms"] for one in told), 1),
        "commit_p99_ms": round(json.loads(ingest[0])["commit_p99_s"] * 1000, 1),
        "crowd_cores": round(sum(one["cpu_s"] for one in told) / what["seconds"], 3),
        "processes": watch.figures(),
        "api_asked": len(times_ms),
        "api_p50_ms": round(statistics.median(times_ms), 1),
        "api_p99_ms": round(times_ms[len(times_ms) * 99 // 100], 1),
        "api_p99_ms_by_question": {
            kind: round(sorted(values)[len(values) * 99 // 100] * 1000, 1)
            for kind, values in sorted(asker.seconds.items())
        },
        "faults": {name: value for name, value in faults.items() if value},
    }


def _crowd(plant: SmallPlant, first: int, devices: int, seconds: float, events: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "scripts" / "device_crowd.py"), "--port", str(plant.broker_port)]
    command += ["--first", str(first), "--devices", str(devices), "--seconds", str(seconds), "--events", str(events)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _token(plant: SmallPlant) -> str:
    command = [sys.executable, "-m", "fleet.cli", "--data-dir", str(plant.folder / "fleet"), "token", "create"]
    done = subprocess.run(
        [*command, "--name", "soak", "--role", "viewer"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()[-1]


def _answers(asker: Asker) -> bool:
    asker.ask()
    fine = asker.failed == 0
    asker.failed = 0
    asker.seconds.clear()
    return fine


def main() -> int:
    """Run the crowd, count, and print the figures."""
    parser = argparse.ArgumentParser(prog="run.py soak fleet", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--events", type=int, default=1, help="inspections a batch")
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lineside-fleet-") as folder:
        try:
            figures = run(
                Path(folder) / "plant",
                devices=args.devices,
                seconds=args.minutes * 60,
                events=args.events,
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )
        except PlantError as error:
            print(f"error: {error}", file=sys.stderr)
            return 3
    if not args.json:
        for name, value in figures.items():
            print(f"{name:>24}  {value}")
    print(json.dumps(figures))
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
