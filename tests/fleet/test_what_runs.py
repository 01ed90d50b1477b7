"""What a device runs by its newest word, and what put it there: states, reports, exports, and clocks set back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from fleet import db
from fleet.deployments import running
from fleet.devices.service import absorb_state
from fleet.pages import board
from tests.fleet.test_local_deployments import LOCAL, cancel, deviations, report, take
from tests.support.fleet_stand import Stand
from wire.deployment import DeploymentState, Origin
from wire.messages import Reported, RunningModel, State

S = DeploymentState
HER = {"origin": Origin.DEVICE, "by": "anna"}


def says(stand: Stand, revision: int, *models: RunningModel, at: datetime | None = None) -> None:
    """Let a device say what it runs."""
    reported = Reported(
        desired_revision=1, agent_version="0.1", runtime_version="1", architecture="x86_64", models=models
    )
    state = State(device="cell-1", boot=1, revision=revision, online=True, at=at or stand.now, reported=reported)
    with db.write_session(stand.engine) as session:
        absorb_state(session, state, stand.now)


def parts(digest: str | None, deployment: str | None = None) -> RunningModel:
    return RunningModel(model="parts", digest=digest, deployment_id=deployment)


def succeed(stand: Stand, *releases: int) -> list[tuple[str, str]]:
    """Let releases succeed on cell-1, one an hour; returns the deployment and digest of each."""
    found = []
    for release in releases:
        digest = stand.push("parts", release, model=f"{release}".encode())
        deployment = stand.desire("cell-1", {"parts": release})["models"][0]["deployment_id"]
        stand.advance(hours=1)
        take(stand, report(deployment, digest, S.SUCCEEDED, 7, at=stand.now, inferring_digest=digest))
        found.append((deployment, digest))
    return found


def why(stand: Stand, release: int) -> dict[str, Any]:
    params = {"release": release}
    found: dict[str, Any] = stand.send("GET", "/devices/cell-1/models/parts/explain", params=params).json()
    return found


def line(stand: Stand) -> Sequence[tuple[str | None, bool]]:
    """Return what ran, and whether that is over."""
    items = stand.send("GET", "/devices/cell-1/intervals?model=parts").json()["items"]
    return [(one["digest"], one["until"] is not None) for one in items]


def test_what_an_export_brings_is_newer_than_the_last_state(stand: Stand) -> None:
    stand.enrol("cell-1")
    ((_, two),) = succeed(stand, 2)
    three = stand.push("parts", 3, model=b"3")
    says(stand, 1, parts(two))
    stand.advance(hours=1)
    at = stand.now
    stand.advance(days=2)
    take(stand, report(LOCAL, three, S.SUCCEEDED, 7, at=at, inferring_digest=three, **HER))
    assert deviations(stand) == ([], ["runs release 3, asked for at the device by anna; desired is release 2"])
    assert (why(stand, 3)["has_it"], why(stand, 2)["has_it"]) == (True, False)
    with db.read_session(stand.engine) as session:
        (device,) = board.take(session, lambda _: False, stand.now)["devices"]
    assert [(one["release"], one["full_digest"]) for one in device["running"]] == [("release 3", three)]
    says(stand, 2, parts(two))
    assert deviations(stand)[0] == ["parts"], "its own word now is newer still"
    assert why(stand, 3)["has_it"] is False


def test_of_a_file_that_tells_of_two_changes_the_last_one_counts(stand: Stand) -> None:
    stand.enrol("cell-1")
    ((_, two),) = succeed(stand, 2)
    three, four = (stand.push("parts", n, model=f"{n}".encode()) for n in (3, 4))
    says(stand, 1, parts(two))
    stand.advance(hours=1)
    take(stand, report(LOCAL, three, S.SUCCEEDED, 7, at=stand.now, inferring_digest=three, **HER))
    stand.advance(hours=1)
    other = LOCAL[:-1] + "2"
    way = [report(other, four, S.PROBATION, 6, at=stand.now, inferring_digest=four, **HER)]
    stand.advance(minutes=1)
    way.append(report(other, four, S.FAILED_REVERTED, 7, at=stand.now, inferring_digest=three, **HER))
    take(stand, *way)
    assert deviations(stand)[0] == []
    assert why(stand, 3)["has_it"] is True


def test_a_device_that_only_ever_sent_an_export_has_what_it_says(stand: Stand) -> None:
    stand.enrol("cell-1")
    three = stand.push("parts", 3)
    take(stand, report(LOCAL, three, S.SUCCEEDED, 7, inferring_digest=three, **HER))
    found = why(stand, 3)
    assert found["has_it"] is True
    assert not any("has not told yet" in fact["text"] for fact in found["facts"])
    assert deviations(stand) == ([], [])


def test_a_model_that_no_recipe_uses_any_more_runs_nowhere_and_does_not_drift(stand: Stand) -> None:
    stand.enrol("cell-1")
    ((deployment, three),) = succeed(stand, 3)
    says(stand, 1, parts(three, deployment))
    stand.advance(hours=1)
    says(stand, 2, parts(None))
    assert deviations(stand)[0] == ["parts"], "a recipe names it, and it is not loaded"
    stand.advance(hours=1)
    says(stand, 3, parts(three, deployment))
    stand.advance(hours=1)
    says(stand, 4)
    assert deviations(stand) == ([], [])
    assert line(stand)[-2:] == [(three, True), (None, False)]
    stand.advance(hours=1)
    says(stand, 5)
    says(stand, 6, parts(three, deployment))
    assert line(stand)[-3:] == [(three, True), (None, True), (three, False)]


def test_a_clock_set_back_makes_no_drift_and_no_wrong_former_version(stand: Stand) -> None:
    stand.enrol("cell-1")
    (_, two), (second, three) = succeed(stand, 2, 3)
    says(stand, 1, parts(three, second))
    stand.advance(minutes=30)
    early = stand.now - timedelta(hours=1)
    take(stand, report(LOCAL, two, S.SUCCEEDED, 7, at=early, inferring_digest=two, **HER))
    says(stand, 2, parts(two, LOCAL), at=early)
    assert deviations(stand) == ([], ["runs release 2, asked for at the device by anna; desired is release 3"])
    assert line(stand) == [(two, True), (three, True), (two, False)]
    stand.push("parts", 4, model=b"4")
    fourth = stand.desire("cell-1", {"parts": 4})["models"][0]["deployment_id"]
    assert cancel(stand, fourth).status_code == 200
    (model,) = stand.send("GET", "/devices/cell-1/desired").json()["models"]
    assert (model["release"], model["deployment_id"]) == (2, LOCAL)


def test_a_device_that_fell_back_to_a_former_deployment_by_itself_drifts(stand: Stand) -> None:
    stand.enrol("cell-1")
    (first, two), (second, three) = succeed(stand, 2, 3)
    says(stand, 1, parts(three, second))
    stand.advance(hours=1)
    says(stand, 2, parts(two, first))
    assert deviations(stand)[0] == ["parts"]


def test_a_device_that_starts_again_and_again_fills_no_table(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "CHANGES_KEPT", 5)
    stand.enrol("cell-1")
    others = RunningModel(model="others", digest="b" * 64)
    for number in range(20):
        stand.advance(minutes=1)
        says(stand, number + 1, parts("a" * 64 if number % 2 else None), others)
    assert line(stand) == [("a" * 64, True), (None, True), ("a" * 64, True), (None, True), ("a" * 64, False)]
    items = stand.send("GET", "/devices/cell-1/intervals?model=others").json()["items"]
    assert [one["digest"] for one in items] == ["b" * 64]
