"""A station that looks by the clock: one part each interval, none while there is nothing to look with."""

from __future__ import annotations

from agent.clock import FakeClock
from agent.line.interval import Interval
from agent.line.trigger import StationState, Trigger, TriggerKind
from wire.inspection import Mode
from wire.mint import Mint


def line_of(clock: FakeClock) -> Interval:
    return Interval(5.0, Mode.PRODUCTION, clock, Mint())


def test_there_is_a_part_each_interval_and_late_looks_are_skipped_not_made_up_for() -> None:
    clock = FakeClock()
    line = line_of(clock)
    line.set_state(StationState(ready=True))
    started_ns = clock.monotonic_ns()
    seen: list[Trigger] = []
    while clock.monotonic_ns() < started_ns + 38_000_000_000:
        event = line.take(0.2)
        if isinstance(event, Trigger):
            seen.append(event)
            if len(seen) == 3:
                clock.advance(12.0)  # the station was busy
    assert [round((event.at_ns - started_ns) / 1e9) for event in seen] == [0, 5, 10, 22, 25, 30, 35]
    assert {event.kind for event in seen} == {TriggerKind.FRESH_FRAME}
    assert {event.mode for event in seen} == {Mode.PRODUCTION}


def test_a_station_that_is_not_ready_makes_no_parts_and_a_closed_line_neither() -> None:
    clock = FakeClock()
    line = line_of(clock)
    assert [line.take(6.0) for _ in range(4)] == [None] * 4
    line.set_state(StationState(ready=True))
    assert isinstance(line.take(0.2), Trigger)
    line.close()
    assert [line.take(6.0) for _ in range(4)] == [None] * 4
