"""`run.py bench agent`: what the agent costs beside a bare `session.run` and a plain loop, in one run, alternating.

Contestants, each in a process of its own for each round:
- bare: `session.run` on one prepared tensor, one thread, spinning off: the floor;
- bare_all: the same on all cores at once: what the machine's cores give together (they may share a real one);
- decode: grab and retrieve every frame of the clip, nothing else;
- floor_paced: grab, retrieve and a bare run at the camera's pace: what a cold cache makes of the two above;
- plain: one loop of VideoCapture, blobFromImage, run, decode and one MQTT publish a frame, all defaults;
- agent: `lineside run` with durable records, counters and health on, against a real mosquitto. This process stands in
  for the fleet: it acknowledges what the agent sends, at a cost that is not counted as the agent's.
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
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--package", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--mqtt-port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--frames-per-s", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part is not None:
        print(json.dumps(_PARTS[args.part](args)))
        return 0
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
    command = [sys.executable, str(Path(__file__)), "--part", part, "--package", str(package), "--frames", str(frames)]
    command += ["--mqtt-port", str(broker.port), "--clip", str(broker.folder / CLIP_NAME)]
    if frames_per_s is not None:
        command += ["--frames-per-s", str(frames_per_s)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _rss_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss / 2**20)


def _figures(laps_ms: list[float], wall_s: float, cpu_s: float) -> dict[str, Any]:
    count = len(laps_ms)
    ordered = sorted(laps_ms)
    return {
        "frames_per_s": count / wall_s,
        "cpu_ms_per_frame": cpu_s * 1000 / count,
        "wall_ms_per_frame": wall_s * 1000 / count,
        "p50_ms": ordered[count // 2],
        "p99_ms": ordered[min(count - 1, int(count * 0.99))],
        "rss_mb": _rss_mb(),
    }


def _bare(args: argparse.Namespace) -> dict[str, Any]:
    import cv2

    from agent.vision import runtime
    from agent.vision.preprocess import Preprocessor
    from wire import package as packages

    cv2.setNumThreads(1)
    package = packages.read_folder(args.package)
    session = runtime.load(package, runtime.RuntimeOptions(threads=1))
    capture = cv2.VideoCapture(str(args.clip), cv2.CAP_FFMPEG)
    _, image = capture.read()
    tensor = Preprocessor(package.manifest.input)(image)[0].copy()
    inputs = {session.input_name: tensor}
    for _ in range(WARM_UP):
        session.run(inputs)
    laps = []
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(args.frames):
        started = time.perf_counter()
        session.run(inputs)
        laps.append((time.perf_counter() - started) * 1000)
    return _figures(laps, time.perf_counter() - wall, time.process_time() - cpu)


def _bare_all(args: argparse.Namespace) -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from agent.vision import runtime
    from wire import package as packages

    package = packages.read_folder(args.package)
    session = runtime.load(package, runtime.RuntimeOptions(threads=1))
    spec = package.manifest.input
    tensor = np.full((1, 3, spec.height_px, spec.width_px), 0.5, np.float32)

    def lap(_: int) -> float:
        started = time.perf_counter()
        session.run({session.input_name: tensor})
        return (time.perf_counter() - started) * 1000

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lap, range(WARM_UP)))
        wall, cpu = time.perf_counter(), time.process_time()
        laps = list(pool.map(lap, range(args.frames)))
    return _figures(laps, time.perf_counter() - wall, time.process_time() - cpu)


def _decode(args: argparse.Namespace) -> dict[str, Any]:
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(args.clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    laps = []
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(args.frames):
        started = time.perf_counter()
        capture.read()
        laps.append((time.perf_counter() - started) * 1000)
    return _figures(laps, time.perf_counter() - wall, time.process_time() - cpu)


def _floor(args: argparse.Namespace) -> dict[str, Any]:
    import cv2

    from agent.vision import runtime
    from agent.vision.preprocess import Preprocessor
    from wire import package as packages

    cv2.setNumThreads(1)
    package = packages.read_folder(args.package)
    session = runtime.load(package, runtime.RuntimeOptions(threads=1))
    capture = cv2.VideoCapture(str(args.clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    _, image = capture.read()
    inputs = {session.input_name: Preprocessor(package.manifest.input)(image)[0].copy()}
    session.run(inputs)
    laps = []
    due = wall = time.perf_counter()
    cpu = time.process_time()
    for _ in range(args.frames):
        due += 1 / args.frames_per_s
        time.sleep(max(0.0, due - time.perf_counter()))
        started = time.perf_counter()
        capture.read()
        session.run(inputs)
        laps.append((time.perf_counter() - started) * 1000)
    return _figures(laps, time.perf_counter() - wall, time.process_time() - cpu)


def _plain(args: argparse.Namespace) -> dict[str, Any]:
    import cv2
    import onnxruntime
    import paho.mqtt.client as mqtt

    from agent.vision import nms
    from agent.vision.candidates import Candidates, DecoderParams
    from agent.vision.decoders import registry
    from wire import package as packages

    package = packages.read_folder(args.package)
    spec, manifest = package.manifest.input, package.manifest
    session = onnxruntime.InferenceSession(str(package.model_path))
    name = session.get_inputs()[0].name
    decoder = registry.find(manifest.decoder)
    params = DecoderParams(
        width_px=spec.width_px,
        height_px=spec.height_px,
        class_count=len(package.labels),
        score_threshold=manifest.thresholds["score"].default,
        options=manifest.decoder.parameters,
    )
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", args.mqtt_port)
    client.loop_start()
    capture = cv2.VideoCapture(str(args.clip))
    laps = []
    due = time.perf_counter()
    wall = cpu = 0.0
    for number in range(args.frames + WARM_UP):
        if number == WARM_UP:
            wall, cpu = time.perf_counter(), time.process_time()
        if args.frames_per_s:
            due += 1 / args.frames_per_s
            time.sleep(max(0.0, due - time.perf_counter()))
        started = time.perf_counter()
        _, image = capture.read()
        if image is None:
            capture = cv2.VideoCapture(str(args.clip))
            _, image = capture.read()
        blob = cv2.dnn.blobFromImage(image, 1 / 255, (spec.width_px, spec.height_px), swapRB=spec.color == "RGB")
        outputs = session.run(None, {name: blob})
        candidates = decoder.decode(outputs, params)
        count = 0
        if isinstance(candidates, Candidates):
            count = len(nms.suppress(candidates, iou_threshold=0.45, class_agnostic=True))
        client.publish("bench/plain", json.dumps({"frame": number, "findings": count}), qos=1)
        if number >= WARM_UP:
            laps.append((time.perf_counter() - started) * 1000)
    figures = _figures(laps, time.perf_counter() - wall, time.process_time() - cpu)
    client.disconnect()
    client.loop_stop()
    return figures


_PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "bare": _bare,
    "bare_all": _bare_all,
    "decode": _decode,
    "floor": _floor,
    "plain": _plain,
}


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
    config = _prepare(data, package, broker.port, threads, frames_per_s)
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


def _prepare(data: Path, package: Path, mqtt_port: int, threads: int | None, frames_per_s: float | None) -> Path:
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
