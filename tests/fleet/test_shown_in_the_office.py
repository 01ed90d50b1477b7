"""What a device tells of itself is shown where people look, and none of it is more than text there."""

from __future__ import annotations

from typing import Any

import pytest

from fleet import db
from fleet.commands import devices
from fleet.devices.service import absorb_state
from fleet.pages import board
from tests.fleet.test_local_deployments import FOREIGN, LOCAL, report, take
from tests.support.fleet_stand import Stand
from wire import command_line
from wire.deployment import DeploymentState, Origin
from wire.messages import Reported, RunningModel, State

TROUBLE = "golden/blue.png: expected blue 1.00, found red 1.00."


def test_why_a_candidate_does_not_run_stands_on_the_page_and_in_devices_show(stand: Stand) -> None:
    stand.enrol("cell-1")
    active = stand.push("parts", 1)
    stand.push("parts", 2)
    stand.desire("cell-1", {"parts": 1}, shadow=2)
    running = RunningModel(model="parts", digest=active, shadow_trouble=TROUBLE)
    reported = Reported(
        desired_revision=1, agent_version="0.1", runtime_version="1", architecture="x86_64", models=(running,)
    )
    state = State(device="cell-1", boot=1, revision=1, online=True, at=stand.now, reported=reported)
    with db.write_session(stand.engine) as session:
        absorb_state(session, state, stand.now)
    with db.read_session(stand.engine) as session:
        ((line,),) = [one["wanted"] for one in board.take(session, lambda _: False, stand.now)["devices"]]
    assert line["shadow"] == f"shadow release 2: {TROUBLE.rstrip('.')}"
    told: dict[str, Any] = stand.send("GET", "/devices/cell-1").json()
    assert f"shadow of parts: {TROUBLE}" in devices._wrong(told, None)


def test_what_a_device_calls_itself_moves_no_cursor(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.enrol("cell-1")
    by = "anna\x1b[2J\x1b[31m\nroot \u202eat the door"
    assert take(stand, report(LOCAL, FOREIGN, DeploymentState.DOWNLOADING, origin=Origin.DEVICE, by=by)).refused == ()
    (found,) = stand.send("GET", "/deployments").json()["items"]
    assert found["by"] == by, "the API tells what was said"
    lines = command_line.table(["WHO"], [[found["by"]], ["Zoë Müller-Łącka"]])
    assert lines == ["WHO", "anna?[2J?[31m root ?at the door", "Zoë Müller-Łącka"]
