"""How soon records are durable, and with how many syncs: figures of an outbox that has the machine to itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.uplink.outbox import Outbox
from tests.support import records
from wire.messages import Event, Lane, Severity

pytestmark = pytest.mark.alone("counts hundredths of a second from a record to its sync")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with closing(Outbox(tmp_path / "outbox.db", SystemClock(), device="cell-1")) as box:
        yield box


def event() -> Event:
    return Event(at=records.NOON, name="test.happened", severity=Severity.NOTE, text="a")


def test_records_become_durable_within_a_tenth_of_a_second_also_in_a_stream(outbox: Outbox) -> None:
    synced: list[float] = []
    outbox.listen(lambda: synced.append(time.monotonic()))
    waits = []
    for _ in range(40):
        start = time.monotonic()
        seq = outbox.put(Lane.EVENTS, event())
        while outbox._durable[Lane.EVENTS] < seq:
            time.sleep(0.002)
        waits.append(time.monotonic() - start)
    assert sorted(waits)[len(waits) // 2] <= 0.1, waits
    assert len(synced) <= 60, "the flusher syncs more often than it has to"
