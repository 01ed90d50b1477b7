"""A controller that counts from the start again in the same run: its parts are new ones, and each has its record."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from agent.inspection.ledger import Ledger
from agent.inspection.worker import StationWorker
from agent.line.trigger import LinePosition
from agent.threads import Worker
from tests.support.station import MemoryOutbox, ScriptedLine, frame_of, trigger, worker_of
from wire.inspection import Reason


def run_until(worker: StationWorker, done: Callable[[], bool]) -> None:
    thread = Worker("station-test", worker.run)
    thread.start()
    until = time.monotonic() + 5.0
    while not done() and time.monotonic() < until:
        time.sleep(0.005)
    assert thread.join(2.0)
    assert done(), "the worker did not get there in time"


def judge_up_to(count: int) -> MemoryOutbox:
    """Return the outbox of an agent that judged parts 1 to `count` and was killed."""
    outbox = MemoryOutbox()
    events = [trigger(number) for number in range(1, count + 1)]
    line = ScriptedLine(LinePosition(run="r1", sequence=0), *events)
    worker = worker_of(line, {"top": [frame_of(event, score_percent=10) for event in events]}, outbox=outbox)
    run_until(worker, lambda: len(outbox.inspections) == count)
    return outbox


def test_a_count_that_went_back_while_the_agent_was_away_begins_a_new_run(caplog: pytest.LogCaptureFixture) -> None:
    outbox = judge_up_to(5)
    event = trigger(3)
    line = ScriptedLine(LinePosition(run="r1", sequence=2), event)
    worker = worker_of(line, {"top": [frame_of(event, score_percent=10)]}, outbox=outbox)
    run_until(worker, lambda: len(outbox.inspections) == 8)
    new = outbox.inspections[5:]
    assert [(one.trigger_id, one.reason) for one in new] == [
        ("r1~1-1", Reason.AGENT_DOWN),
        ("r1~1-2", Reason.AGENT_DOWN),
        ("r1~1-3", Reason.NONE),
    ]
    assert line.answers == [("r1-3", new[2].verdict)], "the PLC knows the part by its own numbers"
    assert worker.tally.repeats == 0
    assert "line.count_went_back" in [getattr(one, "event", "") for one in caplog.records]


def test_the_new_run_goes_on_after_one_more_restart_and_may_end_likewise() -> None:
    outbox = judge_up_to(5)
    for position, expected in ((2, ["r1~1-1", "r1~1-2"]), (4, ["r1~1-3", "r1~1-4"]), (1, ["r1~2-1"])):
        before = len(outbox.inspections)
        line = ScriptedLine(LinePosition(run="r1", sequence=position))
        done = before + len(expected)
        run_until(worker_of(line, {"top": []}, outbox=outbox), lambda done=done: len(outbox.inspections) == done)
        assert [one.trigger_id for one in outbox.inspections[before:]] == expected


def test_a_sender_of_messages_that_repeats_itself_has_not_counted_back() -> None:
    """Its position is only what its first message lets us think."""
    outbox = judge_up_to(5)
    ledger = Ledger("gauge", outbox, _never, _never, line_tells_position=False)
    ledger.meet("r1", 2)
    assert ledger.is_repeat("r1", 3)


def _never(*_: object) -> None:
    raise AssertionError
