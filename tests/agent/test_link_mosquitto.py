"""The link carries the outbox through a real mosquitto to rows: once each, through kills, losses and repetitions."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.uplink.dispatch import BEHIND_WINDOW
from agent.uplink.link import PROTOCOL_MARK, WINDOW
from agent.uplink.outbox import Outbox
from tests.support import brokers, records
from tests.support.brokers import RunningBroker
from tests.support.fake_fleet import FakeFleet
from tests.support.link_side import DEVICE, device, until
from wire import topics
from wire.messages import Batch, Command, CommandName, Event, Lane, Reported, RunningModel, Severity

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[RunningBroker]:
    broker = brokers.mosquitto(tmp_path).start()
    yield broker
    broker.stop()


def reported(revision: int = 0) -> Reported:
    return Reported(
        desired_revision=revision,
        agent_version="0",
        runtime_version="0",
        architecture="x86_64",
        models=(RunningModel(model="parts", digest=records.DIGEST),),
    )


def test_records_become_rows_once_and_the_outbox_empties(tmp_path: Path, mosquitto: RunningBroker) -> None:
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto) as side:
        side.inspect(200)
        side.outbox.emit_counters()
        side.outbox.put(Lane.EVENTS, Event(at=records.NOON, name="a.b_c", severity=Severity.NOTE, text=""))
        until(lambda: side.outbox.stats().unsettled == 0)
        assert fleet.seqs() == set(range(1, 201))
        assert fleet.seqs(Lane.EVENTS) == {1}
        assert max(fleet.deliveries.values()) == 1, "something was sent twice for no reason"
        assert side.link.protocol == "5"
        assert side.link.counts().records_settled == len(fleet.rows)


def test_lost_and_repeated_answers_lose_nothing_and_repeat_no_row(tmp_path: Path, mosquitto: RunningBroker) -> None:
    with (
        FakeFleet(mosquitto, lose=0.4, repeat=0.5) as fleet,
        device(tmp_path, mosquitto, resend_after_s=0.2) as side,
    ):
        side.inspect(120, pause_s=0.01)
        until(lambda: side.outbox.stats().unsettled == 0)
        assert fleet.seqs() == set(range(1, 121))
        assert max(fleet.deliveries.values()) > 1, "no answer was lost: the test shows nothing"


def test_a_silent_fleet_gets_at_most_the_window_and_then_everything(tmp_path: Path, mosquitto: RunningBroker) -> None:
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto, resend_after_s=60, start=False) as side:
        fleet.answering = False
        for _ in range(6):
            side.inspect(1000)
        side.outbox.emit_counters()
        side.link.start()
        until(lambda: len(fleet.arrivals) > BEHIND_WINDOW)
        time.sleep(1.0)
        lanes = [batch.lane for _, batch in fleet.arrivals]
        assert lanes.count(Lane.INSPECTIONS) == BEHIND_WINDOW, "the backlog takes the place of live records"
        assert lanes.count(Lane.COUNTERS) == 1, "a backlog of inspections holds up the counters"

        def sent() -> int:
            return [batch.lane for _, batch in fleet.arrivals].count(Lane.INSPECTIONS)

        for n in range(6001, 6013):  # one batch each, while there is room for it
            before = sent()
            side.outbox.put_inspection(records.inspection(sequence=n), line_run="run7")
            if before < WINDOW[Lane.INSPECTIONS]:
                until(lambda before=before: sent() == before + 1)  # type: ignore[misc]
        time.sleep(0.5)  # for those that must not come
        lanes = [batch.lane for _, batch in fleet.arrivals]
        assert lanes.count(Lane.INSPECTIONS) == WINDOW[Lane.INSPECTIONS] <= 20
        fleet.answering = True
        fleet.host("00000000-0000-7000-8000-000000000001")  # the first word of a host means nothing new
        fleet.host("00000000-0000-7000-8000-000000000002")
        until(lambda: side.outbox.stats().unsettled == 0)
        assert fleet.seqs() == set(range(1, 6013))


def test_live_records_arrive_at_once_while_a_long_outage_is_caught_up(tmp_path: Path, mosquitto: RunningBroker) -> None:
    with (
        FakeFleet(mosquitto, delay_s=0.15) as fleet,
        device(tmp_path, mosquitto, resend_after_s=10, start=False) as side,
    ):
        side.inspect(20_000)
        side.link.start()
        until(lambda: side.link.connected and fleet.arrivals)
        waits = []
        for n in range(20_001, 20_007):
            start = time.monotonic()
            seq = side.outbox.put_inspection(records.inspection(sequence=n), line_run="run7")
            fleet.wait(lambda f, seq=seq: seq in f.seqs())
            waits.append(time.monotonic() - start)
            assert side.outbox.stats().unsettled > 100, "the backlog was gone too soon: the test shows nothing"
        # What is on its way already is before them, and nothing else of the outage.
        assert max(waits) < (BEHIND_WINDOW + 2) * fleet.delay_s + 1, f"live records waited {waits} s"
        fleet.delay_s = 0
        until(lambda: side.outbox.stats().unsettled == 0, timeout_s=60)
        assert fleet.seqs() == set(range(1, 20_007))
        assert max(fleet.deliveries.values()) == 1, "something was sent twice for no reason"


def test_ingest_that_began_anew_gets_at_once_what_it_did_not_confirm(tmp_path: Path, mosquitto: RunningBroker) -> None:
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto, resend_after_s=60) as side:
        fleet.host("00000000-0000-7000-8000-00000000000a")
        until(lambda: side.link._host_boot is not None)
        fleet.answering = False
        side.inspect(10)
        until(lambda: sum(len(batch.entries) for _, batch in fleet.arrivals) == 10)
        fleet.answering = True
        fleet.host("00000000-0000-7000-8000-00000000000b")
        until(lambda: side.outbox.stats().unsettled == 0, timeout_s=5)
        assert fleet.seqs() == set(range(1, 11))


def test_refused_records_are_settled_and_counted(
    tmp_path: Path, mosquitto: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeFleet(mosquitto, refuse=frozenset({3, 4})) as fleet, device(tmp_path, mosquitto) as side:
        side.inspect(6)
        until(lambda: side.outbox.stats().unsettled == 0)
        assert fleet.seqs() == {1, 2, 5, 6}
        assert side.link.counts().records_refused == 2
        assert any(getattr(r, "event", "") == "link.records_refused" for r in caplog.records)


def test_the_broker_killed_again_and_again_costs_nothing(tmp_path: Path, mosquitto: RunningBroker) -> None:
    draw = random.Random(11)
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto, resend_after_s=0.5) as side:
        done = 0
        for _ in range(5):
            until(lambda: side.link.connected)
            side.inspect(30, pause_s=0.004, start=done + 1)
            mosquitto.kill()
            side.inspect(10, pause_s=draw.uniform(0, 0.02), start=done + 31)
            done += 40
            mosquitto.start()
        until(lambda: side.outbox.stats().unsettled == 0, timeout_s=40)
        assert fleet.seqs() == set(range(1, done + 1))
        assert side.link.counts().connections >= 5


def test_a_broker_that_swallows_everything_is_left_and_nothing_is_lost(
    tmp_path: Path, mosquitto: RunningBroker
) -> None:
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto, keepalive_s=1, connect_timeout_s=0.5) as side:
        side.inspect(5)
        until(lambda: side.outbox.stats().unsettled == 0)
        mosquitto.pause()
        side.inspect(20, start=6)
        until(lambda: not side.link.connected, timeout_s=10)
        mosquitto.resume()
        until(lambda: side.outbox.stats().unsettled == 0)
        assert fleet.seqs() == set(range(1, 26))


def test_birth_will_and_leave_are_told_apart_by_boot_and_revision(tmp_path: Path, mosquitto: RunningBroker) -> None:
    with FakeFleet(mosquitto) as fleet:
        with device(tmp_path, mosquitto, boot=7) as side:
            fleet.wait(lambda f: f.states)
            side.link.set_reported(reported(3))
            fleet.wait(lambda f: f.states[-1].reported is not None)
            mosquitto.kill()
            mosquitto.start()
            fleet.wait(lambda f: len(f.states) >= 3 and f.states[-1].online)
            assert fleet.states[-1].reported == reported(3), "a new birth lacks the reported document"
            until(lambda: side.link.connected)
        fleet.wait(lambda f: not f.states[-1].online)
    assert {state.boot for state in fleet.states} == {7}
    revisions = [state.revision for state in fleet.states]
    assert revisions == sorted(set(revisions)), "an older state could pass for a newer one"


_CHILD = """
import sys, time
from pathlib import Path
from agent.clock import SystemClock
from agent.uplink.link import Link, LinkSettings
from agent.uplink.dispatch import BEHIND_WINDOW
from agent.uplink.outbox import Outbox
from tests.support import records
box = Outbox(Path(sys.argv[1]), SystemClock(), device="cell-1", resend_after_s=0.5)
boot = int(box.meta_get("boot") or 0) + 1
box.meta_set("boot", str(boot))
settings = LinkSettings(device="cell-1", host="127.0.0.1", port=int(sys.argv[2]), boot=boot, reconnect_most_s=0.3)
link = Link(settings, box, SystemClock(), on_wake=lambda: None, on_command=lambda command: None)
link.start()
first = (box.last_trigger("s1") or ("r", 0))[1] + 1
for n in range(first, first + 100000):
    box.put_inspection(records.inspection(sequence=n), line_run="r")
    print(n, flush=True)
    if n % 25 == 0:
        box.emit_counters()
    time.sleep(0.003)
"""


def test_the_agent_killed_again_and_again_loses_and_repeats_no_row(tmp_path: Path, mosquitto: RunningBroker) -> None:
    draw = random.Random(3)
    path = tmp_path / "outbox.db"
    triggers: list[int] = []
    with FakeFleet(mosquitto, lose=0.1) as fleet:
        for kill in range(6):
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(path), str(mosquitto.port)],
                stdout=subprocess.PIPE,
                cwd=REPO,
                text=True,
            )
            assert child.stdout is not None
            assert child.stdout.readline()
            fleet.wait(lambda f, boot=kill + 1: any(s.boot == boot and s.online for s in f.states))
            time.sleep(draw.uniform(0.0, 0.4))
            child.send_signal(signal.SIGKILL)
            child.stdout.read()
            child.wait(10)
            fleet.wait(lambda f, boot=kill + 1: (f.states[-1].boot, f.states[-1].online) == (boot, False))
        with device(tmp_path, mosquitto, boot=99) as side:
            last = side.outbox.last_trigger("s1")
            assert last is not None
            side.outbox.emit_counters()
            until(lambda: side.outbox.stats().unsettled == 0)
        from wire import codec
        from wire.inspection import Inspection
        from wire.messages import Counter

        ids = set()
        for (_, _, lane, _), body in fleet.rows.items():
            if lane is Lane.INSPECTIONS:
                record = codec.decode(body, Inspection)
                ids.add(record.id)
                triggers.append(record.trigger_sequence or 0)
        assert sorted(triggers) == list(range(1, last[1] + 1)), "a trigger has no row, or two"
        assert len(ids) == len(triggers)
        counts: dict[tuple[object, ...], int] = {}
        for (_, epoch, lane, _), body in fleet.rows.items():
            if lane is Lane.COUNTERS:
                cell = codec.decode(body, Counter)
                key = (epoch, cell.minute, cell.station, cell.verdict)
                counts[key] = max(counts.get(key, 0), cell.count)
        assert sum(counts.values()) == len(triggers), "counters and rows differ"


def test_commands_are_done_once_and_not_after_their_time(tmp_path: Path, mosquitto: RunningBroker) -> None:
    def command(seconds: float) -> Command:
        return Command(
            id=records.MINT.uuid7(),
            name=CommandName.SEND_HEALTH,
            expires_at=datetime.now(UTC) + timedelta(seconds=seconds),
        )

    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto) as side:
        fleet.wait(lambda f: f.states)
        good, late = command(30), command(-1)
        for wanted in (late, good, good):
            fleet.command(DEVICE, wanted)
        fleet.wake(DEVICE)
        until(lambda: side.wakes)
        assert side.commands == [good]
        assert side.link.counts().commands_expired == 1


def test_rubbish_from_above_is_counted_and_logged_once_per_kind(
    tmp_path: Path, mosquitto: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto) as side:
        fleet.wait(lambda f: f.states)
        rubbish = [b"", b"{", b"[" * 4000, b"\xff" * 10, b'{"schema":9}', b"x\x9c broken", b'{"epoch":1}']
        for payload in rubbish * 2:
            fleet.raw(topics.path("ack", DEVICE), payload)
        fleet.raw(topics.path("wake", DEVICE), b" " * 2000)
        fleet.raw(topics.path("ack", DEVICE).replace("/ack", "/nonsense"), b"{}")
        fleet.raw(topics.HOST, b"nonsense")
        until(lambda: side.link.counts().undecodable == 2 * len(rubbish) + 3)
        side.inspect(1)
        until(lambda: side.outbox.stats().unsettled == 0)
        assert side.link.counts().failures == 0
        assert sum(getattr(r, "event", "") == "link.message_refused" for r in caplog.records) == 4


def test_a_publish_that_the_broker_refuses_is_kept_and_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    acl = tmp_path / "acl"
    acl.write_text(f"topic readwrite #\ntopic deny {topics.path('inspections', DEVICE)}\n")
    broker = brokers.mosquitto(tmp_path, extra=f"acl_file {acl}\n").start()
    try:
        with FakeFleet(broker) as fleet, device(tmp_path, broker, refused_hold_s=3.0) as side:
            side.inspect(3)
            side.outbox.emit_counters()
            until(lambda: side.link.counts().publishes_refused)
            until(lambda: fleet.seqs(Lane.COUNTERS) == {1})
            time.sleep(0.3)
            assert side.link.counts().publishes_refused == 1, "a refused lane is not held"
            assert side.outbox.stats().unsettled_by_lane[Lane.INSPECTIONS] == 3
            assert any(getattr(r, "event", "") == "link.publish_refused" for r in caplog.records)
            assert [(name, severity) for name, severity, _ in side.told] == [("link.publish_refused", Severity.ALARM)]
            acl.write_text("topic readwrite #\n")
            broker_reload(broker)
            until(lambda: side.outbox.stats().unsettled == 0)
            assert fleet.seqs() == {1, 2, 3}
    finally:
        broker.stop()


def broker_reload(broker: RunningBroker) -> None:
    assert broker._process is not None
    broker._process.send_signal(signal.SIGHUP)


@pytest.mark.parametrize("remembered", [False, True])
def test_an_old_broker_is_spoken_to_in_its_own_version_and_that_is_remembered(
    tmp_path: Path, remembered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broker = brokers.amqtt(tmp_path).start()
    try:
        if remembered:
            with closing(Outbox(tmp_path / "outbox.db", SystemClock(), device=DEVICE)) as earlier:
                earlier.meta_set(PROTOCOL_MARK, "3.1.1")
        with FakeFleet(broker) as fleet, device(tmp_path, broker, start=False) as side:
            side.link.start()
            side.inspect(20)
            until(lambda: side.outbox.stats().unsettled == 0)
            refused = [one.getMessage() for one in caplog.records if getattr(one, "event", "") == "link.unreachable"]
            assert len(refused) == (0 if remembered else 1), "the broker's version was found out once more"
            assert fleet.seqs() == set(range(1, 21))
            assert side.link.protocol == "3.1.1"
            assert side.outbox.meta_get(PROTOCOL_MARK) == "3.1.1"
    finally:
        broker.stop()


def test_without_a_broker_the_link_waits_says_so_once_and_stops_at_once(
    tmp_path: Path, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = RunningBroker([], free_port, tmp_path)
    with device(tmp_path, nowhere) as side:
        side.inspect(5)
        time.sleep(1.0)
        assert not side.link.connected
        start = time.monotonic()
        side.link.stop(5)
        assert time.monotonic() - start < 1.0
        assert side.outbox.stats().unsettled == 5
    assert sum(getattr(r, "event", "") == "link.unreachable" for r in caplog.records) == 1


def test_batches_that_are_sent_hold_one_lane_and_this_device(tmp_path: Path, mosquitto: RunningBroker) -> None:
    with FakeFleet(mosquitto) as fleet, device(tmp_path, mosquitto) as side:
        side.inspect(3)
        fleet.wait(lambda f: f.rows)
        batches: list[Batch] = [batch for _, batch in fleet.arrivals]
        assert {batch.device for batch in batches} == {DEVICE}
        assert {batch.epoch for batch in batches} == {side.outbox.epoch}
