"""`run.py bench agent`: what the agent costs beside a bare `session.run` and a plain loop, in one run, alternating.

Contestants, each in a process of its own for each round:
- bare: `session.run` on one prepared tensor, one thread, spinning off: the floor;
- bare_all: the same on all cores at once: what the machine's cores give together (they may share a real one);
- decode: grab and retrieve every frame of the clip, nothing else;
- floor_paced: grab, retrieve and a bare run at the camera's pace: what a cold cache makes of the two above;
- plain: one loop of VideoCapture, blobFromImage, run, decode and one MQTT publish a frame, all defaults;
- agent: `lineside run` with durable records, counters and health on, against a real mosquitto. This process stands in
  for the fleet: it acknowledges what the agent sends, at a cost that is not counted as the agent's.
- swap: the agent at the camera's pace while two releases of the model take turns, 20 times.
Prints one JSON object on its last line. Needs the shared models and clips (`../shared/data`) and mosquitto.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SHARED = ROOT.parent / "shared" / "data"
SOURCE_CLIP = SHARED / "video" / "cockatoo.mp4"  # 1280x720, but 4:4:4, which no camera sends
MODELS = {"fast": "fastestdet-coco", "slow": "yolov8n-coco"}
FRAMES = {"fast": 540, "slow": 60}
# The slow model takes about 0.1 s a frame here: at 10 frames a second it would only show a queue.
PACED_FRAMES_PER_S = {"fast": 10.0, "slow": 5.0}
PACED_FRAMES = 80
DEVICE = "bench-1"
CLIP_NAME = "clip.mp4"
WARM_UP = 10
CLIP_ROUNDS = 2


def main() -> int:
    """Measure all contestants and print the figures beside the goals."""
    parser = argparse.ArgumentParser(
        prog="run.py bench agent", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=["fast", "slow"])
    args = parser.parse_args()
    missing = [str(path) for path in (SOURCE_CLIP, SHARED / "models") if not path.exists()]
    broker = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if missing or broker is None:
        needs = missing or ["mosquitto (apt install mosquitto)"]
        print(f"error: this bench needs {', '.join(needs)}.", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as folder, Broker(broker, Path(folder)) as running:
        figures = measure(Path(folder), running, args)
    if not args.json:
        print(table(figures))
    print(json.dumps(figures))
    return 0


def measure(folder: Path, broker: Broker, args: argparse.Namespace) -> dict[str, Any]:
    """Run every contestant `rounds` times, in turn, and take medians."""
    from tests.support import shared_packages

    make_clip(folder / CLIP_NAME)
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for model in args.models:
        package = shared_packages.assemble(MODELS[model], SHARED, folder)
        pace = PACED_FRAMES_PER_S[model]
        contestants: dict[str, Callable[[], dict[str, Any]]] = {
            "bare": lambda p=package, n=FRAMES[model]: _child("bare", p, n, broker),
            "bare_all": lambda p=package, n=FRAMES[model]: _child("bare_all", p, n, broker),
            "decode": lambda p=package, n=FRAMES[model]: _child("decode", p, n, broker),
            "plain": lambda p=package, n=FRAMES[model]: _child("plain", p, n, broker),
            "agent_1": lambda p=package, n=FRAMES[model]: run_agent(folder, p, n, broker, threads=1),
            "agent_all": lambda p=package, n=FRAMES[model]: run_agent(folder, p, n, broker, threads=None),
            "floor_paced": lambda p=package, pace=pace: _child("floor", p, PACED_FRAMES, broker, pace),
            "plain_paced": lambda p=package, pace=pace: _child("plain", p, PACED_FRAMES, broker, pace),
            "agent_paced": lambda p=package, pace=pace: run_agent(
                folder, p, PACED_FRAMES, broker, threads=1, frames_per_s=pace
            ),
        }
        if model == "fast":
            contestants["swap"] = lambda p=package, pace=pace: measure_swaps(folder, p, broker, pace)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
        for number in range(args.rounds):
            for name, run in contestants.items():
                found[name].append(run())
                print(f"{model} round {number + 1}: {name} {_short(found[name][-1])}", file=sys.stderr, flush=True)
        results[model] = found
    return {
        "schema": "lineside.bench-agent/1",
        "rounds": args.rounds,
        "cores": len(os.sched_getaffinity(0)),
        "clip": f"{SOURCE_CLIP.name} as 1280x720 4:2:0 MPEG-4",
        "models": {model: _summary(found) for model, found in results.items()},
    }


def make_clip(path: Path) -> None:
    """Write the shared 720p clip, twice over, in the form that cameras send: 4:2:0."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (1280, 720))
    for _ in range(CLIP_ROUNDS):
        capture = cv2.VideoCapture(str(SOURCE_CLIP), cv2.CAP_FFMPEG)
        while (answer := capture.read())[0]:
            writer.write(answer[1])
    writer.release()


def _summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    medians = {
        name: {key: statistics.median(float(one[key]) for one in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    }
    bare, decode, plain = medians["bare"], medians["decode"], medians["plain"]
    one, every = medians["agent_1"], medians["agent_all"]
    floor_paced, plain_paced, paced = medians["floor_paced"], medians["plain_paced"], medians["agent_paced"]
    cores = len(os.sched_getaffinity(0))
    floor_ms = decode["cpu_ms_per_frame"] + bare["cpu_ms_per_frame"]
    goals = {
        "throughput of one worker / bare": _goal(one["frames_per_s"] / bare["frames_per_s"], 0.97, 0.85, bare),
        "throughput of all cores / (cores / (decode + run CPU))": _goal(
            every["frames_per_s"] / (cores * 1000 / floor_ms), 0.95, 0.85, bare
        ),
        "throughput of all cores / bare on all cores": (
            every["frames_per_s"] / medians["bare_all"]["frames_per_s"],
            "-",
        ),
        "CPU ms per frame outside decode and run (paced)": (
            paced["cpu_ms_per_frame"] - floor_paced["cpu_ms_per_frame"],
            "<= 1.0",
        ),
        "CPU ms per frame outside decode and run (full speed)": (one["cpu_ms_per_frame"] - floor_ms, "<= 1.0"),
        "paced CPU / plain loop": (paced["cpu_ms_per_frame"] / plain_paced["cpu_ms_per_frame"], "<= 0.40"),
        "paced p50 / (decode + run at the same pace)": (paced["p50_ms"] / floor_paced["p50_ms"], "<= 1.15"),
        "paced p99 - (decode + run at the same pace) p99 (ms)": (paced["p99_ms"] - floor_paced["p99_ms"], "<= 3"),
        "RSS above the bare loop (MB)": (one["rss_mb"] - bare["rss_mb"], "<= 30"),
        "start to first record (s)": (one["first_record_s"], "<= 1"),
        "throughput / plain loop": (one["frames_per_s"] / plain["frames_per_s"], "> 1"),
    }
    if "swap" in medians:
        swap = medians["swap"]
        goals |= {
            "frames without a verdict during 20 swaps": (swap["frames_lost"], "0"),
            "p99 during a swap / steady p99": (swap["p99_ms"] / swap["steady_p99_ms"], "<= 1.5"),
            "RSS after 20 swaps - before (MB)": (swap["rss_mb"] - swap["rss_before_mb"], "0"),
        }
    return {
        "medians": {name: {key: round(value, 3) for key, value in row.items()} for name, row in medians.items()},
        "goals": {name: {"figure": round(figure, 3), "goal": goal} for name, (figure, goal) in goals.items()},
    }


def _goal(ratio: float, slow: float, fast: float, bare: dict[str, float]) -> tuple[float, str]:
    return ratio, f">= {slow if bare['p50_ms'] >= 20 else fast}"


def _short(row: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value:.2f}" for key, value in row.items())


def table(figures: dict[str, Any]) -> str:
    """Return the goals and figures as text."""
    lines = []
    for model, found in figures["models"].items():
        lines.append(f"{model} ({MODELS[model]})")
        lines += [f"  {name:58} {row['figure']:9.3f}   goal {row['goal']}" for name, row in found["goals"].items()]
    return "\n".join(lines)


# Contestants in a child process


def _child(part: str, package: Path, frames: int, broker: Broker, frames_per_s: float | None = None) -> dict[str, Any]:
    command = [
        sys.executable,
        str(ROOT / "scripts" / "bench_parts.py"),
        part,
        "--package",
        str(package),
        "--frames",
        str(frames),
    ]
    command += ["--mqtt-port", str(broker.port), "--clip", str(broker.folder / CLIP_NAME)]
    if frames_per_s is not None:
        command += ["--frames-per-s", str(frames_per_s)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


# The agent


@dataclass
class Broker:
    """A real mosquitto on a free port, and the stand-in for the fleet."""

    program: str
    folder: Path
    port: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        import paho.mqtt.client as mqtt

        from scripts.plant import free_port, wait_for

        self.port = free_port()
        config = self.folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n", encoding="utf-8")
        self._process = subprocess.Popen([self.program, "-c", str(config)], stderr=subprocess.DEVNULL)
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_message = self._acknowledge

        def connected() -> bool:
            try:
                self._client.connect("127.0.0.1", self.port)
            except OSError:
                return False
            return True

        wait_for("mosquitto listens", connected, 10)
        self._client.subscribe("lineside/v1/+/+/up/+", qos=1)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def _acknowledge(self, client: Any, _: object, message: Any) -> None:
        from wire import codec, topics
        from wire.messages import RangeAck, SeqRange

        batch = json.loads(message.payload)
        if "entries" not in batch:
            return
        sequences = [entry["seq"] for entry in batch["entries"]]
        ack = RangeAck(
            epoch=batch["epoch"], lane=batch["lane"], ranges=tuple(SeqRange(first=seq, last=seq) for seq in sequences)
        )
        client.publish(topics.path("ack", batch["device"]), codec.encode(ack), qos=1)
        if batch["lane"] == "inspections":
            self.records.extend(entry["body"] for entry in batch["entries"])


def run_agent(
    folder: Path, package: Path, frames: int, broker: Broker, *, threads: int | None, frames_per_s: float | None = None
) -> dict[str, Any]:
    """Run `lineside run` on the clip until it has judged `frames`, and measure its process from outside."""
    import psutil

    data = Path(tempfile.mkdtemp(dir=folder))
    config = prepare(data, package, broker.port, threads, frames_per_s)
    broker.records.clear()
    started = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "run", "--config", str(config), "--log-level", "WARNING"],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    watched = psutil.Process(process.pid)
    try:
        first_cpu, first_count = _wait_records(broker, watched, WARM_UP)
        last_cpu, last_count = _wait_records(broker, watched, frames)
        rss_mb = watched.memory_info().rss / 2**20
    finally:
        process.terminate()
        process.wait(20)
    judged = [datetime.fromisoformat(record["judged_at"]).timestamp() for record in broker.records[:last_count]]
    grabbed = [datetime.fromisoformat(record["views"][0]["frame_at"]).timestamp() for record in broker.records]
    laps = sorted((done - seen) * 1000 for done, seen in zip(judged[WARM_UP:], grabbed[WARM_UP:], strict=False))
    wall_s = judged[last_count - 1] - judged[first_count - 1]
    count = last_count - first_count
    return {
        "frames_per_s": count / wall_s,
        "cpu_ms_per_frame": (last_cpu - first_cpu) * 1000 / count,
        "wall_ms_per_frame": wall_s * 1000 / count,
        "p50_ms": laps[len(laps) // 2],
        "p99_ms": laps[min(len(laps) - 1, int(len(laps) * 0.99))],
        "rss_mb": rss_mb,
        "first_record_s": judged[0] - started,
    }


def measure_swaps(folder: Path, package: Path, broker: Broker, frames_per_s: float) -> dict[str, Any]:
    """Swap two releases of a model under a paced clip, in an agent of its own process, and look at every frame."""
    twin = folder / f"{package.name}-next"
    if not twin.exists():
        shutil.copytree(package, twin)
        manifest = twin / "manifest.toml"
        text = manifest.read_text(encoding="utf-8")
        manifest.write_text(text.replace("release = 1", "release = 2"), encoding="utf-8")
    data = Path(tempfile.mkdtemp(dir=folder))
    config = prepare(data, package, broker.port, 1, frames_per_s)
    broker.records.clear()
    command = [
        sys.executable,
        str(ROOT / "scripts" / "bench_parts.py"),
        "swap",
        "--package",
        str(package),
        "--clip",
        str(config),
    ]
    command += ["--mqtt-port", str(broker.port)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    laps: dict[bool, list[float]] = {True: [], False: []}
    numbers = []
    for record in broker.records[WARM_UP:]:
        seen = datetime.fromisoformat(record["views"][0]["frame_at"]).timestamp()
        judged = datetime.fromisoformat(record["judged_at"]).timestamp()
        numbers.append(record["views"][0]["frame_number"])
        during = any(seen <= end and judged >= begin for begin, end in told["windows"])
        laps[during].append((judged - seen) * 1000)
    steady, during_ms = sorted(laps[False]), sorted(laps[True])
    return {
        "frames_lost": max(numbers) - min(numbers) + 1 - len(set(numbers)),
        "frames_during_swaps": len(during_ms),
        "p50_ms": during_ms[len(during_ms) // 2],
        "p99_ms": during_ms[min(len(during_ms) - 1, int(len(during_ms) * 0.99))],
        "steady_p99_ms": steady[min(len(steady) - 1, int(len(steady) * 0.99))],
        "swap_ms": statistics.median((end - begin) * 1000 for begin, end in told["windows"]),
        "rss_before_mb": told["rss_before_mb"],
        "rss_mb": told["rss_mb"],
    }


def _wait_records(broker: Broker, watched: Any, count: int) -> tuple[float, int]:
    """Wait for so many records; return the agent's CPU seconds and the true count at that moment."""
    until = time.monotonic() + 120
    ticker = threading.Event()
    while len(broker.records) < count:
        if time.monotonic() > until:
            raise TimeoutError(f"the agent judged {len(broker.records)} of {count} frames")
        ticker.wait(0.002)
    times = watched.cpu_times()
    return times.user + times.system, len(broker.records)


def prepare(data: Path, package: Path, mqtt_port: int, threads: int | None, frames_per_s: float | None) -> Path:
    """Lay out a device that is enrolled and has its model installed, as deployments would have left it."""
    from agent import identity
    from agent.deploy.store import Store
    from wire import package as packages
    from wire.enrolment import Enrolment

    read = packages.read_folder(package)
    identity.write(data, Enrolment(device=DEVICE, credential="x" * 32, mqtt_host="127.0.0.1", mqtt_port=mqtt_port))
    store = Store(data / "models")
    for file in read.index.files:
        shutil.copyfile(package / file.path, store.incoming_path(file.digest))
        store.adopt(file.digest)
    store.incoming_path(read.digest).write_bytes(packages.index_bytes(read.index))
    store.adopt(read.digest)
    store.materialise(read.digest, read.index)
    store.commit(read.manifest.name, read.digest)
    pace = f"frames_per_s = {frames_per_s}" if frames_per_s else ""
    count = f"[runtime]\nstation_threads = {threads}" if threads else ""
    config = data / "agent.toml"
    config.write_text(
        f"""\
[device]
id = "{DEVICE}"
data_dir = "{data}"
[fleet]
url = "http://127.0.0.1:9"
poll_interval_s = 3600
{count}
[[stations]]
id = "bench"
deadline_ms = 10000
[stations.line]
kind = "each_frame"
[[stations.views]]
id = "top"
model = "{read.manifest.name}"
[stations.views.source]
kind = "video"
path = "{data.parent / CLIP_NAME}"
{pace}
""",
        encoding="utf-8",
    )
    return config


if __name__ == "__main__":
    sys.exit(main())
