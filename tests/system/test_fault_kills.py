"""A hundred kills -9 of devices, broker, ingest and fleet at random moments: each part has one row, a true one.

The thousands are `run.py soak kills`; whole agents, with camera and model, are killed in test_kills.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import soak_kills
from tests.support import require

KILLS = 100
SEED = 20261123


@pytest.mark.timeout(300)
def test_a_hundred_kills_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    require.program("mosquitto")
    told = soak_kills.run(tmp_path / "plant", kills=KILLS, seed=SEED, patience_s=180)
    assert told["faults"] == {}, told
    assert told["kills"] == KILLS, told
    assert min(told["killed"][victim] for victim in ("device", "broker", "ingest", "fleet")) >= 3, told
    assert told["triggers"] > 500, "the belts hardly moved"
    assert told["answered"] > told["triggers"] / 4, "the devices were hardly ever there"
    assert told["by_reason"].keys() == {"agent_down"}, told
    assert told["by_reason"]["agent_down"] >= told["uninspected"] > 20, told
    assert told["records_refused"] == 0
