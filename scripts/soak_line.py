"""`run.py soak line`: camera after camera fails, and the agent must hold no more of the machine than before.

A fleet, a belt with three cameras whose frames come through processes of their own (a plug-in), a PLC, and an RTSP
camera where GStreamer is installed. Fault after fault, and after each one, when all is well again, a look at the
agent's memory, threads, descriptors and shared memory. At the end the agent is killed with kill -9 in mid-run: none of
its processes and no shared memory may be left; it starts again, and every part's account is compared.
The last line is one JSON object. Exit status 1 where something grew, stayed, did not recover, or did not agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import belt_accounts, footprint, soak_cameras  # noqa: E402
from scripts.belt_accounts import STATION  # noqa: E402
from scripts.footprint import Footprint  # noqa: E402
from scripts.plant import PlantError, wait_for  # noqa: E402
from scripts.soak_cameras import Fault  # noqa: E402
from scripts.soak_stand import RECOVER_S, Stand, faults_of  # noqa: E402
from tests.support import belt_books  # noqa: E402

SETTLE_S: Final = 2.0
GONE_S: Final = 5.0
MEMORY_SLACK_MB: Final = 6.0
# What may not grow at all; memory may by its slack, since allocators keep what faults made them take.
COUNTED: Final = ("processes", "threads", "descriptors", "tree_threads", "tree_descriptors", "segments")
MEMORY: Final = ("rss_mb", "tree_mb")


@dataclass
class Samples:
    """One look after each fault, when all was well again."""

    began: float = field(default_factory=time.monotonic)
    minutes: list[float] = field(default_factory=list)
    looks: list[Footprint] = field(default_factory=list)

    def take(self, process_id: int) -> Footprint:
        look = footprint.look(process_id)
        self.minutes.append((time.monotonic() - self.began) / 60)
        self.looks.append(look)
        return look

    def values(self, name: str) -> list[float]:
        return [float(getattr(look, name)) for look in self.looks]

    def report(self) -> dict[str, Any]:
        """What was held at first and at last, and how much more of it came than went."""
        names = (*COUNTED, *MEMORY)
        return {
            "samples": len(self.looks),
            "first": dataclasses.asdict(self.looks[0]),
            "last": dataclasses.asdict(self.looks[-1]),
            "growth": {name: round(footprint.growth(self.values(name)), 2) for name in names},
            "slope_per_minute": {
                name: round(footprint.slope_per_minute(self.minutes, self.values(name)), 3) for name in names
            },
        }


def what_grew(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each thing of which more came than went."""
    slack = dict.fromkeys(COUNTED, 0.0) | dict.fromkeys(MEMORY, MEMORY_SLACK_MB)
    return [
        f"{name} grew by {report['growth'][name]:g}" for name, most in slack.items() if report["growth"][name] > most
    ]


def soak(stand: Stand, minutes: float, seed: int) -> dict[str, Any]:
    """Let fault after fault happen for so long; return what was held and what was left."""
    rng = random.Random(seed)  # noqa: S311  (an order of faults, not a secret)
    faults = faults_of(stand)
    samples, struck, slow = Samples(), Counter[str](), []
    recovered_s: dict[str, float] = {}
    until = time.monotonic() + minutes * 60
    order: list[Fault] = []
    while time.monotonic() < until:
        if not order:
            order = rng.sample(faults, len(faults))
        fault = order.pop()
        fault.strike()
        struck[fault.name] += 1
        began = time.monotonic()
        time.sleep(SETTLE_S)
        try:
            wait_for(fault.name, stand.flows, RECOVER_S)
        except PlantError:
            slow.append(f"{fault.name}: {stand.troubles()}")
            break
        recovered_s[fault.name] = max(recovered_s.get(fault.name, 0.0), round(time.monotonic() - began, 1))
        look = samples.take(stand.agent.pid)
        print(
            f"{samples.minutes[-1]:6.1f} min  {fault.name:24} {look.rss_mb:7.1f} MB  {look.tree_mb:7.1f} MB in all"
            f"  {look.threads} threads  {look.descriptors} descriptors  {look.segments} segments",
            file=sys.stderr,
        )
    return {
        "faults": dict(struck),
        "longest_recovery_s": recovered_s,
        "not_recovered": slow,
        **(samples.report() if samples.looks else {}),
        "accounts": stand.accounts(),
    }


def killed(stand: Stand, segments_before: frozenset[str]) -> dict[str, Any]:
    """Kill the agent in mid-run with kill -9; return what of it is still there after a while."""
    tree = soak_cameras.tree_of(stand.agent.pid)
    names = [f"{process.pid} {' '.join(process.cmdline())[:120]}" for process in tree]
    stand.agent.kill()
    _, alive = psutil.wait_procs(tree[1:], timeout=GONE_S)
    left = {process.pid for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE}
    return {
        "processes_killed": len(tree),
        "processes_left": [name for process, name in zip(tree, names, strict=True) if process.pid in left],
        "segments_left": sorted(footprint.named_segments() - segments_before),
    }


def run(folder: Path, minutes: float, broker: str, seed: int) -> dict[str, Any]:
    """The whole soak; `wrong` lists all that is not as it should be."""
    started = time.monotonic()
    segments_before = footprint.named_segments()
    stand = Stand(folder, broker, seed)
    try:
        stand.start()
        result = soak(stand, minutes, seed)
        after_kill = killed(stand, segments_before)
        stand.agent.start()
        wait_for("the agent is back", stand.flows, RECOVER_S)
        passed = stand.end_belt()
        wait_for("the device has delivered everything", lambda: stand.has_delivered(passed), 60)
        books = belt_accounts.books_of(folder, stand.plant, stand.settings, stopped=True)
        of_belt = [row for row in books.rows if row["station"] == STATION]
        books = dataclasses.replace(books, rows=of_belt)
        found = belt_books.discrepancies(books)
    finally:
        stand.close()
    wrong = [
        *result["not_recovered"],
        *(what_grew(result) if "growth" in result else ["nothing was measured"]),
        *result["accounts"],
        *(f"left after kill -9: {one}" for one in after_kill["processes_left"] + after_kill["segments_left"]),
        *found[:20],
    ]
    return {
        "schema": "lineside.soak_line/1",
        "minutes": minutes,
        "rtsp": stand.rtsp is not None,
        **result,
        "after_kill": after_kill,
        **belt_books.summary(books),
        "discrepancies": len(found),
        "wrong": wrong,
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="run.py soak line", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=["auto", "embedded", "mosquitto"], default="auto")
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep all files and logs in this new folder")
    args = parser.parse_args()
    folder = args.keep if args.keep is not None else Path(tempfile.mkdtemp(prefix="lineside-soak-"))
    try:
        result = run(folder, args.minutes, args.broker, args.seed)
    except PlantError as error:
        print(f"error: {error}\nThe logs are in {folder}.", file=sys.stderr)
        return 1
    if not args.json:
        print(json.dumps(result, indent=2))
    print(json.dumps(result))
    for sentence in result["wrong"]:
        print(f"wrong: {sentence}", file=sys.stderr)
    if args.keep is None and not result["wrong"]:
        shutil.rmtree(folder)
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
