"""Count false alarms and misses of the picture vitals on real pictures, whole and spoiled, and what a picture costs.

python3 scripts/measure_vitals.py [--every N]

Needs the shared clips and pictures (LINESIDE_SHARED names the folder around them). Prints what it does on standard
error and one JSON object on its last line. The cases are in tests/support/vital_cases.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from agent.capture import reference as references  # noqa: E402
from agent.capture.frame import Vital  # noqa: E402
from agent.capture.settings import VitalsSettings  # noqa: E402
from agent.capture.vitals import VitalsWatch  # noqa: E402
from tests.support import vital_cases  # noqa: E402  (the tests are no installed package)

ROUNDS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--every", type=int, default=3, help="of the clips, every Nth picture")
    options = parser.parse_args()
    shared = Path(os.environ.get("LINESIDE_SHARED") or REPO.parent / "shared") / "data"
    cv2.setNumThreads(1)
    result = {
        "clips": clips(shared, options.every),
        "damaged_streams": damaged_streams(shared),
        "wear_run": wear_run(shared),
        "tiles": tiles(shared),
        "ms": {"1280x720": cost(shared, 1280, 720), "1920x1080": cost(shared, 1920, 1080)},
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
    }
    print(json.dumps(result))
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def told(outcome: vital_cases.Outcome) -> dict[str, object]:
    return {"shown": outcome.shown, "missed": outcome.missed, "false": outcome.false, "told": dict(outcome.told)}


def clips(shared: Path, every: int) -> dict[str, dict[str, object]]:
    """Two fixed cameras: each picture whole and spoiled in every way."""
    found: dict[str, dict[str, object]] = {}
    for name in vital_cases.FIXED_CLIPS:
        say(f"{name} ...")
        images = vital_cases.clip(shared, name, every=every)
        found[name] = {how: told(vital_cases.spoiled(images, how)) for how in vital_cases.SPOILED}
        found[name]["frozen"] = told(vital_cases.frozen(images[:: max(len(images) // 24, 1)]))
    return found


def damaged_streams(shared: Path) -> dict[str, object]:
    """Streams with slices overwritten: which damaged pictures the decoder's log tells, which the picture itself."""
    say("damaged streams ...")
    clip_names = (*vital_cases.FIXED_CLIPS, "cockatoo")
    with tempfile.TemporaryDirectory() as folder:
        counted = [
            vital_cases.damaged_stream(shared / "video" / f"{name}.mp4", Path(folder) / "damaged.mp4", kind, seed)
            for name in clip_names
            for kind in ("flip", "burst", "tail")
            for seed in range(4)
        ]
    whole = [vital_cases.read_logged(shared / "video" / f"{name}.mp4") for name in clip_names]
    return {
        "streams": len(counted),
        "damaged_pictures": sum(one.damaged for one in counted),
        "told_by_the_log": sum(one.by_log for one in counted),
        "told_by_the_picture": sum(one.by_picture for one in counted),
        "told_by_either": sum(one.by_either for one in counted),
        "first_damaged_pictures": sum(one.damaged > 0 for one in counted),
        "first_told_by_either": sum(one.first_told for one in counted),
        "whole_pictures_told": sum(one.false for one in counted),
        "whole_streams_pictures": sum(len(flags) for flags in whole),
        "whole_streams_false": sum(sum(flags) for flags in whole),
    }


def wear_run(shared: Path) -> dict[str, object]:
    """BSData's wear run against its first picture: 57 pictures of one setting, then 12 of another size."""
    say("wear run ...")
    images = vital_cases.wear_run(shared)
    reference = references.of_pictures(images[:1], vital_cases.NOW)
    before, after = images[: vital_cases.SIZE_CHANGE - 1], images[vital_cases.SIZE_CHANGE - 1 :]
    return {
        "before the change of size": told(vital_cases.run(before, None, reference=reference)),
        "after it": told(vital_cases.run(after, Vital.WRONG_SIZE, reference=reference)),
        **{
            f"before it, blur {sigma:g}": told(
                vital_cases.run(
                    [vital_cases.blurred(image, sigma) for image in before], Vital.BLURRED, reference=reference
                )
            )
            for sigma in (1.0, 2.0, 3.0, 5.0)
        },
    }


def tiles(shared: Path) -> dict[str, object]:
    """The magnetic tiles: each one's other exposures against its first."""
    say("tiles ...")
    groups = vital_cases.tiles(shared)
    found: dict[str, dict[str, object]] = {}
    for how, sigma in (("whole", 0.0), ("blur 2", 2.0), ("blur 3", 3.0), ("blur 5", 5.0)):
        total = vital_cases.Outcome()
        for images in groups:
            shown = [vital_cases.blurred(image, sigma) if sigma else image for image in images[1:]]
            wanted = Vital.BLURRED if sigma else None
            one = vital_cases.run(
                shown, wanted, reference=references.of_pictures(images[:1], vital_cases.NOW), tolerated=frozenset()
            )
            total.shown += one.shown
            total.missed += one.missed
            total.false += one.false
            total.told.update(one.told)
        found[how] = told(total)
    return {"tiles": len(groups), **found}


def cost(shared: Path, width: int, height: int) -> dict[str, float]:
    """Processor milliseconds of one picture on one thread: the median and the 99th percentile."""
    say(f"{width} x {height} ...")
    images = [cv2.resize(image, (width, height)) for image in vital_cases.clip(shared, "bottle-detection", every=100)]
    reference = references.of_pictures(images[:9], vital_cases.NOW)
    found = {}
    for name, used in (("without a reference", None), ("with a reference", reference)):
        watch = VitalsWatch(VitalsSettings(), used)
        taken = []
        for round_number in range(ROUNDS):
            started = time.thread_time()
            watch.see(images[round_number % len(images)])
            taken.append((time.thread_time() - started) * 1e3)
        found[name] = round(statistics.median(taken), 3)
        found[f"{name}, p99"] = round(statistics.quantiles(taken, n=100)[98], 3)
    return found


if __name__ == "__main__":
    sys.exit(main())
