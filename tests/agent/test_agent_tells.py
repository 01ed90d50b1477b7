"""What only the whole agent can show: what its parts know reaches the fleet's health."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import settings
from agent.app import Agent
from tests.support import ports
from wire import codec
from wire.desired import Desired, DesiredSettings
from wire.messages import Health, Lane
from wire.sampling import Draw

CONFIG = """\
[device]
id = "press-1"
data_dir = "{data_dir}"

[outbox]
pictures_max_mb = 1

[fleet]
url = "http://127.0.0.1:{port}"

[local]
port = 0

[[stations]]
id = "gauge"

[stations.line]
kind = "http"

[[stations.views]]
id = "top"
model = "demo-parts"

[stations.views.source]
kind = "simulated"
address = "127.0.0.1:{port}"
"""


def test_what_was_dropped_and_the_pace_the_fleet_asks_for_stand_in_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(CONFIG.format(data_dir=tmp_path / "data", port=ports.free_port()), encoding="utf-8")
    kept = tmp_path / "data" / "desired.json"
    kept.parent.mkdir()
    asked = DesiredSettings(health_interval_s=1.0)
    kept.write_bytes(codec.encode(dataclasses.replace(Desired(device="press-1", revision=3), settings=asked)))
    agent = Agent(settings.load(file, {}), credential="x" * 32, mqtt_host="127.0.0.1", mqtt_port=ports.free_port())
    now = datetime.now(UTC)
    for n, u in enumerate((0.1, 0.2, 0.3)):
        draw = Draw(plan_revision=1, stratum="all", pi=0.5, u=u, kept=True)
        data = bytes([n]) * 400_000
        agent._spool.take(hashlib.sha256(data).hexdigest(), data, draw, now)
    agent.start()
    try:
        deadline = time.monotonic() + 15
        while agent._outbox.stats().unsettled_by_lane[Lane.HEALTH] < 3:
            assert time.monotonic() < deadline, "health does not come at the pace the fleet asked for"
            time.sleep(0.05)
        batch = agent._outbox.next_batch(Lane.HEALTH, 1_000_000)
        assert batch is not None
        health = codec.decode(bytes(batch.entries[-1].body), Health)
        (window,) = health.pictures_dropped
        assert (window.dropped, window.gate_trimmed, health.pictures_waiting) == (1, False, 2)
        assert window.tau == pytest.approx(0.6)
    finally:
        agent.close()
