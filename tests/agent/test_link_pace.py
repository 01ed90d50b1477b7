"""How soon records travel, and how little an idle link does: figures of a link that has the machine to itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import brokers, records
from tests.support.brokers import RunningBroker
from tests.support.fake_fleet import FakeFleet
from tests.support.link_side import device, until

pytestmark = pytest.mark.alone("counts tenths of a second from a record to the fleet")


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[RunningBroker]:
    broker = brokers.mosquitto(tmp_path).start()
    yield broker
    broker.stop()


def test_a_record_after_a_pause_reaches_the_broker_within_about_a_tenth_of_a_second(
    tmp_path: Path, mosquitto: RunningBroker
) -> None:
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto) as side:
        until(lambda: side.link.connected)
        waits = []
        for n in range(1, 11):
            time.sleep(0.3)
            start = time.monotonic()
            seq = side.outbox.put_inspection(records.inspection(sequence=n), line_run="run7")
            fleet.wait(lambda f, seq=seq: seq in f.seqs())
            waits.append(time.monotonic() - start)
        print(f"put to fleet: median {statistics.median(waits) * 1000:.0f} ms, worst {max(waits) * 1000:.0f} ms")
        assert statistics.median(waits) < 0.12


def test_records_in_a_stream_travel_a_few_at_a_time_and_wait_no_longer_than_a_third_of_a_second(
    tmp_path: Path, mosquitto: RunningBroker
) -> None:
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto) as side:
        until(lambda: side.link.connected)
        put_at: dict[int, float] = {}
        waits: dict[int, float] = {}
        for n in range(1, 41):
            put_at[side.outbox.put_inspection(records.inspection(sequence=n), line_run="run7")] = time.monotonic()
            time.sleep(0.05)
            waits |= {seq: time.monotonic() - put_at[seq] for seq in fleet.seqs() - waits.keys()}
        until(lambda: fleet.seqs() == put_at.keys())
        assert max(waits.values()) < 0.4
        assert side.link.counts().batches_sent < 20, "each record travelled alone"


def test_an_idle_link_uses_no_processor(tmp_path: Path, mosquitto: RunningBroker) -> None:
    with FakeFleet(mosquitto), device(tmp_path, mosquitto) as side:
        until(lambda: side.link.connected)
        time.sleep(0.3)
        turns, before = [], side.link.heartbeat_ns
        for _ in range(50):
            time.sleep(0.02)
            if side.link.heartbeat_ns != before:
                before = side.link.heartbeat_ns
                turns.append(before)
        assert len(turns) <= 5, f"{len(turns)} turns in an idle second"
