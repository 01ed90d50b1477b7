"""When the fleet gives a deployment up: a table of cases, and the ticker over a real database and a test clock."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from fleet import db
from fleet.deployments import ticker
from fleet.deployments.reports import ReportSlice
from fleet.deployments.timeouts import Limits, TimedOut, Waiting, Waits, judge
from fleet.devices import service as devices
from fleet.devices.service import absorb_state
from fleet.ingest import beat, listening, shards
from fleet.ingest.beat import Beat
from fleet.ingest.listening import Listening
from fleet.ingest.tables import IngestWorkerRow
from fleet.inspections import moments
from tests.support.fleet_stand import START, Stand
from wire import codec
from wire.deployment import DeploymentReport, DeploymentState, Hold, HoldReason, Origin
from wire.messages import Lane, State

S = DeploymentState
LIMITS = Limits()
HEARD = Listening(since=START, resumed_at=START, heard_at=START)
QUEUED = Waiting(
    state=S.QUEUED,
    created_at=START,
    heard_at=START,
    hold_until=None,
    last_seen_at=START,
    online_since=START,
    listening=HEARD,
)


def day(days: float) -> datetime:
    return START + timedelta(days=days)


def since(days: float, resumed: float | None = None) -> Listening:
    return Listening(since=day(days), resumed_at=day(days if resumed is None else resumed), heard_at=day(days))


@pytest.mark.parametrize(
    ("waiting", "now", "words"),
    [
        (QUEUED, day(2.9), None),
        (QUEUED, day(3), "never took it up. It has not said that it has read the document."),
        (replace(QUEUED, read=True), day(3), "never took it up. It has read the document."),
        # it went offline and came back just now: it gets its time
        (replace(QUEUED, online_since=day(9)), day(10), None),
        (replace(QUEUED, online_since=None), day(13.9), None),
        (replace(QUEUED, online_since=None, last_seen_at=day(1)), day(14), "has been offline since 2026-03-02"),
        (replace(QUEUED, online_since=None, last_seen_at=None), day(14), "was never seen; it never was taken up."),
        (replace(QUEUED, behind_local=True), day(13), None),
        (replace(QUEUED, behind_local=True), day(14), "although the device is connected"),
        (replace(QUEUED, state=S.DOWNLOADING), day(13.9), None),
        (replace(QUEUED, state=S.DOWNLOADING), day(14), "although the device is connected; it was downloading."),
        (replace(QUEUED, state=S.STAGED, hold_until=day(8)), day(21.9), None),
        (replace(QUEUED, state=S.STAGED, hold_until=day(8)), day(22), "it was staged."),
        # a hold for ever is the word of a wrong clock
        (replace(QUEUED, state=S.STAGED, hold_until=day(20_000)), day(73.9), None),
        (replace(QUEUED, state=S.STAGED, hold_until=day(20_000)), day(74), "it was staged."),
        (replace(QUEUED, state=S.PROBATION, heard_at=day(10)), day(23.9), None),
        # the fleet was deaf itself: all waiting begins anew, and after a short gap it hears what has waited first
        (replace(QUEUED, listening=since(2)), day(4.9), None),
        (replace(QUEUED, listening=since(2)), day(5), "was connected since 2026-03-03 12:00 UTC and never took it up"),
        (replace(QUEUED, listening=since(0, resumed=3)), day(3.006), None),
        (replace(QUEUED, listening=since(0, resumed=3)), day(3.007), "was connected since 2026-03-01 12:00 UTC"),
        (replace(QUEUED, state=S.STAGED, listening=since(12)), day(25.9), None),
        (replace(QUEUED, state=S.STAGED, listening=since(12)), day(26), "Nothing was heard of it for 14 days"),
        (replace(QUEUED, state=S.STAGED, listening=since(0, resumed=14)), day(14.006), None),
    ],
)
def test_the_fleet_gives_up_only_what_nothing_can_explain(waiting: Waiting, now: datetime, words: str | None) -> None:
    found = judge(waiting, LIMITS, now)
    if words is None:
        assert isinstance(found, Waits), found
        assert found.until is not None
        assert found.until > now
        assert isinstance(judge(waiting, LIMITS, found.until), TimedOut), "it says when it gives up"
    else:
        assert isinstance(found, TimedOut)
        assert words in found.reason


def test_an_offline_device_is_said_to_be_offline() -> None:
    found = judge(replace(QUEUED, online_since=None), LIMITS, day(5))
    assert isinstance(found, Waits)
    assert "offline since 2026-03-01 12:00 UTC; the deployment waits for it until 2026-03-15 12:00 UTC" in found.text


def test_nothing_is_given_up_while_nobody_listens() -> None:
    found = judge(replace(QUEUED, listening=None), LIMITS, day(400))
    assert isinstance(found, Waits)
    assert (found.until, "Ingest does not run" in found.text) == (None, True)


def listens(stand: Stand, since: datetime = START, share: str = "1/1") -> None:
    """Let ingest have listened since then."""
    account = Listening(since=since, resumed_at=since, heard_at=stand.now)
    row = IngestWorkerRow(
        share=share,
        host="here",
        pid=os.getpid(),
        started_at_us=moments.to_us(since),
        seen_at_us=moments.to_us(stand.now),
        status=codec.encode({"listening": account}).decode(),
    )
    with db.write_session(stand.engine) as session:
        session.merge(row)


def birth(stand: Stand, device: str = "cell-1", boot: int = 1, *, online: bool = True) -> None:
    with db.write_session(stand.engine) as session:
        absorb_state(session, State(device=device, boot=boot, revision=1, online=online, at=stand.now), stand.now)


def tick(stand: Stand) -> list[str]:
    listens(stand)
    return ticker.tick(stand.engine, LIMITS, stand.now)


def shown(stand: Stand, deployment: str) -> dict[str, Any]:
    found: dict[str, Any] = stand.send("GET", f"/deployments/{deployment}").json()
    return found


def test_a_tick_ends_what_is_over_its_time_once_and_says_why(stand: Stand) -> None:
    stand.enrol("cell-1")
    digest = stand.push("parts", 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    birth(stand)
    assert tick(stand) == []
    stand.advance(days=3)
    assert tick(stand) == [deployment]
    assert tick(stand) == []
    found = shown(stand, deployment)["deployment"]
    assert found["state"] == "timed_out"
    assert "never took it up" in found["reason"]
    assert found["ended_at"] is not None
    entries = stand.send("GET", "/audit?limit=50").json()["items"]
    assert [one["actor"] for one in entries if one["action"] == "deployment.timed_out"] == ["fleet:ticker"]
    # the device does it in the end: the report is kept, expected, and what runs is accounted for
    late = DeploymentReport(
        deployment_id=deployment, model="parts", digest=digest, state=S.SUCCEEDED, sequence=9, at=stand.now
    )
    stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [late])
    found = shown(stand, deployment)
    assert (found["deployment"]["state"], found["deployment"]["irregular"]) == ("timed_out", 0)
    assert found["deployment"]["installed_at"] is not None
    assert [one["late"] for one in found["reports"]] == [True]
    # and a person may ask for it again
    again = stand.desire("cell-1", {"parts": 1}, retry=True)["models"][0]["deployment_id"]
    assert again != deployment


def test_a_report_just_before_the_tick_saves_a_deployment(stand: Stand) -> None:
    stand.enrol("cell-1")
    digest = stand.push("parts", 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    birth(stand)
    stand.advance(days=2.99)
    report = DeploymentReport(
        deployment_id=deployment,
        model="parts",
        digest=digest,
        state=S.STAGED,
        sequence=1,
        at=stand.now,
        hold=Hold(reason=HoldReason.MAINTENANCE_WINDOW, deadline=stand.now + timedelta(days=8)),
    )
    stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [report])
    stand.advance(days=21)
    assert tick(stand) == []
    stand.advance(days=1)
    assert tick(stand) == [deployment]
    assert shown(stand, deployment)["deployment"]["hold_reason"] is None


def test_a_deployment_behind_one_made_at_the_device_is_not_called_untouched(stand: Stand) -> None:
    stand.enrol("cell-1")
    stand.push("parts", 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    birth(stand)
    local = DeploymentReport(
        deployment_id="01890000-0000-7000-8000-000000000000",
        model="parts",
        digest="d" * 64,
        state=S.PROBATION,
        sequence=4,
        at=stand.now,
        origin=Origin.DEVICE,
        by="anna",
    )
    stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [local])
    stand.advance(days=10)
    assert tick(stand) == []
    stand.advance(days=4)
    assert set(tick(stand)) == {deployment, local.deployment_id}


def test_a_ticker_thread_ticks_and_stops(stand: Stand) -> None:
    stand.enrol("cell-1")
    stand.push("parts", 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    birth(stand)
    stand.advance(days=4)
    listens(stand)
    running = ticker.Ticker(stand.engine, LIMITS, now=lambda: stand.now, every_s=0.01)
    running.start()
    try:
        for _ in range(1000):
            if shown(stand, deployment)["deployment"]["state"] == "timed_out":
                break
        else:
            pytest.fail("the ticker did not tick")
    finally:
        running.stop()


def test_what_the_fleet_did_not_hear_is_not_the_devices_silence(stand: Stand) -> None:
    """Ingest ends on Friday; the device reads the document over HTTP, and its report waits until Monday."""
    stand.enrol("cell-1")
    digest = stand.push("parts", 1)
    birth(stand)
    listens(stand)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    stand.advance(days=3)
    assert ticker.tick(stand.engine, LIMITS, stand.now) == []
    stand.advance(days=30)
    assert ticker.tick(stand.engine, LIMITS, stand.now) == []
    listens(stand, since=stand.now)
    stand.advance(seconds=25)
    assert ticker.tick(stand.engine, LIMITS, stand.now) == [], "what has waited is still on its way"
    report = DeploymentReport(
        deployment_id=deployment, model="parts", digest=digest, state=S.STAGED, sequence=4, at=stand.now
    )
    stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [report])
    assert shown(stand, deployment)["deployment"]["state"] == "staged"


def test_only_the_devices_of_a_share_that_is_taken_in_can_be_silent(stand: Stand) -> None:
    names = [f"cell-{n}" for n in range(1, 9)]
    stand.push("parts", 1)
    asked = {}
    for name in names:
        stand.enrol(name)
        birth(stand, name)
        asked[name] = stand.desire(name, {"parts": 1})["models"][0]["deployment_id"]
    stand.advance(days=3)
    listens(stand, share="2/2")
    ended = set(ticker.tick(stand.engine, LIMITS, stand.now))
    odd = {f"{number:02x}" for number in shards.parse("2/2").shards}
    with db.read_session(stand.engine) as session:
        heard = beat.heard(session, stand.now)
        shard_of = {name: devices.require(session, name).shard for name in names}
    assert heard.keys() == odd
    assert ended == {asked[name] for name in names if shard_of[name] in odd}
    assert 0 < len(ended) < len(names)


def test_a_worker_counts_since_when_it_listens_over_its_restarts(stand: Stand) -> None:
    connected = True

    def accounts() -> Listening | None:
        """Return what a worker says that begins now and is asked once."""
        Beat(stand.engine, shards.WHOLE, lambda: {"connected": connected}, now=lambda: stand.now).tell()
        with db.read_session(stand.engine) as session:
            return beat.heard(session, stand.now).get("00")

    assert accounts() == Listening(since=START, resumed_at=START, heard_at=START)
    stand.advance(seconds=20)
    assert accounts() == Listening(since=START, resumed_at=START, heard_at=stand.now)
    stand.advance(minutes=5)
    assert accounts() == Listening(since=START, resumed_at=stand.now, heard_at=stand.now), "a short gap"
    stand.advance(minutes=1)
    connected = False
    assert accounts() is None
    stand.advance(hours=2)
    assert accounts() is None
    connected = True
    assert accounts() == Listening(since=stand.now, resumed_at=stand.now, heard_at=stand.now)
    stand.advance(seconds=31)
    with db.read_session(stand.engine) as session:
        assert beat.heard(session, stand.now) == {}


def test_a_gap_begins_with_the_last_sign_that_the_database_took() -> None:
    begun = listening.after(None, START)
    assert listening.after(begun, START + timedelta(minutes=59)).since == START
    assert listening.after(begun, START + timedelta(minutes=60)).since == START + timedelta(minutes=60)


def test_a_report_of_the_device_does_not_make_its_connection_younger(stand: Stand) -> None:
    stand.enrol("cell-1")
    stand.push("parts", 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    birth(stand)
    stand.advance(days=2)
    with db.write_session(stand.engine) as session:
        absorb_state(session, State(device="cell-1", boot=1, revision=2, online=True, at=stand.now), stand.now)
    stand.advance(days=1)
    assert tick(stand) == [deployment]
    assert "connected since 2026-03-01 12:00 UTC" in shown(stand, deployment)["deployment"]["reason"]
