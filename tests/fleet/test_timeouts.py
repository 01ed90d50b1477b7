"""When the fleet gives a deployment up: a table of cases, and the ticker over a real database and a test clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from fleet import db
from fleet.deployments import ticker
from fleet.deployments.reports import ReportSlice
from fleet.deployments.timeouts import Limits, TimedOut, Waiting, Waits, judge
from fleet.devices.service import absorb_state
from tests.support.fleet_stand import START, Stand
from wire.deployment import DeploymentReport, DeploymentState, Hold, HoldReason, Origin
from wire.messages import Lane, State

S = DeploymentState
LIMITS = Limits()
QUEUED = Waiting(
    state=S.QUEUED, created_at=START, heard_at=START, hold_until=None, last_seen_at=START, online_since=START
)


def day(days: float) -> datetime:
    return START + timedelta(days=days)


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
    ],
)
def test_the_fleet_gives_up_only_what_nothing_can_explain(waiting: Waiting, now: datetime, words: str | None) -> None:
    found = judge(waiting, LIMITS, now)
    if words is None:
        assert isinstance(found, Waits), found
        assert found.until > now
        assert isinstance(judge(waiting, LIMITS, found.until), TimedOut), "it says when it gives up"
    else:
        assert isinstance(found, TimedOut)
        assert words in found.reason


def test_an_offline_device_is_said_to_be_offline() -> None:
    found = judge(replace(QUEUED, online_since=None), LIMITS, day(5))
    assert isinstance(found, Waits)
    assert "offline since 2026-03-01 12:00 UTC; the deployment waits for it until 2026-03-15 12:00 UTC" in found.text


def birth(stand: Stand, device: str = "cell-1", boot: int = 1, *, online: bool = True) -> None:
    with db.write_session(stand.engine) as session:
        absorb_state(session, State(device=device, boot=boot, revision=1, online=online, at=stand.now), stand.now)


def tick(stand: Stand) -> list[str]:
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
