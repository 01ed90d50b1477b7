"""Health names every thread that has gone silent, those that talk to the network after a longer while."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from agent.clock import SystemClock
from agent.health.probes import Probes
from agent.health.reporter import Overview, Reporter
from agent.threads import Worker
from tests.support.station import ScriptedLine, worker_of
from wire.messages import Health, Lane
from wire.mint import Mint


class Outbox:
    """Takes health, and tells that it is empty."""

    unsettled = bytes = dropped = 0

    def __init__(self) -> None:
        self.health: list[Health] = []

    def put(self, lane: Lane, body: Any) -> int:
        self.health.append(body)
        return 1

    def stats(self) -> Outbox:
        return self

    def emit_counters(self) -> int:
        return 0

    def meta_set(self, key: str, value: str) -> None:
        pass


def reporter_of(folder: Path, outbox: Outbox, heartbeats: dict[str, int]) -> Reporter:
    worker = worker_of(ScriptedLine(), {"top": []})
    return Reporter(
        device="press-1",
        agent_version="0",
        data_dir=folder,
        outbox=outbox,
        probes=Probes(folder),
        workers={"gauge": worker},
        feeds={"gauge": {}},
        threads=[],
        heartbeats={name: lambda at=at: at for name, at in heartbeats.items()},
        overview=lambda: Overview(
            connected=True, mqtt_protocol="5", desired_revision=1, pictures_waiting=0, models=(), refusals=()
        ),
        clock=SystemClock(),
        mint=Mint(),
        interval_s=10,
    )


def test_a_network_thread_that_is_silent_for_minutes_is_named(tmp_path: Path) -> None:
    now = time.monotonic_ns()
    outbox = Outbox()
    reporter = reporter_of(
        tmp_path, outbox, {"uplink": now, "pictures": now - 60_000_000_000, "outbox-flusher": now - 200_000_000_000}
    )
    thread = Worker("reporter-test", reporter.run)
    thread.start()
    until = time.monotonic() + 5
    while not outbox.health and time.monotonic() < until:
        time.sleep(0.01)
    assert thread.join(3)
    assert outbox.health[0].threads_stalled == ("outbox-flusher",)
