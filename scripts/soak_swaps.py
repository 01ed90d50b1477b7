"""`run.py soak swaps`: two versions of a model take turns at a running station, at a paced line and at full speed.

A real station worker, real sessions of onnxruntime and a real outbox in this process; the line is in it, too, so that
each trigger's time is known to the microsecond. Asserted: each trigger has exactly one verdict and one record; each
record's answer is, to the last digit, that of the version it names; the 99th percentile from trigger to verdict of the
parts that meet a swap is at most 1.5 times that of the others in the same run; resident memory after the last swap is
within 30 MB of that after the first. Parts that meet the closing of the old session and the giving back of its memory,
some time later, are told apart and not held to a limit.

The model is the shared FastestDet (4 ms), or the demo models where the shared data is not here. `--wide N` adds so many
MiB of weights to both versions, to show what a large one costs. The last line is one JSON object; exit status 1 where
something asserted does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.health import memory  # noqa: E402
from agent.inspection.stations import SwapTimes  # noqa: E402
from scripts import swap_stand  # noqa: E402
from scripts.swap_stand import Picture, SwapStand  # noqa: E402
from wire import package  # noqa: E402
from wire.package import Package  # noqa: E402

SHARED = Path(os.environ.get("LINESIDE_SHARED") or ROOT.parent / "shared") / "data"
CLIP: Final = SHARED / "video" / "cockatoo.mp4"
MODES: Final = ("paced", "full")
PICTURES: Final = 6
SWITCH_INTERVAL_S: Final = 0.0005
PARTS_BETWEEN: Final = 12
GOAL_P99: Final = 1.5
GOAL_MB: Final = 30.0
_MIB: Final = 1024 * 1024


def main() -> int:
    """Swap, and print what was found."""
    summary = __doc__.partition("\n")[0] if __doc__ else ""
    parser = argparse.ArgumentParser(prog="run.py soak swaps", description=summary)
    parser.add_argument("--swaps", type=int, default=200, help="in each mode (default: %(default)s)")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--paced", action="store_const", const=("paced",), dest="modes", help="only a paced line")
    chosen.add_argument("--full", action="store_const", const=("full",), dest="modes", help="only at full speed")
    parser.add_argument("--rate", type=float, default=20.0, help="parts a second of the paced line")
    parser.add_argument("--threads", type=int, default=1, help="of the station")
    parser.add_argument("--wide", type=int, default=0, help="MiB of weights more (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    args = parser.parse_args()
    cv2.setNumThreads(1)  # all three as the agent does at its start
    memory.limit_arenas()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory(prefix="lineside-swaps-") as folder:
        packages, pictures = made(Path(folder), args.wide)
        found = {
            mode: soak(
                Path(folder) / mode,
                packages,
                pictures,
                swaps=args.swaps,
                rate=args.rate if mode == "paced" else None,
                threads=args.threads,
            )
            for mode in args.modes or MODES
        }
    faults = [f"{mode}: {fault}" for mode, one in found.items() for fault in one["faults"]]
    if not args.json:
        for mode, one in found.items():
            print(f"{mode}: {json.dumps(one, indent=2)}")
        print("\n".join(faults) or "all that is asserted holds")
    print(
        json.dumps({"schema": "lineside.soak-swaps/1", "model": packages[0].manifest.name, **found, "faults": faults})
    )
    return 1 if faults else 0


@dataclass
class Watch:
    """What is measured while versions take turns."""

    windows: list[tuple[int, int]] = field(default_factory=list)
    times: list[SwapTimes] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    tidy_mb: list[float] = field(default_factory=list)
    peaks_mb: list[float] = field(default_factory=list)
    most_mb: float = 0.0

    def note(self, stand: SwapStand, began_ns: int, ended_ns: int) -> None:
        """After each swap."""
        self.windows.append((began_ns, ended_ns))
        if not self.tidy_mb:  # the first: what the others are compared with
            stand.await_tidy()
            self.tidy_mb.append(rss_mb())
        self.times.append(stand.stations.last_swap)
        self.rss_mb.append(rss_mb())
        self.peaks_mb.append(max(self.most_mb, self.rss_mb[-1]))
        self.most_mb = 0.0

    def sample(self, stop: threading.Event) -> None:
        """Look for the peak, on a thread of its own."""
        while not stop.wait(0.005):
            self.most_mb = max(self.most_mb, rss_mb())


def soak(
    folder: Path,
    packages: Sequence[Package],
    pictures: Sequence[Picture],
    *,
    swaps: int,
    rate: float | None,
    threads: int = 1,
) -> dict[str, Any]:
    """Let two versions take turns; return figures and accounts, and sentences for what must not be.

    Args:
        rate: parts a second; None: full speed.
    """
    folder.mkdir(parents=True)
    stand = SwapStand(folder, packages, pictures, rate=rate, threads=threads)
    watch = Watch()
    stand.start()
    try:
        stand.await_parts(50)
        swap_stand.swap_in_turn(
            stand,
            swaps,
            parts_between=PARTS_BETWEEN,
            tidy=True,
            note=lambda began, ended: watch.note(stand, began, ended),
        )
        stand.await_tidy()
        watch.tidy_mb.append(rss_mb())
    finally:
        stand.stop()
    accounts = stand.accounts(swaps)
    figures = figures_of(stand, watch)
    faults = accounts.pop("faults")
    if figures["p99_during_over_steady"] > GOAL_P99:
        faults.append(f"p99 during swaps is {figures['p99_during_over_steady']} times the steady one.")
    if figures["rss_growth_mb"] > GOAL_MB:
        faults.append(f"Memory grew by {figures['rss_growth_mb']} MB from the first swap to the last.")
    return {"swaps": swaps, "rate": rate, "threads": threads, **accounts, **figures, "faults": faults}


def figures_of(stand: SwapStand, watch: Watch) -> dict[str, Any]:
    """Return times and memory, those of parts that met a swap apart."""
    triggered, answered = np.array(stand.line.triggered_ns), np.array(stand.line.answered_ns)
    warm = np.arange(len(triggered)) >= 20
    met, tidied = meeting(watch.windows, triggered, answered), meeting(stand.tidied, triggered, answered) & warm
    latencies_ms = (answered - triggered) / 1e6
    during, steady = latencies_ms[met & warm], latencies_ms[~met & ~tidied & warm]
    p99 = [round(float(np.quantile(part, 0.99)), 2) if len(part) else 0.0 for part in (during, steady)]
    return {
        "parts_during": len(during),
        "parts_steady": len(steady),
        "p50_during_ms": round(float(np.median(during)), 2) if len(during) else 0.0,
        "p50_steady_ms": round(float(np.median(steady)), 2) if len(steady) else 0.0,
        "p99_during_ms": p99[0],
        "p99_steady_ms": p99[1],
        "most_during_ms": round(float(during.max()), 2) if len(during) else 0.0,
        "most_steady_ms": round(float(steady.max()), 2) if len(steady) else 0.0,
        "parts_tidied": int(tidied.sum()),
        "p50_tidied_ms": round(float(np.median(latencies_ms[tidied])), 2) if tidied.any() else 0.0,
        "most_tidied_ms": round(float(latencies_ms[tidied].max()), 2) if tidied.any() else 0.0,
        "p99_during_over_steady": round(p99[0] / p99[1], 3) if p99[1] else 0.0,
        **{
            name: round(statistics.median(getattr(one, name) for one in watch.times), 2)
            for name in ("build_ms", "warm_ms", "swap_ms")
        },
        "rss_first_mb": watch.tidy_mb[0],
        "rss_last_mb": watch.tidy_mb[-1],
        "rss_most_mb": max(watch.rss_mb),
        "rss_growth_mb": round(watch.tidy_mb[-1] - watch.tidy_mb[0], 2),
        "load_average": round(os.getloadavg()[0], 1),
    }


def meeting(
    windows: Sequence[tuple[int, int]], triggered: NDArray[np.int64], answered: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell of each part whether it was on its way in any of the windows, which follow one another."""
    if not windows:
        return np.zeros(len(triggered), dtype=np.bool_)
    began, ended = (np.array([window[edge] for window in windows]) for edge in (0, 1))
    # The first window that ends after a part's trigger: the part met it if it had begun when the verdict left.
    following = np.minimum(np.searchsorted(ended, triggered), len(ended) - 1)
    return np.asarray((ended[following] >= triggered) & (began[following] <= answered))


def rss_mb() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / _MIB, 2)


def made(folder: Path, wide_mib: int = 0) -> tuple[list[Package], list[Picture]]:
    """Return two versions of one model that answer differently, and pictures to show them."""
    if not CLIP.exists():
        packages = [package.read_folder(ROOT / "models" / f"demo-parts-{release}") for release in (1, 2)]
        shown = [picture_of(packages[0].folder / sample.picture) for sample in packages[0].golden().samples]
        return packages, shown
    from tests.support import shared_packages

    first = shared_packages.assemble("fastestdet-coco", SHARED, folder)
    second = shared_packages.assemble("fastestdet-coco", SHARED, folder / "next")
    manifest = (second / "manifest.toml").read_text(encoding="utf-8")
    (second / "manifest.toml").write_text(manifest.replace("release = 1", "release = 2"), encoding="utf-8")
    change(second / "model.onnx", 1.01, wide_mib)
    if wide_mib:
        change(first / "model.onnx", 1.0, wide_mib)
    return [package.read_folder(first), package.read_folder(second)], frames(CLIP, PICTURES)


def change(path: Path, factor: float, wide_mib: int) -> None:
    """Change the largest weights of a model by a factor, and add some that change nothing but its size."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(weights) * np.float32(factor)
    weights.CopyFrom(numpy_helper.from_array(values.astype(np.float32), weights.name))
    if wide_mib:
        wide = np.random.default_rng(1).standard_normal((wide_mib * 256, 1024)).astype(np.float32)
        one = np.zeros((1, wide.shape[0]), dtype=np.float32)
        output = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["unchanged" if name == output else name for name in node.output]
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(wide, "wide"),
                numpy_helper.from_array(one, "wide_one"),
                numpy_helper.from_array(np.array(0, dtype=np.float32), "wide_zero"),
            ]
        )
        model.graph.node.extend(
            [
                # Made of the picture, so that no optimiser folds it away.
                helper.make_node("ReduceMin", [model.graph.input[0].name], ["wide_least"], keepdims=0),
                helper.make_node("Mul", ["wide_least", "wide_zero"], ["wide_none"]),
                helper.make_node("Add", ["wide_one", "wide_none"], ["wide_row"]),
                helper.make_node("MatMul", ["wide_row", "wide"], ["wide_sums"]),
                helper.make_node("ReduceMax", ["wide_sums"], ["wide_most"], keepdims=0),
                helper.make_node("Add", ["unchanged", "wide_most"], [output]),
            ]
        )
    onnx.save(model, str(path))


def frames(clip: Path, count: int) -> list[Picture]:
    """Return pictures spread over a clip."""
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG)
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    found = []
    for number in range(total):
        if not capture.grab():
            break
        if number % max(1, total // count) == 0 and len(found) < count:
            found.append(np.asarray(capture.retrieve()[1], dtype=np.uint8))
    capture.release()
    return found


def picture_of(path: Path) -> Picture:
    """Read a picture."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path} cannot be read.")
    return np.asarray(image, dtype=np.uint8)


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(status)
