"""Measures what a live camera costs in a process of its own, against the same stream read within the agent's process.

.venv/bin/python scripts/measure_cameras.py --seconds 8 --rounds 3

The camera is GStreamer's RTSP server on loopback (h264, 1280 x 720, 30 frames a second), which is not counted. Rounds
alternate. The last line is one JSON object: medians of CPU per frame, memory of the camera's process, and the time from
`open` to the first frame.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import cv2
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.capture.feed import Feed, Lease
from agent.capture.rtsp import OPTIONS
from agent.capture.settings import SourceSettings
from agent.capture.sources import source_of
from agent.clock import SystemClock
from tests.support.rtsp import RtspServer

_MIB = 1024 * 1024


def own_process(url: str, seconds: float) -> dict[str, float]:
    """One round of Lineside's live source behind its feed."""
    began = time.monotonic()
    feed = Feed(source_of("front", SourceSettings(kind="rtsp", url=url), SystemClock()), policy="every")
    feed.open()
    first = feed.take(15)
    if not isinstance(first, Lease):
        raise SystemExit(f"No frame came: {first}")
    first.release()
    started_s = time.monotonic() - began
    process_id = feed.health().process_id
    camera = psutil.Process(process_id)
    camera_before, agent_before = cpu_s(camera), time.process_time()
    frames, ages_ms = 0, []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = feed.take(1)
        if isinstance(answer, Lease):
            ages_ms.append((time.monotonic_ns() - answer.frame.exposed_ns) / 1e6)
            frames += 1
            answer.release()
    camera_s, agent_s = cpu_s(camera) - camera_before, time.process_time() - agent_before
    memory = camera.memory_full_info()
    feed.close()
    return {
        "frames": frames,
        "camera_cpu_ms": camera_s / frames * 1000,
        "agent_cpu_ms": agent_s / frames * 1000,
        "cpu_ms": (camera_s + agent_s) / frames * 1000,
        "hand_over_ms": statistics.median(ages_ms),
        "start_s": started_s,
        "pss_mb": memory.pss / _MIB,
        "private_mb": memory.uss / _MIB,
        "rss_mb": memory.rss / _MIB,
    }


def same_process(url: str, seconds: float) -> dict[str, float]:
    """One round of a plain loop with the same time-outs and threads."""
    began = time.monotonic()
    properties = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 5000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 3000, cv2.CAP_PROP_N_THREADS, 1]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, properties)
    if not capture.read()[0]:
        raise SystemExit("No frame came.")
    started_s = time.monotonic() - began
    before, frames = time.process_time(), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        frames += capture.read()[0]
    used_s = time.process_time() - before
    capture.release()
    return {"frames": frames, "cpu_ms": used_s / frames * 1000, "start_s": started_s}


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--fps", type=int, default=30)
    given = parser.parse_args()
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = OPTIONS
    cv2.setNumThreads(1)
    server = RtspServer(fps=given.fps).start(given.width, given.height)
    rounds: dict[str, list[dict[str, float]]] = {"own_process": [], "same_process": []}
    try:
        for number in range(given.rounds):
            for name, measure in (("own_process", own_process), ("same_process", same_process)):
                rounds[name].append(measure(server.url, given.seconds))
                print(f"round {number + 1} {name}: {rounds[name][-1]}", file=sys.stderr)
    finally:
        server.kill()
    medians = {
        name: {key: round(statistics.median(one[key] for one in found), 3) for key in found[0]}
        for name, found in rounds.items()
    }
    ratio = medians["own_process"]["cpu_ms"] / medians["same_process"]["cpu_ms"]
    print(json.dumps({**medians, "cpu_ratio": round(ratio, 3), "size": [given.width, given.height], "fps": given.fps}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
