"""Ingest end to end: a real mosquitto, a real SQLite file, and a device that believes only acknowledgements."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from fleet import db
from fleet.absorb import Absorbed
from fleet.ingest.route import Standing
from fleet.ingest.worker import Ingest
from tests.support import records
from tests.support.fake_device import FakeDevice
from tests.support.ingest_stand import Stand, stand
from wire import codec, topics
from wire.messages import Lane, State


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stand]:
    with stand(tmp_path) as made:
        yield made


def _sequences(here: Stand) -> list[int]:
    return [seq for (seq,) in here.rows("SELECT seq FROM inspection ORDER BY seq")]


def test_every_record_becomes_one_row_and_is_acknowledged(here: Stand) -> None:
    sent = [records.inspection(sequence=number) for number in range(1, 101)]
    with here.ingest() as ingest, FakeDevice("cell-1", here.broker.address) as device:
        for start in range(0, 100, 10):
            entries = [records.entry(start + n + 1, sent[start + n]) for n in range(10)]
            device.send("inspections", records.batch(*entries))
        device.wait(lambda one: one.settled() == set(range(1, 101)))
        status = ingest.status()
    assert _sequences(here) == list(range(1, 101))
    (record,) = here.rows("SELECT record FROM inspection WHERE seq = 42")[0]
    assert codec.decode(record.encode(), type(sent[41])) == sent[41]
    assert (status["accepted"], status["duplicate"], status["refused"]) == (100, 0, 0)


def test_duplicated_and_reordered_batches_are_rows_once_and_acknowledged_every_time(here: Stand) -> None:
    batches = [
        records.batch(*(records.entry(10 * n + k, records.inspection(sequence=10 * n + k)) for k in range(1, 11)))
        for n in range(10)
    ]
    shuffled = batches * 3
    random.Random(4).shuffle(shuffled)
    with here.ingest() as ingest, FakeDevice("cell-1", here.broker.address) as device:
        for payload in shuffled:
            device.send("inspections", payload)
        device.wait(lambda _: ingest.status()["messages"] == 30)
        device.wait(lambda one: one.settled() == set(range(1, 101)))
        assert ingest.status()["accepted"] == 300
        assert ingest.status()["duplicate"] == 200
    assert _sequences(here) == list(range(1, 101))


def test_a_record_of_another_device_is_refused_and_changes_nothing(here: Stand) -> None:
    mine = records.inspection(device="cell-1", part_id="mine")
    with (
        here.ingest(),
        FakeDevice("cell-1", here.broker.address) as first,
        FakeDevice("cell-2", here.broker.address) as second,
    ):
        first.send("inspections", records.batch(records.entry(1, mine)))
        first.wait(lambda one: one.settled() == {1})
        stolen_id = records.inspection(device="cell-2", id=mine.id, part_id="stolen")
        in_my_name = records.inspection(device="cell-1", part_id="in my name")
        own = records.inspection(device="cell-2", part_id="own")
        second.send(
            "inspections",
            records.batch(
                records.entry(1, stolen_id), records.entry(2, in_my_name), records.entry(3, own), device="cell-2"
            ),
        )
        second.wait(lambda one: one.settled() == {3} and len(one.refused()) == 2)
        assert second.refused() == {1: "message.foreign_id", 2: "message.foreign_id"}
    assert here.rows("SELECT device, part_id FROM inspection ORDER BY id") == [("cell-1", "mine"), ("cell-2", "own")]
    assert here.rows("SELECT device, code, first_seq FROM quarantine ORDER BY first_seq") == [
        ("cell-2", "message.foreign_id", 1),
        ("cell-2", "message.foreign_id", 2),
    ]


def test_undecodable_entries_are_settled_as_refused_and_the_good_ones_beside_them_stand(here: Stand) -> None:
    payload = records.batch(
        records.entry(1, records.inspection()),
        records.entry(2, b'{"id":"?"}'),
        records.entry(3, b"[]"),
        records.entry(4, records.inspection()),
    )
    with here.ingest(), FakeDevice("cell-1", here.broker.address) as device:
        for _ in range(3):  # a device that sends again makes no more rows of it
            device.send("inspections", payload)
        device.send("inspections", b"rubbish")
        device.send("inspections", records.batch(records.entry(5, records.inspection())))
        device.wait(lambda one: one.settled() == {1, 4, 5} and set(one.refused()) == {2, 3})
    assert _sequences(here) == [1, 4, 5]
    kept = here.rows("SELECT first_seq, last_seq, code, times FROM quarantine ORDER BY row")
    assert kept == [(2, 3, "message.undecodable", 3), (None, None, "message.undecodable", 1)]


def test_a_revoked_device_is_refused_in_words(here: Stand) -> None:
    payload = records.batch(records.entry(1, records.inspection(device="cell-9")), device="cell-9")
    with here.ingest(), FakeDevice("cell-9", here.broker.address) as device:
        device.send("inspections", payload)
        device.wait(lambda one: one.refused() == {1: "device.revoked"})
    assert _sequences(here) == []
    assert here.rows("SELECT device, code FROM quarantine") == [("cell-9", "device.revoked")]


def test_what_an_unknown_device_sends_stays_with_it_until_it_is_known(here: Stand) -> None:
    """As after an older database was restored: refused, its records would be gone for ever."""
    first = records.batch(*(records.entry(n, records.inspection("new", n)) for n in (4, 5)), device="new")
    second = records.batch(*(records.entry(n, records.inspection("new", n)) for n in (6, 7, 8)), device="new")
    with here.ingest() as ingest, FakeDevice("new", here.broker.address) as device:
        for _ in range(3):
            device.send("inspections", first)
            device.send("inspections", second)
        device.wait(lambda _: ingest.status()["held"] == 6)
        assert (device.acks, _sequences(here)) == ([], [])
        kept = here.rows("SELECT device, code, first_seq, last_seq, times FROM quarantine")
        assert kept == [("new", "message.unknown_device", 4, 8, 6)], "one row, however often it comes"
        here.standings["new"] = Standing.KNOWN
        device.send("inspections", first)
        device.send("inspections", second)
        device.wait(lambda one: one.settled() == {4, 5, 6, 7, 8})
    assert _sequences(here) == [4, 5, 6, 7, 8]


def test_large_batches_with_repetitions_inside_are_rows_once(here: Stand) -> None:
    """More than one statement's worth of rows, some of them twice in the same transaction."""
    made = {n: records.inspection(sequence=n) for n in range(1, 451)}
    parts = [[n for n in made if n % 3 == k] for k in range(3)]
    with here.ingest(window_s=0.3) as ingest, FakeDevice("cell-1", here.broker.address) as device:
        for part in [*parts, parts[1]]:
            device.send("inspections", records.batch(*(records.entry(n, made[n]) for n in part)))
        device.wait(lambda _: ingest.status()["messages"] == 4)
        assert (ingest.status()["accepted"], ingest.status()["duplicate"]) == (600, 150)
        device.wait(lambda one: one.settled() == set(made))
    assert _sequences(here) == sorted(made)


def test_records_are_kept_as_the_device_wrote_them(here: Stand) -> None:
    plain = codec.encode(records.inspection(sequence=1))
    newer = plain[:-1] + b',"invented_later":{"depth_um":[1.5,2]}}'
    broken = codec.encode(records.inspection(sequence=2))[:-1] + b',"invented_later":"\xff"}'
    with here.ingest(), FakeDevice("cell-1", here.broker.address) as device:
        device.send("inspections", records.batch(records.entry(1, newer), records.entry(2, broken)))
        device.wait(lambda one: one.settled() == {1, 2})
    (first,), (second,) = here.rows("SELECT record FROM inspection ORDER BY seq")
    assert first.encode() == newer
    assert "invented_later" not in second, "what is no text is left out"


def test_counters_only_grow_whatever_the_order(here: Stand) -> None:
    with here.ingest(), FakeDevice("cell-1", here.broker.address) as device:
        for seq, count in enumerate([3, 9, 5], start=1):
            device.send("counters", records.batch(records.entry(seq, records.counter(count)), lane=Lane.COUNTERS))
        device.wait(lambda one: one.settled() == {1, 2, 3})
    assert here.rows("SELECT count FROM counter_cell") == [(9,)]


def test_states_go_to_their_slice_and_wakes_to_their_device(here: Stand) -> None:
    state = State(device="cell-1", boot=4, revision=1, online=True)
    with here.ingest() as ingest, FakeDevice("cell-1", here.broker.address) as device:
        device.send("state", codec.encode(state))
        ingest.wake("cell-1", 7)
        device.wait(lambda one: one.wakes and here.states)
        assert [wake.desired_revision for wake in device.wakes] == [7]
    assert here.states == [state]


def test_each_start_announces_itself_with_a_new_boot_id_and_says_when_it_goes(here: Stand) -> None:
    with FakeDevice("cell-1", here.broker.address) as device:
        for _ in range(2):
            with here.ingest():
                device.wait(lambda one: one.hosts and one.hosts[-1].online)
            device.wait(lambda one: not one.hosts[-1].online)
        assert len({state.boot for state in device.hosts}) == 2


def test_nothing_is_acknowledged_before_the_commit_and_a_restart_takes_it_once(here: Stand) -> None:
    """Ingest ends with a full transaction in hand: the device hears nothing, sends again, and is stored once."""
    payload = records.batch(*(records.entry(n, records.inspection(sequence=n)) for n in range(1, 21)))
    real = here.lanes[Lane.INSPECTIONS]

    class FailsAfterTheInsert:
        def absorb(self, session: Session, messages: Any) -> Absorbed:
            real.absorb(session, messages)
            raise OperationalError("INSERT", {}, Exception("database is locked"))

    here.lanes[Lane.INSPECTIONS] = FailsAfterTheInsert()
    with FakeDevice("cell-1", here.broker.address) as device:
        with here.ingest() as ingest:
            device.send("inspections", payload)
            device.wait(lambda _: ingest.status()["retries"] >= 2)
        assert device.acks == []
        assert _sequences(here) == []
        here.lanes[Lane.INSPECTIONS] = real
        with here.ingest():
            device.send("inspections", payload)
            device.send("inspections", payload)
            device.wait(lambda one: one.settled() == set(range(1, 21)))
    assert _sequences(here) == list(range(1, 21))


def test_a_database_in_use_by_another_delays_the_acknowledgement_and_loses_nothing(
    here: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_MS", 100)
    here.engine.dispose()  # connections made from here on give up sooner
    with here.ingest(capacity=50) as ingest, FakeDevice("cell-1", here.broker.address) as device:
        with db.write_session(here.engine) as session:
            session.connection().exec_driver_sql("DELETE FROM quarantine")  # takes the writer's lock
            for n in range(1, 1301):
                device.send("inspections", records.batch(records.entry(n, records.inspection(sequence=n))))
            device.wait(lambda _: ingest.status()["retries"] >= 1)
            assert device.acks == []
            assert ingest.status()["waiting"] <= 50 + 200, "the queue stays near its bound"
        device.wait(lambda one: one.settled() == set(range(1, 1301)), timeout_s=30)
    assert _sequences(here) == list(range(1, 1301))


def test_a_record_no_slice_can_digest_harms_no_other_and_stays_with_its_device(here: Stand) -> None:
    real = here.lanes[Lane.INSPECTIONS]

    class Chokes:
        def absorb(self, session: Session, messages: Any) -> Absorbed:
            absorbed = real.absorb(session, messages)
            if any(message.seq == 3 for message in messages):
                raise ZeroDivisionError("a fault of ours")
            return absorbed

    here.lanes[Lane.INSPECTIONS] = Chokes()
    payload = records.batch(*(records.entry(n, records.inspection(sequence=n)) for n in range(1, 6)))
    with here.ingest() as ingest, FakeDevice("cell-1", here.broker.address) as device:
        device.send("inspections", payload)
        device.wait(lambda one: one.settled() == {1, 2, 4, 5})
        assert device.refused() == {}
        assert ingest.status()["failed"] == 1
    assert _sequences(here) == [1, 2, 4, 5]
    assert here.rows("SELECT code, first_seq FROM quarantine") == [("internal.unexpected", 3)]


def test_kill_9_of_the_broker_loses_nothing_and_doubles_nothing(here: Stand) -> None:
    generator = random.Random(11)
    sent = {n: records.inspection(sequence=n) for n in range(1, 301)}
    with here.ingest() as ingest, FakeDevice("cell-1", here.broker.address) as device:
        deadline, killed, sent_last = time.monotonic() + 60, 0, 0.0
        while len(device.settled()) < len(sent):
            assert time.monotonic() < deadline, f"{len(device.settled())} of {len(sent)} settled"
            pid = here.broker.pid
            if killed < 3 and pid is not None and len(device.settled()) >= 50 * (killed + 1):
                os.kill(pid, signal.SIGKILL)
                killed += 1
                assert ingest.wait_connected(20)
            if time.monotonic() - sent_last > 0.3:  # as an outbox does: what is not acknowledged is sent again
                open_ = [n for n in sent if n not in device.settled()][:100]
                generator.shuffle(open_)
                for n in open_:
                    device.send("inspections", records.batch(records.entry(n, sent[n])))
                sent_last = time.monotonic()
            time.sleep(0.02)
        assert killed == 3
    assert _sequences(here) == sorted(sent)


def test_messages_without_mqtt_acknowledgement_and_on_foreign_topics_do_no_harm(here: Stand) -> None:
    with here.ingest(), FakeDevice("cell-1", here.broker.address) as device:
        device.publish(topics.path("inspections", "cell-1"), b"x", qos=0)
        device.publish("lineside/v1/zz/cell-1/up/inspections", b"{}")
        device.publish(topics.path("inspections", "cell-1"), b"")
        device.send("inspections", records.batch(records.entry(1, records.inspection())))
        device.wait(lambda one: one.settled() == {1})
    assert len(here.rows("SELECT 1 FROM quarantine")) == 2


def test_the_embedded_broker_carries_the_same_and_a_kill_of_it_costs_only_time(tmp_path: Path) -> None:
    with (
        stand(tmp_path, "embedded") as here,
        here.ingest() as ingest,
        FakeDevice("cell-1", here.broker.address, protocol=4) as device,
    ):
        device.send("inspections", records.batch(records.entry(1, records.inspection(sequence=1))))
        device.wait(lambda one: one.settled() == {1})
        ingest.wake("cell-1", 3)
        device.wait(lambda one: one.wakes)
        pid, boots = here.broker.pid, len(device.hosts)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        device.wait(lambda one: len(one.hosts) > boots and one.hosts[-1].online, timeout_s=30)
        device.send("inspections", records.batch(records.entry(2, records.inspection(sequence=2))))
        device.wait(lambda one: one.settled() == {1, 2})
        assert _sequences(here) == [1, 2]


def test_a_broker_that_says_nothing_to_mqtt_5_is_spoken_to_in_the_older_version(tmp_path: Path) -> None:
    with stand(tmp_path, "embedded") as here:
        ingest = Ingest(here.engine, here.broker.address, "auto", fleet_seams=here.seams())
        ingest.start()
        try:
            assert ingest.wait_connected(15)
            with FakeDevice("cell-1", here.broker.address, protocol=4) as device:
                device.send("inspections", records.batch(records.entry(1, records.inspection())))
                device.wait(lambda one: one.settled() == {1})
        finally:
            ingest.stop()
