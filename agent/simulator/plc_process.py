"""`lineside simulate --plc ROLE`: a PLC alone, whose photo-eye sees parts at a steady pace; the cameras are yours."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final

from agent.simulator.plc import PlcSettings, SimulatedPlc

_SETTLE_TIMEOUT_S: Final = 10.0


def run(
    settings: PlcSettings, stop: threading.Event, *, part_count: int, parts_per_s: float, recipe: int, at_once: bool
) -> int:
    """Pass parts until all have passed or `stop` is set; 0 where all have passed, or none were counted.

    Args:
        part_count: 0 passes parts until `stop` is set.
        recipe: RecipeRequest; 0 leaves the choice to others.
        at_once: do not wait until a station takes parts. After the first one the PLC waits for nobody.

    Raises:
        LinesideError: `storage.in_use` where the port cannot be had.
    """
    plc = SimulatedPlc(settings)
    plc.program.request_recipe(recipe)
    plc.start()
    try:
        print(f"PLC 127.0.0.1:{plc.port}", flush=True)  # noqa: T201
        role = "holds the registers at" if settings.role == "server" else "connects to the agent at"
        sys.stderr.write(f"Simulated PLC, run {plc.program.run}, {role} 127.0.0.1:{plc.port}.\n")
        while not at_once and not stop.is_set() and not plc.wait_until_ready(0.2):
            pass
        passed = _pass_parts(plc, stop, part_count, parts_per_s)
        if not stop.is_set():
            plc.wait_until_settled(_SETTLE_TIMEOUT_S)
        return 0 if passed >= part_count else 1
    finally:
        plc.stop()


def _pass_parts(plc: SimulatedPlc, stop: threading.Event, part_count: int, parts_per_s: float) -> int:
    """Return how many parts have passed."""
    passed = 0
    next_at = time.monotonic()
    while part_count == 0 or passed < part_count:
        next_at = max(next_at + 1.0 / parts_per_s, time.monotonic())
        if stop.wait(next_at - time.monotonic()):
            break
        passed += 1
        plc.photo_eye(part_id=f"p{passed:07d}")
    return passed
