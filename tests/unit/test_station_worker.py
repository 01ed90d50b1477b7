"""One part at one station: every trigger has exactly one record, and the record comes before the verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from agent.inspection.worker import StationWorker
from agent.line.trigger import LinePosition
from agent.threads import Worker
from agent.vision.pipeline import Look
from tests.support import station
from tests.support.station import (
    FakePipeline,
    KeptPictures,
    MemoryOutbox,
    ScriptedLine,
    frame_of,
    setup_of,
    trigger,
    worker_of,
)
from wire.errors import LinesideError
from wire.inspection import Reason, Verdict


def run_until(worker: StationWorker, done: Callable[[], bool], timeout_s: float = 5.0) -> None:
    thread = Worker("station-test", worker.run)
    thread.start()
    until = time.monotonic() + timeout_s
    while not done() and time.monotonic() < until:
        time.sleep(0.005)
    assert thread.join(2.0)
    assert done(), "the worker did not get there in time"


@pytest.mark.parametrize(
    ("score_percent", "verdict", "reason"),
    [
        (10, Verdict.OK, Reason.NONE),
        (40, Verdict.UNSURE, Reason.IN_UNSURE_BAND),
        (90, Verdict.NG, Reason.RULE_FIRED),
    ],
)
def test_a_part_is_judged_recorded_and_answered(score_percent: int, verdict: Verdict, reason: Reason) -> None:
    event = trigger(1)
    line = ScriptedLine()
    outbox = MemoryOutbox(line.log)
    worker = worker_of(line, {"top": [frame_of(event, score_percent=score_percent)]}, outbox=outbox)
    worker.inspect(event)
    (inspection,) = outbox.inspections
    assert (inspection.verdict, inspection.reason) == (verdict, reason)
    assert line.answers == [("r1-1", verdict)]
    assert inspection.views[0].model_digest == station.DIGEST
    assert line.log == ["record", "answer"], "the record must be handed over before the verdict leaves"


def test_a_part_without_a_frame_has_no_verdict() -> None:
    event = trigger(1)
    line, outbox = ScriptedLine(), MemoryOutbox()
    worker_of(line, {"top": []}, outbox=outbox, deadline_ms=30).inspect(event)
    assert outbox.inspections[0].verdict is Verdict.NO_VERDICT
    assert outbox.inspections[0].reason is Reason.NO_FRAME
    assert line.answers == [("r1-1", Verdict.NO_VERDICT)]


def test_a_frame_of_another_part_never_judges_this_one() -> None:
    first, second = trigger(1, age_ms=100), trigger(2)
    line, outbox = ScriptedLine(), MemoryOutbox()
    # The frame of the first part was lost; the second part's frame must wait for the second trigger.
    worker = worker_of(line, {"top": [frame_of(second, score_percent=90)]}, outbox=outbox)
    worker.inspect(first)
    worker.inspect(second)
    assert [one.verdict for one in outbox.inspections] == [Verdict.NO_VERDICT, Verdict.NG]


def test_a_frame_nobody_triggered_is_passed_over_and_counted() -> None:
    event = trigger(2)
    stray = frame_of(event, score_percent=90, apart_ms=-300)
    line, outbox = ScriptedLine(), MemoryOutbox()
    worker = worker_of(line, {"top": [stray, frame_of(event, score_percent=10)]}, outbox=outbox)
    worker.inspect(event)
    assert outbox.inspections[0].verdict is Verdict.OK
    assert worker._finder._feeds["top"].counts().not_triggered == 1


def test_a_verdict_after_the_deadline_is_none() -> None:
    event = trigger(1, age_ms=500)
    line, outbox = ScriptedLine(), MemoryOutbox()
    worker_of(line, {"top": [frame_of(event, score_percent=10)]}, outbox=outbox).inspect(event)
    assert outbox.inspections[0].reason is Reason.DEADLINE
    assert line.answers == [("r1-1", Verdict.NO_VERDICT)]


def test_an_unusable_output_is_no_verdict() -> None:
    event = trigger(1)
    line, outbox = ScriptedLine(), MemoryOutbox()
    setup = setup_of("top", pipeline=FakePipeline(unusable=True))
    worker_of(line, {"top": [frame_of(event, score_percent=10)]}, outbox=outbox, setup=setup).inspect(event)
    assert outbox.inspections[0].reason is Reason.UNUSABLE_OUTPUT


def test_a_station_without_a_model_says_so_and_is_not_ready() -> None:
    event = trigger(1)
    line, outbox = ScriptedLine(event), MemoryOutbox()
    setup = setup_of("top", ready=False)
    worker = worker_of(line, {"top": [frame_of(event, score_percent=10)]}, outbox=outbox, setup=setup)
    run_until(worker, lambda: bool(outbox.inspections))
    assert outbox.inspections[0].reason is Reason.NO_MODEL
    assert line.ready is False


def test_a_missing_view_outweighs_ok_but_not_ng() -> None:
    for score_percent, expected in ((10, Verdict.NO_VERDICT), (90, Verdict.NG)):
        event = trigger(1)
        outbox = MemoryOutbox()
        frames = {"top": [frame_of(event, score_percent=score_percent)], "side": []}
        worker_of(ScriptedLine(), frames, outbox=outbox, deadline_ms=400).inspect(event)
        assert outbox.inspections[0].verdict is expected


def test_a_part_that_cannot_be_recorded_is_diverted() -> None:
    event = trigger(1)
    line, outbox = ScriptedLine(), MemoryOutbox()
    outbox.fails = True
    worker = worker_of(line, {"top": [frame_of(event, score_percent=10)]}, outbox=outbox)
    worker.inspect(event)
    assert line.answers == [("r1-1", Verdict.NO_VERDICT)]
    assert worker.tally.unrecorded == 1


def test_parts_missed_while_running_are_recorded_as_missed_triggers() -> None:
    events = [trigger(1), trigger(4)]
    line, outbox = ScriptedLine(LinePosition(run="r1", sequence=0), *events), MemoryOutbox()
    worker = worker_of(line, {"top": [frame_of(event, score_percent=10) for event in events]}, outbox=outbox)
    run_until(worker, lambda: len(outbox.inspections) == 4)
    assert [one.trigger_sequence for one in outbox.inspections] == [1, 2, 3, 4]
    assert [one.reason for one in outbox.inspections[1:3]] == [Reason.MISSED_TRIGGER] * 2
    assert [one.trigger_id for one in outbox.inspections] == ["r1-1", "r1-2", "r1-3", "r1-4"]


def test_parts_missed_while_down_are_recorded_at_the_next_start() -> None:
    outbox = MemoryOutbox()
    event = trigger(3)
    worker_of(ScriptedLine(), {"top": [frame_of(event, score_percent=10)]}, outbox=outbox).inspect(event)
    line = ScriptedLine(LinePosition(run="r1", sequence=5))
    run_until(worker_of(line, {"top": []}, outbox=outbox), lambda: len(outbox.inspections) == 3)
    assert [one.trigger_sequence for one in outbox.inspections] == [3, 4, 5]
    assert {one.reason for one in outbox.inspections[1:]} == {Reason.AGENT_DOWN}


def test_a_device_killed_before_its_first_record_still_answers_for_what_it_met() -> None:
    outbox = MemoryOutbox()
    met = ScriptedLine(LinePosition(run="r1", sequence=0))
    run_until(worker_of(met, {"top": []}, outbox=outbox), lambda: bool(outbox.meta))
    line = ScriptedLine(LinePosition(run="r1", sequence=2))
    run_until(worker_of(line, {"top": []}, outbox=outbox), lambda: len(outbox.inspections) == 2)
    assert [one.trigger_sequence for one in outbox.inspections] == [1, 2]


def test_a_device_new_to_a_line_does_not_answer_for_its_past() -> None:
    outbox = MemoryOutbox()
    line = ScriptedLine(LinePosition(run="r1", sequence=1_000_000))
    run_until(worker_of(line, {"top": []}, outbox=outbox), lambda: bool(outbox.meta))
    assert outbox.inspections == []


def test_a_trigger_sent_twice_has_one_record() -> None:
    event = trigger(1)
    line = ScriptedLine(LinePosition(run="r1", sequence=0), event, event)
    outbox = MemoryOutbox()
    worker = worker_of(line, {"top": [frame_of(event, score_percent=10)]}, outbox=outbox)
    run_until(worker, lambda: worker.tally.repeats == 1)
    assert len(outbox.inspections) == 1


def test_a_kept_picture_is_spooled_before_its_record_names_it() -> None:
    event = trigger(1)
    outbox, pictures = MemoryOutbox(), KeptPictures()
    worker = worker_of(ScriptedLine(), {"top": [frame_of(event, score_percent=10)]}, outbox=outbox, pictures=pictures)
    worker.inspect(event)
    (inspection,) = outbox.inspections
    assert inspection.sampling.kept
    assert inspection.views[0].picture_digest in pictures.offered


def test_a_picture_that_found_no_room_is_not_called_kept() -> None:
    event = trigger(1)
    outbox = MemoryOutbox()
    worker = worker_of(
        ScriptedLine(),
        {"top": [frame_of(event, score_percent=10)]},
        outbox=outbox,
        pictures=KeptPictures(full=True),
    )
    worker.inspect(event)
    assert outbox.inspections[0].sampling.kept is False
    assert outbox.inspections[0].views[0].picture_digest is None


def test_a_new_setup_is_taken_between_two_parts() -> None:
    line, outbox = ScriptedLine(), MemoryOutbox()
    worker = worker_of(line, {"top": []}, outbox=outbox)
    thread = Worker("station-test", worker.run)
    thread.start()
    worker.replace_setup(setup_of("top", pipeline=FakePipeline(digest="b" * 64)))
    assert worker.setup.views[0].digest == "b" * 64
    assert thread.join(2.0)


def test_a_worker_that_hangs_makes_the_swap_fail_and_keeps_its_setup() -> None:
    before = threading.active_count()
    worker = worker_of(ScriptedLine(), {"top": []})  # never started: it takes nothing
    former = worker.setup
    with pytest.raises(LinesideError) as caught:
        worker.replace_setup(setup_of("top"), timeout_s=0.05)
    assert caught.value.code == "deployment.activation_failed"
    assert worker.setup is former
    assert threading.active_count() <= before + 2, "more threads than the feed's reader and the encoder"


def test_a_part_without_room_is_recorded_as_soon_as_there_is_some_and_before_any_later_one() -> None:
    events = [trigger(number) for number in (1, 2, 3)]
    line, outbox = ScriptedLine(), MemoryOutbox()
    worker = worker_of(line, {"top": [frame_of(event, score_percent=10) for event in events]}, outbox=outbox)
    worker.inspect(events[0])
    outbox.fails = True
    worker.inspect(events[1])
    outbox.fails = False
    worker.inspect(events[2])
    assert [one.trigger_sequence for one in outbox.inspections] == [1, 2, 3]
    assert outbox.inspections[1].verdict is Verdict.NO_VERDICT
    assert outbox.inspections[1].reason is Reason.NOT_RECORDED
    assert [verdict for _, verdict in line.answers] == [Verdict.OK, Verdict.NO_VERDICT, Verdict.OK]


def test_a_full_disk_is_told_when_it_begins_and_when_it_ends_not_with_each_part(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = [trigger(number) for number in (1, 2, 3, 4)]
    outbox = MemoryOutbox()
    worker = worker_of(ScriptedLine(), {"top": [frame_of(event, score_percent=10) for event in events]}, outbox=outbox)
    with caplog.at_level("INFO", logger="agent.inspection.ledger"):
        worker.inspect(events[0])
        outbox.fails = True
        worker.inspect(events[1])
        worker.inspect(events[2])
        outbox.fails = False
        worker.inspect(events[3])
    assert [record.__dict__["event"] for record in caplog.records] == [
        "verdict.not_recorded",
        "verdict.recorded_again",
    ]


class SlowPipeline(FakePipeline):
    """The first pictures take longest, so that threads finish in the wrong order unless they are made to wait."""

    def look(self, image_bgr: Any) -> Look:
        time.sleep(0.03 if image_bgr[0, 0, 1] % 2 == 0 else 0.0)
        return super().look(image_bgr)


def test_several_threads_record_and_answer_in_the_order_of_the_triggers() -> None:
    events = [trigger(number) for number in range(1, 9)]
    frames = [frame_of(event, score_percent=10) for event in events]
    for number, frame in enumerate(frames):
        frame.image_bgr[0, 0, 1] = number
    line, outbox = ScriptedLine(LinePosition(run="r1", sequence=0), *events), MemoryOutbox()
    setup = setup_of("top", pipeline=SlowPipeline())
    worker = worker_of(line, {"top": frames}, outbox=outbox, setup=setup, deadline_ms=2000)
    threads = [Worker(f"station-test-{number}", partial(worker.run, number=number)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 5
    while len(outbox.inspections) < 8 and time.monotonic() < until:
        time.sleep(0.005)
    assert all(thread.join(2.0) for thread in threads)
    assert [one.trigger_sequence for one in outbox.inspections] == list(range(1, 9))
    assert [answered for answered, _ in line.answers] == [event.id for event in events]


def test_a_swap_waits_for_every_part_on_its_way() -> None:
    events = [trigger(number) for number in (1, 2)]
    line, outbox = ScriptedLine(*events), MemoryOutbox()
    frames = [frame_of(event, score_percent=10) for event in events]
    setup = setup_of("top", pipeline=SlowPipeline())
    worker = worker_of(line, {"top": frames}, outbox=outbox, setup=setup, deadline_ms=2000)
    threads = [Worker(f"station-test-{number}", partial(worker.run, number=number)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    worker.replace_setup(setup_of("top", pipeline=FakePipeline(digest="b" * 64)))
    recorded = len(outbox.inspections)  # by the old setup; on a busy machine some by the new one already
    until = time.monotonic() + 5
    while len(outbox.inspections) < 2 and time.monotonic() < until:
        time.sleep(0.005)
    assert all(thread.join(2.0) for thread in threads)
    digests = [one.views[0].model_digest for one in outbox.inspections]
    assert len(digests) == 2
    assert digests == sorted(digests, key=[station.DIGEST, "b" * 64].index)
    assert set(digests[recorded:]) <= {"b" * 64}


def test_a_part_whose_thread_fails_unexpectedly_has_its_record_and_its_answer() -> None:
    class Broken(FakePipeline):
        def look(self, image_bgr: Any) -> Look:
            if image_bgr[0, 0, 0] == 66:
                raise ZeroDivisionError("a fault of ours")
            return super().look(image_bgr)

    events = [trigger(number) for number in (1, 2, 3)]
    scores = (10, 66, 10)
    frames = [frame_of(event, score_percent=score) for event, score in zip(events, scores, strict=True)]
    line, outbox = ScriptedLine(LinePosition(run="r1", sequence=0), *events), MemoryOutbox()
    worker = worker_of(line, {"top": frames}, outbox=outbox, setup=setup_of("top", pipeline=Broken()), deadline_ms=2000)
    run_until(worker, lambda: len(outbox.inspections) == 3)
    assert [one.reason for one in outbox.inspections] == [Reason.NONE, Reason.RUNTIME_ERROR, Reason.NONE]
    assert [verdict for _, verdict in line.answers] == [Verdict.OK, Verdict.NO_VERDICT, Verdict.OK]
    assert worker.tally.received == worker.tally.answered == 3
    assert worker._finder._feeds["top"].counts().waiting == 0, "a frame was not given back"
