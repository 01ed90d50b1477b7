"""Pairs travel with all other records, a few at a time, and the fleet's word settles them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import brokers, records
from tests.support.brokers import RunningBroker
from tests.support.fake_fleet import FakeFleet
from tests.support.link_side import device, until
from wire import codec
from wire.messages import Lane, ShadowPair

VECTORS = Path(__file__).resolve().parents[1] / "contract" / "vectors" / "shadow-pair"


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[RunningBroker]:
    broker = brokers.mosquitto(tmp_path).start()
    yield broker
    broker.stop()


def test_pairs_are_gathered_settled_and_keep_no_record_of_the_line_waiting(
    tmp_path: Path, mosquitto: RunningBroker
) -> None:
    pair = codec.decode((VECTORS / "good-least.json").read_bytes(), ShadowPair)
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto) as side:
        until(lambda: side.link.connected)
        for sequence in range(1, 31):
            side.outbox.put(Lane.SHADOW, pair)
            side.outbox.put_inspection(records.inspection(sequence=sequence), line_run="run7")
            time.sleep(0.05)
        until(lambda: side.outbox.stats().unsettled == 0)
        batches = [batch for _, batch in fleet.arrivals if batch.lane is Lane.SHADOW]
        assert sum(len(batch.entries) for batch in batches) == 30
        assert len(batches) <= 4, "pairs travel one by one"
        assert codec.decode(bytes(batches[-1].entries[-1].body), ShadowPair) == pair
        assert fleet.seqs() >= set(range(1, 31))


def test_a_fleet_that_never_answers_about_pairs_gets_everything_else(tmp_path: Path, mosquitto: RunningBroker) -> None:
    pair = codec.decode((VECTORS / "good-least.json").read_bytes(), ShadowPair)
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto, resend_after_s=60, start=False) as side:
        fleet.answering = False
        for sequence in range(1, 40):
            side.outbox.put(Lane.SHADOW, pair)
            side.outbox.put_inspection(records.inspection(sequence=sequence), line_run="run7")
        side.outbox.emit_counters()
        side.link.start()
        until(lambda: {batch.lane for _, batch in fleet.arrivals} >= {Lane.INSPECTIONS, Lane.COUNTERS, Lane.SHADOW})
        time.sleep(0.5)
        assert [batch.lane for _, batch in fleet.arrivals].count(Lane.SHADOW) == 1
