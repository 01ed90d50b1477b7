"""Two hundred devices at once, for most of a minute: every record a row, no memory lost, and the API answers meanwhile.

The thousand for ten minutes are `run.py soak fleet`; its times of answer are in docs/performance.md, and no test here
depends on how fast the machine is.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import soak_fleet
from tests.support import require

DEVICES = 200
SECONDS = 60.0


@pytest.mark.timeout(240)
def test_two_hundred_devices_lose_nothing_and_cost_no_memory(tmp_path: Path) -> None:
    require.program("mosquitto")
    told = soak_fleet.run(tmp_path / "plant", devices=DEVICES, seconds=SECONDS)
    assert told["faults"] == {}, told
    assert told["records"] > 0.8 * DEVICES * SECONDS, "one batch a second each"
    assert told["health_records"] >= DEVICES, "and health within each 30 s"
    assert told["connections"] >= DEVICES
    for name, process in told["processes"].items():
        # Caches of the database fill in the first minutes: a leak of each message would be far more.
        assert process["late_mb"] - process["early_mb"] < 40, (name, told)
    assert told["api_asked"] > 20, told
    assert told["api_p50_ms"] < 1000, told
