"""The part gate's count held against the line's: what only the line counted is missing, once, whatever is between."""

from __future__ import annotations

import dataclasses

import pytest

from agent.clock import FakeClock
from agent.inspection import reconcile
from agent.inspection.count_watch import PERIOD_S, CountWatch
from agent.inspection.reconcile import Account, Settled
from agent.line.settings import LineSettings, PartGateSettings
from agent.line.trigger import LineCount
from tests.support.station import MemoryOutbox, ScriptedLine, worker_of
from wire.errors import LinesideError
from wire.inspection import Inspection, Reason, Verdict
from wire.messages import Severity


def line(count: int, run: str = "r1") -> LineCount:
    return LineCount(run=run, count=count)


def run(account: Account, parts: int, *, lost: int = 0, extra: int = 0, line_first: bool = True) -> Settled:
    """One period: each part is counted by the line and by us, one after the other; some by one of them only."""
    for number in range(parts):
        sees_line, sees_us = number >= extra, number >= extra + lost or number < extra
        for is_line in (True, False) if line_first else (False, True):
            if is_line and sees_line:
                account = reconcile.with_line(account, line(account.line + 1))
            elif not is_line and sees_us:
                account = reconcile.with_part(account)
    return reconcile.settle(account)


@pytest.mark.parametrize("late_counter", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_a_part_that_is_between_the_two_counters_is_not_missing(late_counter: bool, cut: bool) -> None:
    account = reconcile.opened(line(100), 0)
    if cut:  # the period begins and ends with a part between the two
        account = reconcile.with_part(account) if late_counter else reconcile.with_line(account, line(101))
    for _ in range(20):
        settled = run(account, 5, line_first=late_counter if cut else not late_counter)
        assert (settled.missing, settled.surplus) == (0, 0)
        account = settled.account


def test_one_count_alone_is_a_part_on_its_way_and_is_left_for_the_next_period() -> None:
    account = reconcile.with_line(reconcile.opened(line(100), 0), line(101))
    for _ in range(5):  # the belt stands
        settled = reconcile.settle(account)
        assert (settled.missing, settled.surplus) == (0, 0)
        account = settled.account
    settled = reconcile.settle(reconcile.with_part(account))
    assert (settled.missing, settled.surplus) == (0, 0)


@pytest.mark.parametrize("late_counter", [False, True])
def test_what_never_came_is_missing_once_and_what_only_we_counted_is_surplus_once(late_counter: bool) -> None:
    account = reconcile.opened(line(0), 0)
    missing = surplus = 0
    for minute in range(9):
        lost, extra = (3 if minute == 2 else 0), (2 if minute == 5 else 0)
        settled = run(account, 30, lost=lost, extra=extra, line_first=not late_counter)
        account = settled.account
        missing, surplus = missing + settled.missing, surplus + settled.surplus
    assert (missing, surplus) == (3, 2)


def test_a_gate_that_sees_nothing_any_more_is_found_out() -> None:
    account = run(reconcile.opened(line(-20), -20), 20).account
    missing = 0
    for minute in range(1, 4):
        for count in range(50 * minute - 49, 50 * minute + 1):
            account = reconcile.with_line(account, line(count))
        settled = reconcile.settle(account)
        account, missing = settled.account, missing + settled.missing
    assert 100 <= missing <= 150  # the last period's are told by the next


def test_a_counter_that_begins_anew_is_taken_from_where_it_stands() -> None:
    account = reconcile.opened(line(5000), 10)
    account = run(reconcile.with_line(account, line(12, "r2")), 0).account
    for count in range(13, 20):
        account = reconcile.with_part(reconcile.with_line(account, line(count, "r2")))
    settled = reconcile.settle(account)
    assert (settled.missing, settled.surplus) == (0, 0)


class Watched:
    """A watch whose records and events are kept."""

    def __init__(self, outbox: MemoryOutbox, clock: FakeClock) -> None:
        self.recorded: list[tuple[str, int, Reason]] = []
        self.told: list[str] = []
        self.watch = CountWatch(
            "gauge", outbox, clock, lambda *what: self.recorded.append(what), lambda name, *_: self.told.append(name)
        )


def test_missing_parts_are_recorded_each_minute_and_surplus_is_told() -> None:
    clock = FakeClock()
    watched = Watched(MemoryOutbox(), clock)
    watched.watch.note_line(line(10))
    for minute, seen in enumerate((10, 9, 10, 12, 10)):  # of ten that the line counts
        for number in range(12):
            if number < 10:
                watched.watch.note_line(line(11 + 10 * minute + number))
            if number < seen:
                watched.watch.note_part()
            watched.watch.settle()
        clock.advance(PERIOD_S)
        watched.watch.settle()
    assert sum(count for _, count, _ in watched.recorded) == 1
    assert {reason for *_, reason in watched.recorded} == {Reason.NOT_GATED}
    assert set(watched.told) == {"gate.surplus_found"}


def test_what_passed_while_the_agent_was_down_is_missing_at_once_after_the_start() -> None:
    clock, outbox = FakeClock(), MemoryOutbox()
    before = Watched(outbox, clock)
    before.watch.note_line(line(100))
    for _ in range(5):
        before.watch.note_part()
    after = Watched(outbox, clock)
    after.watch.settle()
    assert after.recorded == [], "nothing is known before the line has spoken"
    after.watch.note_line(line(117))
    assert after.recorded == [("r1", 11, Reason.AGENT_DOWN)]
    clock.advance(PERIOD_S)
    after.watch.settle()
    assert len(after.recorded) == 1


def test_a_full_disk_stops_no_part() -> None:
    class Full(MemoryOutbox):
        def meta_set(self, key: str, value: str) -> None:
            raise LinesideError("storage.full", "No room.")

    watched = Watched(Full(), FakeClock())
    watched.watch.note_line(line(1))
    watched.watch.note_part()
    watched.watch.settle()


def test_a_station_with_a_part_gate_records_what_only_the_line_counted() -> None:
    outbox, counter, told = MemoryOutbox(), ScriptedLine(), []
    worker = worker_of(counter, {"top": []}, outbox=outbox)
    gated = LineSettings(kind="part_gate", part_gate=PartGateSettings(view="top"))
    clock = FakeClock()

    def tell(name: str, severity: Severity, text: str) -> None:
        told.append(name)

    worker._settings = dataclasses.replace(worker._settings, line=gated)
    worker._counts = CountWatch("gauge", outbox, clock, worker._record_missing, tell)
    worker._counts.note_line(line(10))
    for count in range(11, 24):
        worker._counts.note_line(line(count))
        if count < 20:
            worker._counts.note_part()
        clock.advance(PERIOD_S)
        worker._counts.settle()
    records: list[Inspection] = outbox.inspections
    assert [(one.verdict, one.reason, one.trigger_sequence) for one in records] == [
        (Verdict.NO_VERDICT, Reason.NOT_GATED, None)
    ] * 3
    assert len({one.trigger_id for one in records}) == 3
    assert worker.missed_count == 3
