"""What only the whole agent can show: what is known of a candidate reaches the wire, the metrics and the status."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent import cli, settings
from agent.app import Agent
from agent.clock import SystemClock
from agent.deploy.shadow_keeper import CRASHED
from agent.deploy.store import Store
from agent.uplink import ending
from agent.uplink.ending import Ending
from agent.uplink.outbox import Outbox
from tests.support import ports, tiny_models
from wire import codec, package
from wire.desired import Desired, DesiredModel
from wire.inspection import Verdict
from wire.messages import Batch, Health, Lane, RunningModel, ShadowPair
from wire.package import Package

CONFIG = """\
[device]
id = "press-1"
data_dir = "{data_dir}"

[fleet]
url = "http://127.0.0.1:{port}"

[health]
interval_s = 1.0

[local]
port = 0

[[stations]]
id = "gauge"

[stations.line]
kind = "interval"
interval_s = 0.05
mode = "production"

[[stations.views]]
id = "top"
model = "colors"

[stations.views.source]
kind = "folder"
path = "{pictures}"

[stations.views.vitals]
enabled = false
"""


def prepare(folder: Path) -> tuple[Path, Package, Package]:
    """Leave a device with an active version, the bytes of a candidate, and the wish to show it all parts."""
    active = tiny_models.make(folder / "v1")
    candidate = tiny_models.make(folder / "v2", release=2)
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(400):
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[:, :, number % 3] = 200
        cv2.imwrite(str(pictures / f"{number:04}.png"), picture)
    data_dir = folder / "data"
    store = Store(data_dir / "models")
    for found in (active, candidate):
        for digest, content in [
            (found.digest, package.index_bytes(found.index)),
            *((file.digest, (found.folder / file.path).read_bytes()) for file in found.index.files),
        ]:
            store.blob_path(digest).parent.mkdir(parents=True, exist_ok=True)
            store.blob_path(digest).write_bytes(content)
    store.materialise(active.digest, active.index)
    store.commit("colors", active.digest)
    entry = DesiredModel(
        model="colors",
        active=active.digest,
        release=1,
        deployment_id="00000000-0000-7000-8000-000000000001",
        shadow=candidate.digest,
        shadow_rate=1.0,
    )
    document = Desired(device="press-1", revision=1, models=(entry,))
    (data_dir / "desired.json").write_bytes(codec.encode(document))
    file = folder / "agent.toml"
    port = ports.free_port()
    file.write_text(CONFIG.format(data_dir=data_dir, pictures=pictures, port=port), encoding="utf-8")
    return file, active, candidate


def started(file: Path) -> Agent:
    agent = Agent(settings.load(file, {}), credential="x" * 32, mqtt_host="127.0.0.1", mqtt_port=ports.free_port())
    agent.start()
    return agent


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 40
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


def last(agent: Agent, lane: Lane) -> Batch:
    found: list[Batch] = []
    while (batch := agent._outbox.next_batch(lane, 10**6)) is not None:
        found.append(batch)
    return found[-1]


def compared(agent: Agent) -> int:
    return sum(one.compared for one in agent._shadows.health("gauge"))


def test_pairs_accounts_and_troubles_reach_the_wire_the_metrics_and_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, active, candidate = prepare(tmp_path)
    agent = started(file)
    try:
        until(lambda: compared(agent) >= 20)
        (running,) = agent._running()
        assert (running.digest, running.shadow_digest, running.shadow_trouble) == (active.digest, candidate.digest, "")
        before = agent._outbox.stats().unsettled_by_lane[Lane.HEALTH]
        until(lambda: agent._outbox.stats().unsettled_by_lane[Lane.HEALTH] > before + 1)
        time.sleep(0.3)  # until the flusher has made it durable
        health = codec.decode(bytes(last(agent, Lane.HEALTH).entries[-1].body), Health)
        (account,) = health.stations[0].shadows
        assert (account.model, account.digest, account.disagreed) == ("colors", candidate.digest, 0)
        assert 0 <= account.chosen - account.compared - sum(account.skipped.values()) <= 1
        assert account.compared >= 20
        pair = codec.decode(bytes(last(agent, Lane.SHADOW).entries[-1].body), ShadowPair)
        assert (pair.active_digest, pair.digest, pair.station) == (active.digest, candidate.digest, "gauge")
        assert pair.verdict is pair.active_verdict is not Verdict.NO_VERDICT
        figures = agent._reporter.metrics()
        labels = f'station="gauge",model="colors",digest="{candidate.digest}"'
        assert f"lineside_shadow_compared_total{{{labels}}}" in figures
        assert f'lineside_shadow_info{{model="colors",digest="{candidate.digest}"}} 1' in figures
        assert cli.main(["status", "--data-dir", str(tmp_path / "data")]) == 0
        text = capsys.readouterr().out
        assert f"shadow      colors: {candidate.digest[:12]} is shown the parts too" in text
        assert f"shadow      gauge/colors: {candidate.digest[:12]}  0 of " in text
    finally:
        agent.close()


def test_an_agent_that_was_killed_with_a_candidate_in_it_leaves_the_candidate_out_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, active, _ = prepare(tmp_path)
    agent = started(file)
    until(lambda: compared(agent) >= 1)
    agent.close()
    marks = Outbox(tmp_path / "data" / "outbox.db", SystemClock(), device="press-1")
    ending.begin(marks)  # the next run finds the mark of a run that has not ended
    marks.close()
    agent = started(file)
    try:
        assert agent._former_end is Ending.KILLED
        until(lambda: bool(_colors(agent).digest))
        until(lambda: bool(_colors(agent).shadow_trouble))
        time.sleep(1.5)
        running = _colors(agent)
        assert (running.digest, running.shadow_digest, running.shadow_trouble) == (active.digest, None, CRASHED)
        assert cli.main(["status", "--data-dir", str(tmp_path / "data")]) == 0
        assert f"SHADOW      colors: {CRASHED}" in capsys.readouterr().out
    finally:
        agent.close()
    assert Store(tmp_path / "data" / "models").package(active.digest).digest == active.digest


def _colors(agent: Agent) -> RunningModel:
    (running,) = agent._running()
    return running
