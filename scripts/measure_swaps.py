"""Measures what a swap costs: its parts in time, its peak of memory, and what stays; a small and a large model.

`.venv/bin/python scripts/measure_swaps.py [--swaps N] [--wide MIB]`. Each case has a process of its own: two versions
take turns at a paced line, beside each other and, in the exclusive form, one after the other. The gap of the latter is
shown beside what the self-test makes the hold say. The last line is one JSON object. Needs the shared models.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import cv2

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.deploy import gap, selftest  # noqa: E402
from agent.health import memory  # noqa: E402
from scripts import soak_swaps  # noqa: E402
from scripts.soak_swaps import Watch, rss_mb  # noqa: E402
from scripts.swap_stand import SwapStand  # noqa: E402

RATE: Final = 10.0
PARTS_BETWEEN: Final = 5


def main() -> int:
    """Measure every case in a child, or be that child."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--swaps", type=int, default=10, help="in each case (default: %(default)s)")
    parser.add_argument("--wide", type=int, default=200, help="MiB of weights of the large model")
    parser.add_argument("--case", choices=["beside", "exclusive"], help="be the child of one case")
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(measure(args.swaps, args.wide, exclusive=args.case == "exclusive")))
        return 0
    found: dict[str, Any] = {"schema": "lineside.measure-swaps/1"}
    for name, wide in (("small", 0), ("large", args.wide)):
        for case in ("beside", "exclusive"):
            command = [sys.executable, __file__, "--case", case, "--swaps", str(args.swaps), "--wide", str(wide)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            found[f"{name}, {case}"] = json.loads(done.stdout.splitlines()[-1])
            print(f"{name}, {case}: {found[f'{name}, {case}']}", file=sys.stderr)
    print(json.dumps(found))
    return 0


def measure(swaps: int, wide_mib: int, *, exclusive: bool) -> dict[str, Any]:
    """Let two versions take turns; return medians of times, and memory before, at the peak and after."""
    cv2.setNumThreads(1)
    memory.limit_arenas()
    sys.setswitchinterval(soak_swaps.SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory(prefix="lineside-swaps-") as folder:
        packages, pictures = soak_swaps.made(Path(folder), wide_mib)
        stand = SwapStand(_made(Path(folder) / "device"), packages, pictures, rate=RATE)
        model_mb = round(packages[1].model_path.stat().st_size / 2**20, 1)
        cache = Path(folder) / "device" / "cache"
        tested = selftest.self_test(packages[1], selftest.SelfTestOptions(cache_dir=cache))
        if tested is None or not tested.ok:
            raise SystemExit(f"The self-test failed: {tested}")
        watch, stop = Watch(), threading.Event()
        sampler = threading.Thread(target=watch.sample, args=(stop,), name="peaks")
        stand.start()
        stand.await_tidy()
        before_mb = tidy_mb = rss_mb()
        sampler.start()
        for number in range(swaps):
            watch.most_mb = 0.0
            began_ns = time.monotonic_ns()
            stand.stations.activate(packages[(number + 1) % 2], exclusive=exclusive)
            watch.note(stand, began_ns, time.monotonic_ns())
            stand.await_tidy()
            tidy_mb = rss_mb()
            stand.await_parts(PARTS_BETWEEN)
        stop.set()
        sampler.join()
        stand.stop()
    return {
        "model_mb": model_mb,
        **{
            name: round(statistics.median(getattr(one, name) for one in watch.times), 1)
            for name in ("build_ms", "warm_ms", "swap_ms", "gap_ms")
        },
        "gap_told_ms": round(1000 * gap.expected_s(tested.load_ms)),
        "tested_load_ms": round(tested.load_ms),
        "tested_memory_mb": round(tested.memory_mb),
        "rss_before_mb": before_mb,
        "rss_peak_mb": max(watch.peaks_mb),
        "rss_after_mb": tidy_mb,
        "load_average": round(os.getloadavg()[0], 1),
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
