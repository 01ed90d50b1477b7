"""The contestants of `run.py bench agent` that run in a process of their own: one JSON object on the last line each."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WARM_UP = 10


def main() -> int:
    """Run one contestant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True, help="the clip; for swap, the agent's settings")
    parser.add_argument("--frames", type=int, default=0)
    parser.add_argument("--frames-per-s", type=float)
    parser.add_argument("--mqtt-port", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(PARTS[args.part](args)))
    return 0


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


def _swap(args: argparse.Namespace) -> dict[str, Any]:
    """The child of `measure_swaps`: a whole agent, whose stations are given two releases in turn."""
    from agent import app, settings
    from wire import package as packages

    config = settings.load(args.clip, environment={})
    agent = app.Agent(config, credential="x" * 32, mqtt_host="127.0.0.1", mqtt_port=args.mqtt_port)
    releases = [packages.read_folder(args.package), packages.read_folder(Path(f"{args.package}-next"))]
    windows = []
    agent.start()
    time.sleep(4)
    rss_before_mb = _rss_mb()
    for number in range(20):
        begin = time.time()
        agent._models.activate(releases[(number + 1) % 2])  # noqa: SLF001  (what a deployment does last)
        windows.append((begin, time.time()))
        time.sleep(0.7)
    rss_mb = _rss_mb()
    agent.close()
    return {"windows": windows, "rss_before_mb": rss_before_mb, "rss_mb": rss_mb}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "bare": _bare,
    "bare_all": _bare_all,
    "decode": _decode,
    "floor": _floor,
    "plain": _plain,
    "swap": _swap,
}


if __name__ == "__main__":
    sys.exit(main())
