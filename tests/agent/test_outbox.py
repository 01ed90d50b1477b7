"""The outbox keeps every record until it is settled, through kills, full disks and damaged files."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.clock import Clock, FakeClock, SystemClock
from agent.uplink.dispatch import BEHIND_WINDOW
from agent.uplink.outbox import Outbox
from tests.support import records
from wire import codec, topics
from wire.errors import LinesideError
from wire.inspection import Inspection, Verdict
from wire.messages import Batch, Counter, Event, Lane, SeqRange, Severity, ShadowPair

REPO = Path(__file__).resolve().parents[2]
MUCH = 1024 * 1024


def event(text: str = "a") -> Event:
    return Event(at=records.NOON, name="test.happened", severity=Severity.NOTE, text=text)


def opened(path: Path, clock: Clock | None = None, **options: int | float) -> Outbox:
    return Outbox(path, clock or SystemClock(), device="cell-1", **options)  # type: ignore[arg-type]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = opened(tmp_path / "outbox.db")
    yield box
    box.close()


def durable(outbox: Outbox) -> None:
    """Wait until all that was put may be sent."""
    marks = dict(outbox._committed)
    deadline = time.monotonic() + 5
    while any(outbox._durable[lane] < mark for lane, mark in marks.items()):
        assert time.monotonic() < deadline, "the flusher does not sync"
        time.sleep(0.005)


def drained(outbox: Outbox, lane: Lane) -> list[Batch]:
    durable(outbox)
    batches = []
    while (batch := outbox.next_batch(lane, MUCH)) is not None:
        batches.append(batch)
    return batches


def seqs(batches: list[Batch]) -> list[int]:
    return [entry.seq for batch in batches for entry in batch.entries]


def settled(outbox: Outbox, batch: Batch) -> int:
    return outbox.settle(batch.epoch, batch.lane, [SeqRange(first=s, last=s) for s in seqs([batch])])


def test_each_lane_counts_from_one_without_a_gap(outbox: Outbox) -> None:
    assert [outbox.put(Lane.EVENTS, event()) for _ in range(3)] == [1, 2, 3]
    assert [outbox.put_inspection(records.inspection(), line_run=None) for _ in range(2)] == [1, 2]


def test_what_was_put_comes_out_once_in_order_and_as_it_was(outbox: Outbox) -> None:
    sent = [records.inspection(sequence=n) for n in range(1, 30)]
    for record in sent:
        outbox.put_inspection(record, line_run="run7")
    batches = drained(outbox, Lane.INSPECTIONS)
    assert [codec.decode(e.body, Inspection) for b in batches for e in b.entries] == sent
    assert outbox.next_batch(Lane.INSPECTIONS, MUCH) is None
    assert all(b.epoch == outbox.epoch and b.device == "cell-1" for b in batches)


def test_a_batch_never_exceeds_the_bytes_asked_for_nor_the_topics_budget(outbox: Outbox) -> None:
    draw = random.Random(7)
    for _ in range(300):
        outbox.put(Lane.EVENTS, event("x" * draw.randrange(1000)))
    durable(outbox)
    for limit in (3000, 5000, MUCH, MUCH, MUCH):
        batch = outbox.next_batch(Lane.EVENTS, limit)
        assert batch is not None
        assert len(codec.encode(batch)) <= min(limit, topics.TABLE["events"].max_bytes)
    assert len(codec.encode(batch)) > topics.TABLE["events"].max_bytes - 1200, "the budget is not used"


def test_a_record_that_no_batch_can_carry_is_refused_at_once(outbox: Outbox) -> None:
    view = records.view(findings=records.view().findings * 300)
    with pytest.raises(LinesideError) as caught:
        outbox.put_inspection(
            records.inspection(views=tuple(replace(view, view=f"v{n}") for n in range(16))), line_run=None
        )
    assert caught.value.code == "message.too_large"
    assert outbox.put_inspection(records.inspection(), line_run=None) == 1, "a refused record used up a seq"


def test_a_seq_is_never_used_again_after_all_is_settled_and_the_process_restarts(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db")
    for _ in range(5):
        box.put(Lane.EVENTS, event())
    [batch] = drained(box, Lane.EVENTS)
    assert settled(box, batch) == 5
    epoch = box.epoch
    box.close()
    again = opened(tmp_path / "o.db")
    assert again.epoch == epoch
    assert again.put(Lane.EVENTS, event()) == 6
    assert again.stats().unsettled == 1
    again.close()


def test_what_is_not_settled_is_sent_again_after_a_restart(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db")
    for _ in range(5):
        box.put(Lane.EVENTS, event())
    durable(box)
    box.settle(box.epoch, Lane.EVENTS, [SeqRange(first=2, last=3)])
    box.close()
    again = opened(tmp_path / "o.db")
    assert seqs(drained(again, Lane.EVENTS)) == [1, 4, 5]
    again.close()


def test_an_unanswered_batch_goes_again_after_the_time_out_and_less_often_each_time(tmp_path: Path) -> None:
    clock = FakeClock()
    box = opened(tmp_path / "o.db", clock, resend_after_s=10)
    box.put(Lane.EVENTS, event())
    assert seqs(drained(box, Lane.EVENTS)) == [1]
    clock.advance(9.9)
    assert box.next_batch(Lane.EVENTS, MUCH) is None
    clock.advance(0.2)
    assert box.in_flight(Lane.EVENTS) == 0
    assert seqs(drained(box, Lane.EVENTS)) == [1]
    clock.advance(10.1)
    assert box.next_batch(Lane.EVENTS, MUCH) is None, "the second wait is not longer"
    clock.advance(10)
    assert seqs(drained(box, Lane.EVENTS)) == [1]
    box.close()


def test_only_the_missing_part_of_a_batch_goes_again(tmp_path: Path) -> None:
    clock = FakeClock()
    box = opened(tmp_path / "o.db", clock)
    for _ in range(6):
        box.put(Lane.EVENTS, event())
    drained(box, Lane.EVENTS)
    assert box.settle(box.epoch, Lane.EVENTS, [SeqRange(first=1, last=2), SeqRange(first=4, last=4)]) == 3
    clock.advance(11)
    assert seqs(drained(box, Lane.EVENTS)) == [3, 5, 6]
    box.close()


def test_what_an_outage_left_behind_gives_way_to_live_records_but_never_wholly(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db", resend_after_s=60)
    for _ in range(400):
        box.put_inspection(records.inspection(), line_run=None)
    durable(box)
    box.unsend_all()
    order = []
    for _ in range(40):
        box.put_inspection(records.inspection(), line_run=None)
        durable(box)
        batch = box.next_batch(Lane.INSPECTIONS, 4000)
        assert batch is not None
        order.append(batch.entries[0].seq > 400)
        settled(box, batch)
    assert order[:4] == [True, True, True, False], "live records go first, and the fourth batch is not theirs"
    assert order.count(False) == 10
    rest = seqs(drained(box, Lane.INSPECTIONS))
    behind = [seq for seq in rest if seq <= 400]
    assert behind == sorted(behind), "what was left behind does not keep its order"
    assert rest[: len(rest) - len(behind)] == [440], "the last live record does not go first"
    box.unsend_all()
    left = sorted(seqs(drained(box, Lane.INSPECTIONS)))
    assert left == sorted(rest), "something was forgotten"
    box.close()


def test_what_was_left_behind_may_take_a_bounded_share_of_the_window(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db", resend_after_s=60)
    for _ in range(400):
        box.put_inspection(records.inspection(), line_run=None)
    durable(box)
    box.unsend_all()
    sent = 0
    while box.next_batch(Lane.INSPECTIONS, 4000) is not None:
        sent += 1
    assert sent == BEHIND_WINDOW
    box.put_inspection(records.inspection(), line_run=None)
    durable(box)
    assert box.next_batch(Lane.INSPECTIONS, 4000, live=False) is None
    live = box.next_batch(Lane.INSPECTIONS, 4000)
    assert live is not None
    assert seqs([live]) == [401]
    assert box.is_live(live)
    box.close()


def test_a_full_outbox_drops_what_an_outage_left_behind_and_never_what_is_on_its_way(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db", max_bytes=2 * MUCH, resend_after_s=60)
    for _ in range(500):
        box.put_inspection(records.inspection(), line_run=None)
    durable(box)
    box.unsend_all()
    flying = box.next_batch(Lane.INSPECTIONS, 20_000)
    assert flying is not None
    while not box.stats().dropped_by_lane[Lane.INSPECTIONS]:
        box.put_inspection(records.inspection(), line_run=None)
    assert settled(box, flying) == len(flying.entries), "a record on its way was dropped"
    stats = box.stats()
    durable(box)
    box.unsend_all()
    left = []
    while (batch := box.next_batch(Lane.INSPECTIONS, MUCH)) is not None:
        left += seqs([batch])
        settled(box, batch)
    assert len(left) == stats.unsettled_by_lane[Lane.INSPECTIONS], "something is left that never goes out"
    assert min(left) > len(flying.entries) + 1, "the oldest were not the ones that went"
    box.close()


def test_a_new_connection_sends_all_again_and_a_refused_batch_waits(tmp_path: Path) -> None:
    clock = FakeClock()
    box = opened(tmp_path / "o.db", clock)
    box.put(Lane.EVENTS, event())
    [batch] = drained(box, Lane.EVENTS)
    box.unsend(batch, after_s=60)
    clock.advance(30)
    assert box.next_batch(Lane.EVENTS, MUCH) is None
    box.unsend_all()
    assert seqs(drained(box, Lane.EVENTS)) == [1]
    box.close()


def test_answers_to_another_epoch_or_with_absurd_ranges_settle_nothing_else(outbox: Outbox) -> None:
    outbox.put(Lane.EVENTS, event())
    outbox.put(Lane.HEALTH, records_health())
    durable(outbox)
    assert outbox.settle("0" * 16, Lane.EVENTS, [SeqRange(first=1, last=1)]) == 0
    assert outbox.settle(outbox.epoch, Lane.EVENTS, [SeqRange(first=5, last=2)]) == 0
    assert outbox.settle(outbox.epoch, Lane.EVENTS, [SeqRange(first=1, last=2**70)]) == 1
    assert outbox.settle(outbox.epoch, Lane.EVENTS, [SeqRange(first=1, last=1)]) == 0
    assert outbox.stats().unsettled_by_lane[Lane.HEALTH] == 1, "a range ran over into another lane"


def records_health() -> object:
    from wire.messages import Health

    return Health(
        at=records.NOON,
        uptime_s=1.0,
        cpu_fraction=0.1,
        rss_bytes=1,
        disk_free_bytes=1,
        disk_free_fraction=0.5,
        outbox_unsettled=0,
        outbox_bytes=0,
        outbox_dropped=0,
    )


def test_nothing_is_sent_before_it_is_durable(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    durable(outbox)
    gate = threading.Event()
    monkeypatch.setattr("agent.uplink.flusher.os.fdatasync", lambda _: gate.wait(5))
    outbox.put(Lane.EVENTS, event())
    time.sleep(0.2)
    assert outbox.next_batch(Lane.EVENTS, MUCH) is None
    gate.set()
    assert seqs(drained(outbox, Lane.EVENTS)) == [1]


def test_a_disk_that_refuses_to_sync_is_reported_and_records_still_leave(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("agent.uplink.flusher.os.fdatasync", broken)
    outbox.put(Lane.EVENTS, event())
    assert seqs(drained(outbox, Lane.EVENTS)) == [1]
    outbox.put(Lane.EVENTS, event())
    durable(outbox)
    assert outbox.stats().sync_failures >= 2
    assert sum(getattr(r, "event", "") == "outbox.sync_failed" for r in caplog.records) == 1


def counters_of(batches: list[Batch]) -> list[Counter]:
    return [codec.decode(e.body, Counter) for b in batches for e in b.entries]


def test_counters_are_exact_and_absolute_per_cell(outbox: Outbox) -> None:
    ok = records.inspection()
    local = timezone(timedelta(hours=5, minutes=30))
    for record in (
        ok,
        ok,
        replace(ok, verdict=Verdict.NG),
        replace(ok, judged_at=ok.judged_at + timedelta(minutes=1)),
        replace(ok, judged_at=ok.judged_at.astimezone(local)),
        replace(ok, views=()),
        replace(ok, station="s2"),
    ):
        outbox.put_inspection(record, line_run=None)
    assert outbox.emit_counters() == 5
    assert outbox.emit_counters() == 0
    found = {
        (c.minute, c.station, c.model_digest, c.verdict): c.count for c in counters_of(drained(outbox, Lane.COUNTERS))
    }
    minute, later = records.NOON, records.NOON + timedelta(minutes=1)
    assert found == {
        (minute, "s1", records.DIGEST, Verdict.OK): 3,
        (minute, "s1", records.DIGEST, Verdict.NG): 1,
        (later, "s1", records.DIGEST, Verdict.OK): 1,
        (minute, "s1", None, Verdict.OK): 1,
        (minute, "s2", records.DIGEST, Verdict.OK): 1,
    }
    assert minute.tzinfo is UTC


def test_a_later_count_takes_the_place_of_the_earlier_one(outbox: Outbox) -> None:
    for _ in range(3):
        outbox.put_inspection(records.inspection(), line_run=None)
        assert outbox.emit_counters() == 1
        assert outbox.stats().unsettled_by_lane[Lane.COUNTERS] == 1
    batches = drained(outbox, Lane.COUNTERS)
    assert [c.count for c in counters_of(batches)] == [3]
    assert settled(outbox, batches[0]) == 1
    outbox.put_inspection(records.inspection(), line_run=None)
    outbox.emit_counters()
    assert [c.count for c in counters_of(drained(outbox, Lane.COUNTERS))] == [4], "settling began the count anew"


def test_a_count_replaced_on_its_way_leaves_nothing_behind(tmp_path: Path) -> None:
    clock = FakeClock()
    box = opened(tmp_path / "o.db", clock)
    box.put_inspection(records.inspection(), line_run=None)
    box.emit_counters()
    drained(box, Lane.COUNTERS)
    box.put_inspection(records.inspection(), line_run=None)
    box.emit_counters()
    clock.advance(11)
    assert [c.count for c in counters_of(drained(box, Lane.COUNTERS))] == [2]
    assert box.in_flight(Lane.COUNTERS) == 1
    box.close()


def test_the_last_trigger_never_goes_back_within_a_run(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db")
    assert box.last_trigger("s1") is None
    for run, sequence in (("a", 7), ("a", 6), ("b", 1)):
        box.put_inspection(records.inspection(sequence=sequence), line_run=run)
    assert box.last_trigger("s1") == ("b", 1)
    box.put_inspection(records.inspection(sequence=3), line_run="b")
    box.put_inspection(records.inspection(trigger_sequence=None), line_run="b")
    box.close()
    again = opened(tmp_path / "o.db")
    assert again.last_trigger("s1") == ("b", 3)
    again.close()


def test_many_inspections_are_recorded_all_or_none_and_counted(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [records.inspection(sequence=n) for n in range(1, 201)]
    assert outbox.put_inspections(some, line_run="r") == 200
    assert outbox.last_trigger("s1") == ("r", 200)
    calls = []

    def fail_late(*_: object) -> None:
        calls.append(1)
        if len(calls) == 100:
            raise LinesideError("storage.full", "No room.")

    monkeypatch.setattr(outbox._rows, "count", fail_late)
    with pytest.raises(LinesideError):
        outbox.put_inspections([records.inspection(sequence=n) for n in range(201, 401)], line_run="r")
    monkeypatch.undo()
    assert outbox.stats().unsettled == 200
    assert outbox.last_trigger("s1") == ("r", 200)
    outbox.emit_counters()
    assert sum(c.count for c in counters_of(drained(outbox, Lane.COUNTERS))) == 200


def test_marks_survive_a_restart(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db")
    assert box.meta_get("boot") is None
    box.meta_set("boot", "1")
    box.meta_set("boot", "2")
    box.close()
    again = opened(tmp_path / "o.db")
    assert again.meta_get("boot") == "2"
    again.close()


def test_a_second_process_cannot_open_the_same_outbox(outbox: Outbox, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agent.clock import SystemClock;"
        "from agent.uplink.outbox import Outbox; from wire.errors import LinesideError\n"
        "try: Outbox(Path(sys.argv[1]), SystemClock(), device='cell-1')\n"
        "except LinesideError as error: print(error.code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "outbox.db")], capture_output=True, text=True, cwd=REPO, timeout=30
    )
    assert done.stdout.strip() == "storage.in_use", done.stderr


# Room


def test_a_full_outbox_pushes_out_the_least_precious_first_and_counts_it(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db", max_bytes=2 * MUCH)
    for _ in range(600):
        box.put(Lane.HEALTH, records_health())
        box.put(Lane.EVENTS, event("x" * 900))
    inspections = 0
    while not box.stats().dropped_by_lane[Lane.EVENTS]:
        assert box.stats().dropped_by_lane[Lane.INSPECTIONS] == 0
        box.put_inspection(records.inspection(), line_run=None)
        inspections += 1
        assert inspections < 5000
    stats = box.stats()
    assert stats.unsettled_by_lane[Lane.HEALTH] == 0, "events went before all health did"
    assert stats.unsettled_by_lane[Lane.INSPECTIONS] == inspections
    for _ in range(3000):
        box.put_inspection(records.inspection(), line_run=None)
        inspections += 1
    stats = box.stats()
    assert stats.dropped_by_lane[Lane.INSPECTIONS] > 0
    assert stats.unsettled_by_lane[Lane.INSPECTIONS] + stats.dropped_by_lane[Lane.INSPECTIONS] == inspections
    assert stats.bytes <= 2 * MUCH + 200_000
    box.emit_counters()
    assert sum(c.count for c in counters_of(drained(box, Lane.COUNTERS))) == inspections, "dropping spoilt the counts"
    box.close()
    again = opened(tmp_path / "o.db", max_bytes=2 * MUCH)
    assert again.stats().dropped_by_lane == stats.dropped_by_lane
    again.close()


def test_what_a_candidate_made_of_parts_gives_way_to_every_other_record_and_pushes_out_none(tmp_path: Path) -> None:
    pair = codec.decode((REPO / "tests/contract/vectors/shadow-pair/good-least.json").read_bytes(), ShadowPair)
    box = opened(tmp_path / "o.db", max_bytes=MUCH)
    while not box.stats().dropped_by_lane[Lane.SHADOW]:
        box.put(Lane.SHADOW, pair)
    while not box.stats().dropped_by_lane[Lane.HEALTH]:
        box.put(Lane.HEALTH, records_health())
    assert box.stats().unsettled_by_lane[Lane.SHADOW] == 0, "health went before all pairs did"
    while not box.stats().dropped_by_lane[Lane.EVENTS]:
        box.put(Lane.EVENTS, event("x" * 900))
    before = box.stats()
    for _ in range(3000):
        with contextlib.suppress(LinesideError):  # storage.full, where there is no older pair to push out
            box.put(Lane.SHADOW, pair)
    after = box.stats()
    assert after.unsettled_by_lane[Lane.EVENTS] == before.unsettled_by_lane[Lane.EVENTS]
    assert after.unsettled_by_lane[Lane.SHADOW] < 3000
    assert after.bytes <= MUCH + 200_000
    box.close()


def test_counters_that_gave_way_go_out_again_with_their_whole_count(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db", max_bytes=MUCH)
    for n in range(100):
        box.put_inspection(records.inspection(judged_at=records.NOON + timedelta(minutes=n)), line_run=None)
    assert box.emit_counters() == 100
    last = records.inspection(judged_at=records.NOON + timedelta(days=1))
    put = 100
    while not box.stats().dropped_by_lane[Lane.INSPECTIONS]:
        box.put_inspection(last, line_run=None)
        put += 1
    assert box.stats().dropped_by_lane[Lane.COUNTERS] == 100
    box.emit_counters()
    assert sum(c.count for c in counters_of(drained(box, Lane.COUNTERS))) == put
    box.close()


def test_events_never_push_out_inspections(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db", max_bytes=MUCH)
    for _ in range(2000):
        box.put_inspection(records.inspection(), line_run=None)
    before = box.stats()
    assert before.dropped_by_lane[Lane.INSPECTIONS] > 0
    for _ in range(600):
        box.put(Lane.EVENTS, event("x" * 1000))
    after = box.stats()
    assert after.dropped_by_lane[Lane.INSPECTIONS] == before.dropped_by_lane[Lane.INSPECTIONS]
    assert after.dropped_by_lane[Lane.EVENTS] > 0
    box.close()


def test_a_put_without_room_and_without_anything_to_push_out_is_refused_and_uses_no_seq(tmp_path: Path) -> None:
    opened(tmp_path / "o.db").close()
    small = opened(tmp_path / "o.db", max_bytes=10_000)
    with pytest.raises(LinesideError) as caught:
        small.put_inspection(records.inspection(), line_run="r")
    assert caught.value.code == "storage.full"
    assert small.last_trigger("s1") is None
    small.close()
    roomy = opened(tmp_path / "o.db")
    assert roomy.put_inspection(records.inspection(), line_run="r") == 1
    roomy.close()


def test_a_full_disk_refuses_the_record_whole_and_the_outbox_goes_on_when_there_is_room(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db")
    box.put_inspection(records.inspection(sequence=1), line_run="r")
    (pages,) = box._rows._connection.execute("PRAGMA page_count").fetchone()
    box._rows._connection.execute(f"PRAGMA max_page_count={pages}")
    stored, code = 1, ""
    while not code:
        try:
            box.put_inspection(records.inspection(sequence=stored + 1), line_run="r")
            stored += 1
        except LinesideError as error:
            code = error.code
    assert code == "storage.full"
    assert box.last_trigger("s1") == ("r", stored)
    box._rows._connection.execute("PRAGMA max_page_count=1000000")
    assert box.put_inspection(records.inspection(sequence=stored + 1), line_run="r") == stored + 1
    box.emit_counters()
    assert sum(c.count for c in counters_of(drained(box, Lane.COUNTERS))) == stored + 1
    box.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_really_full_disk_loses_nothing_that_was_taken_and_settling_goes_on_later(small_disk: Path) -> None:
    box = opened(small_disk / "o.db")
    taken = 0
    codes: list[str] = []
    while len(codes) < 5:
        try:
            box.put_inspection(records.inspection(sequence=taken + 1), line_run="r")
            taken += 1
        except LinesideError as error:
            codes.append(error.code)
    assert set(codes) == {"storage.full"}
    assert taken > 50
    assert box.last_trigger("s1") == ("r", taken)
    with pytest.raises(LinesideError):
        box.emit_counters()
    box.close()
    again = opened(small_disk / "o.db")
    batches = drained(again, Lane.INSPECTIONS)
    assert seqs(batches) == list(range(1, taken + 1))
    assert sum(settled(again, batch) for batch in batches) == taken
    again.emit_counters()
    assert sum(c.count for c in counters_of(drained(again, Lane.COUNTERS))) == taken
    assert again.put_inspection(records.inspection(), line_run="r") == taken + 1
    again.close()


# Damage


@pytest.mark.parametrize("damage", ["no database", "header cut", "pages overwritten"])
def test_a_damaged_file_is_set_aside_and_a_new_epoch_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / "outbox.db"
    box = opened(path)
    box.meta_set("boot", "41")
    for n in range(1, 400):
        box.put_inspection(records.inspection(sequence=n), line_run="r")
    epoch = box.epoch
    box.close()
    content = bytearray(path.read_bytes())
    if damage == "no database":
        content = bytearray(b"not a database at all" * 1000)
    elif damage == "header cut":
        content[16:100] = b"\xff" * 84
    else:
        content[len(content) // 2 :] = b"\xa5" * (len(content) - len(content) // 2)
    path.write_bytes(content)
    again = opened(path)
    assert again.epoch != epoch
    assert (tmp_path / "outbox.db.corrupt-1").exists()
    assert any(getattr(r, "event", "") == "outbox.set_aside" for r in caplog.records)
    (told,) = [codec.decode(bytes(entry.body), Event) for entry in drained(again, Lane.EVENTS)[-1].entries][-1:]
    assert (told.name, told.severity) == ("outbox.set_aside", Severity.ALARM)
    assert "outbox" in told.text
    assert again.put_inspection(records.inspection(), line_run=None) == 1
    if damage == "pages overwritten":
        assert again.meta_get("boot") == "41", "readable marks were lost"
        assert again.last_trigger("s1") == ("r", 399)
    again.close()


def test_damage_found_while_running_begins_a_new_epoch_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    box = opened(path)
    for n in range(1, 2000):
        box.put_inspection(records.inspection(sequence=n), line_run="r")
    box.close()
    box = opened(path)
    epoch = box.epoch
    durable(box)
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = b"\xa5" * (len(content) - 4096 * 3)
    path.write_bytes(content)
    box._rows._connection.execute("PRAGMA shrink_memory")
    deadline = time.monotonic() + 20
    n = 2000
    while box.epoch == epoch and time.monotonic() < deadline:
        box.put_inspection(records.inspection(sequence=n), line_run="r")
        box.next_batch(Lane.INSPECTIONS, MUCH)
        n += 1
    assert box.epoch != epoch
    before = box.stats().unsettled_by_lane[Lane.INSPECTIONS]
    box.put_inspection(records.inspection(), line_run=None)
    assert len(seqs(drained(box, Lane.INSPECTIONS))) == before + 1
    box.close()


def test_only_a_few_damaged_files_are_kept(tmp_path: Path) -> None:
    for _ in range(6):
        (tmp_path / "outbox.db").write_bytes(b"nonsense" * 999)
        opened(tmp_path / "outbox.db").close()
    assert sorted(p.name for p in tmp_path.glob("*corrupt*")) == [f"outbox.db.corrupt-{n}" for n in (4, 5, 6)]


# Many threads, many kills, any order


def test_many_producers_and_one_uplink_lose_and_repeat_nothing(tmp_path: Path) -> None:
    box = opened(tmp_path / "o.db")
    given_out: list[int] = []
    stop = threading.Event()

    def produce(name: str) -> None:
        for n in range(150):
            box.put_inspection(records.inspection(station=name, sequence=n), line_run=name)
            if n % 20 == 0:
                box.emit_counters()

    def carry() -> None:
        while not stop.is_set() or box.stats().unsettled_by_lane[Lane.INSPECTIONS]:
            batch = box.next_batch(Lane.INSPECTIONS, 20_000)
            if batch is None:
                time.sleep(0.002)
                continue
            given_out.extend(seqs([batch]))
            assert settled(box, batch) == len(batch.entries)

    producers = [threading.Thread(target=produce, args=(f"s{n}",)) for n in range(4)]
    uplink = threading.Thread(target=carry)
    for thread in (*producers, uplink):
        thread.start()
    for thread in producers:
        thread.join(60)
    stop.set()
    uplink.join(30)
    assert not uplink.is_alive()
    assert sorted(given_out) == list(range(1, 601))
    box.emit_counters()
    assert sum(c.count for c in counters_of(drained(box, Lane.COUNTERS))) == 600
    box.close()


_CHILD = """
import sys
from pathlib import Path
from agent.clock import SystemClock
from agent.uplink.outbox import Outbox
from tests.support import records
from wire.messages import Lane, SeqRange
box = Outbox(Path(sys.argv[1]), SystemClock(), device="cell-1")
first = (box.last_trigger("s1") or ("r", 0))[1] + 1
for n in range(first, first + 100000):
    seq = box.put_inspection(records.inspection(sequence=n), line_run="r")
    sys.stdout.write(f"{seq} {n}\\n")
    sys.stdout.flush()
    if n % 7 == 0:
        box.emit_counters()
    if n % 11 == 0:
        batch = box.next_batch(Lane.INSPECTIONS, 4000)
        if batch is not None and n % 2:
            first_seq, last_seq = batch.entries[0].seq, batch.entries[-1].seq
            sys.stdout.write(f"settle {first_seq} {last_seq}\\n")
            sys.stdout.flush()
            box.settle(batch.epoch, batch.lane, [SeqRange(first=first_seq, last=last_seq)])
"""


def test_kill_9_at_random_moments_loses_nothing_that_was_done_and_counts_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    draw = random.Random(20260301)
    done: dict[int, int] = {}
    gone: set[int] = set()
    last_known = 0
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPO,
        )
        assert child.stdout is not None
        assert child.stderr is not None
        first_line = child.stdout.readline()
        assert first_line, child.stderr.read()
        time.sleep(draw.uniform(0.0, 0.35))
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        child.communicate()
        lines = [first_line.strip(), *rest.split("\n")[:-1]]
        for line in lines:
            words = line.split()
            if words[0] == "settle":
                gone.update(range(int(words[1]), int(words[2]) + 1))
            else:
                assert int(words[0]) not in done, "a seq was given out twice"
                assert int(words[0]) > last_known
                last_known = int(words[0])
                done[int(words[0])] = int(words[1])

        box = opened(path)
        present = {e.seq: codec.decode(e.body, Inspection) for b in drained(box, Lane.INSPECTIONS) for e in b.entries}
        missing = set(done) - set(present) - gone
        assert not missing, f"done but not in the file: {sorted(missing)[:5]}"
        assert box.last_trigger("s1") == (
            "r",
            max([*done.values(), *(p.trigger_sequence or 0 for p in present.values())]),
        )
        written = max([*done, *present])
        counts = Tally(
            dict(box._rows._connection.execute("SELECT verdict, sum(count) FROM counter GROUP BY verdict").fetchall())
        )
        assert counts == {"OK": written}, "counters and records differ"
        for seq, record in present.items():  # some were handed over, but the child was killed before it could say so
            done.setdefault(seq, record.trigger_sequence or 0)
        assert sorted(done) == list(range(1, written + 1))
        last_known = written
        box.close()
    assert len(done) > 100, "the child was killed before it did anything"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(1, 5)),
            st.tuples(st.just("send"), st.integers(300, 3000)),
            st.tuples(st.just("settle"), st.tuples(st.integers(1, 40), st.integers(0, 10))),
            st.tuples(st.just("wait"), st.sampled_from([1, 11, 61])),
            st.tuples(st.just("reconnect"), st.just(0)),
            st.tuples(st.just("restart"), st.just(0)),
        ),
        max_size=25,
    )
)
def test_in_any_order_of_events_every_record_is_either_settled_or_still_comes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "o.db"
    clock = FakeClock()
    box = opened(path, clock)
    put: set[int] = set()
    gone: set[int] = set()
    for name, value in steps:
        if name == "put":
            put.update(box.put(Lane.EVENTS, event(f"n{n}")) for n in range(int(str(value))))
        elif name == "send":
            durable(box)
            if (batch := box.next_batch(Lane.EVENTS, int(str(value)))) is not None:
                assert not set(seqs([batch])) & gone, "a settled record was sent"
        elif name == "settle":
            assert isinstance(value, tuple)
            wanted = set(range(value[0], value[0] + value[1] + 1))
            removed = box.settle(box.epoch, Lane.EVENTS, [SeqRange(first=value[0], last=value[0] + value[1])])
            assert removed == len(wanted & (put - gone))
            gone |= wanted & put
        elif name == "wait":
            clock.advance(int(str(value)))
        elif name == "reconnect":
            box.unsend_all()
        else:
            box.close()
            box = opened(path, clock)
        assert box.stats().unsettled == len(put - gone)
    clock.advance(1000)
    durable(box)
    came = []
    while (batch := box.next_batch(Lane.EVENTS, MUCH)) is not None:
        came += seqs([batch])
        settled(box, batch)
    assert sorted(came) == sorted(put - gone)
    assert box.stats().unsettled == 0
    box.close()


def test_the_time_of_a_record_with_a_wrong_clock_is_no_reason_to_lose_it(outbox: Outbox) -> None:
    for at in (datetime(1970, 1, 1, 0, 0, 30, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)):
        outbox.put_inspection(records.inspection(judged_at=at), line_run=None)
    outbox.emit_counters()
    assert sorted(c.minute.year for c in counters_of(drained(outbox, Lane.COUNTERS))) == [1970, 2036]


def test_an_outbox_of_an_earlier_version_gains_the_lanes_that_came_later(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    box = opened(path)
    epoch, kept = box.epoch, box.put(Lane.EVENTS, event())
    box.close()
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM lane WHERE number = (SELECT max(number) FROM lane)")
    file.close()
    box = opened(path)
    assert box.epoch == epoch
    assert seqs(drained(box, Lane.EVENTS)) == [kept]
    pair = codec.decode((REPO / "tests/contract/vectors/shadow-pair/good-least.json").read_bytes(), ShadowPair)
    assert box.put(Lane.SHADOW, pair) == 1
    box.close()


def test_a_lane_missing_among_the_others_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    box = opened(path)
    epoch = box.epoch
    box.close()
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM lane WHERE number = 3")
    file.close()
    box = opened(path)
    assert box.epoch != epoch
    box.close()
