"""Several simulated lines in one process, without pictures: controllers with their own count files, and nothing else.

They are the simulated line of the product (`agent.simulator.line`), whose belt here shows no camera anything, so that
many parts a second cost next to nothing. Prints the ports as one JSON line. `halt` on standard input stops the belts
and leaves the controllers there, so that a device that comes back still learns where its line stands; the end of the
input ends all.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np

from agent.simulator.line import LineSettings, SimulatedLine


class BareLine(SimulatedLine):
    """A line whose parts come at random distances and are never seen.

    Args:
        halted: ends the belt, but not the controller.
    """

    def __init__(self, settings: LineSettings, halted: threading.Event) -> None:
        super().__init__(settings)
        self._halted = halted

    def _move_belt(self, stop: threading.Event) -> None:
        pitch_s = 1.0 / self._settings.parts_per_s
        draw = random.Random(self._settings.seed)  # noqa: S311
        picture_bgr = np.zeros((1, 1, 3), np.uint8)
        next_at = time.monotonic()
        while not self._halted.wait(max(0.0, next_at - time.monotonic())):
            next_at = max(next_at, time.monotonic() - pitch_s) + draw.uniform(0.2, 1.8) * pitch_s
            self._trigger("?", picture_bgr)
            self._divert_unanswered()
        self._settle_open_parts()
        stop.wait()

    def _wait_for_station(self, stop: threading.Event) -> None:
        while not self._halted.is_set() and not stop.is_set() and not self._ready.wait(0.05):
            pass


def main() -> int:
    """Run the lines until the end of standard input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--lines", type=int, required=True)
    parser.add_argument("--rate", type=float, default=20.0, help="parts per second of each line")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    stop, halted = threading.Event(), threading.Event()
    lines = [
        BareLine(
            LineSettings(
                count_file=args.folder / f"line-{number}.jsonl",
                seed=args.seed + number,
                parts_per_s=args.rate,
                deadline_ms=500.0,
            ),
            halted,
        )
        for number in range(args.lines)
    ]
    threads = [threading.Thread(target=line.serve, args=(stop,)) for line in lines]
    for thread in threads:
        thread.start()
    print(json.dumps([line.port for line in lines]), flush=True)
    for word in sys.stdin:
        if word.strip() == "halt":
            halted.set()
    halted.set()
    stop.set()
    for thread in threads:
        thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
