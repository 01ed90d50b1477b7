"""The commands for deployments, shadows and explanations, against a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.commands import deployments as words
from tests.fleet.test_fleet_cli import run, served  # noqa: F401 - a fixture
from tests.fleet.test_local_deployments import FOREIGN, LOCAL, report, says, take
from tests.fleet.test_shadow import pair
from tests.fleet.test_shadow import take as take_pairs
from tests.support.fleet_stand import Stand
from wire.deployment import DeploymentState, Origin
from wire.inspection import Verdict

S = DeploymentState


@pytest.fixture
def go(stand: Stand, served: str, capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: F811 - the fixture
    """Runs a command against the server; three releases of `parts` are there, and cell-1."""
    stand.enrol("cell-1")
    for release in (1, 2, 3):
        stand.push("parts", release, model=f"{release}".encode())

    def command(*arguments: str) -> tuple[int, str, str]:
        return run(capsys, *arguments, "--url", served)

    return command


def desired(go: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(go("desired", "show", "cell-1", "--json")[1])["desired"]["models"][0]
    return found


def test_a_shadow_is_set_kept_changed_and_removed(stand: Stand, go: Any) -> None:
    assert go("desired", "set", "cell-1", "--model", "parts=1", "--shadow", "parts=2", "--shadow-rate", "0.5")[0] == 0
    second = stand.send("GET", "/models/parts/versions/2/shadow").json()["digest"]
    assert (desired(go)["shadow"], desired(go)["shadow_rate"]) == (second, 0.5)
    assert second[:12] in go("desired", "show", "cell-1")[1]
    go("desired", "set", "cell-1", "--station", "s1", "--sampling-floor", "0.2")
    assert (desired(go)["shadow"], desired(go)["shadow_rate"]) == (second, 0.5), "what is not named stays"
    go("desired", "set", "cell-1", "--model", "parts=3")
    assert (desired(go)["release"], desired(go)["shadow"]) == (3, second)
    go("desired", "set", "cell-1", "--shadow-rate", "0.1")
    assert desired(go)["shadow_rate"] == 0.1
    status, _, err = go("desired", "set", "cell-1", "--model", "parts=2")
    assert (status, desired(go)["shadow"]) == (0, None)
    assert "is the active one now, and no shadow any more" in err
    go("desired", "set", "cell-1", "--shadow", "parts=3")
    go("desired", "set", "cell-1", "--remove-shadow", "parts")
    assert desired(go)["shadow"] is None
    for wrong in (["--shadow", "parts=2"], ["--shadow", "caps=1"], ["--shadow", "parts"], ["--shadow-rate", "0"]):
        assert go("desired", "set", "cell-1", *wrong)[0] == 2


def test_what_is_not_deployed_anew_is_said(stand: Stand, go: Any) -> None:
    _, _, err = go("desired", "set", "cell-1", "--model", "parts=1")
    assert err == "cell-1 is now at revision 1.\n"
    _, out, err = go("desired", "set", "cell-1", "--model", "parts=1")
    why = "`lineside-fleet why-not cell-1 parts` tells where that stands"
    again = f"note: parts=1 was asked for already: {why}, and --retry asks anew where it has ended.\n"
    assert (out, err) == ("1\n", f"cell-1 is at revision 1, as before.\n{again}")
    _, _, err = go("desired", "set", "cell-1", "--model", "parts=1", "--retry")
    nothing = f"note: parts=1 is on its way, or runs, so that --retry asks for nothing: {why}.\n"
    assert err == f"cell-1 is at revision 1, as before.\n{nothing}"
    _, _, err = go("desired", "set", "cell-1", "--model", "parts=1", "--station", "s1", "--sampling-floor", "0.2")
    assert err == f"cell-1 is now at revision 2.\n{again}"
    deployment = desired(go)["deployment_id"]
    digest = stand.send("GET", f"/deployments/{deployment}").json()["deployment"]["digest"]
    take(stand, report(deployment, digest, S.REFUSED, 2, code="deployment.incompatible"))
    _, _, err = go("desired", "set", "cell-1", "--model", "parts=1", "--retry")
    assert err == "cell-1 is now at revision 3.\n"


def test_a_state_that_is_none_is_not_an_empty_list(stand: Stand, go: Any) -> None:
    go("desired", "set", "cell-1", "--model", "parts=1")
    assert "queued" in go("deployments", "list", "--state", "queued")[1]
    status, _, err = go("deployments", "list", "--state", "finished")
    assert (status, "'finished' is no state of a deployment." in err, "failed_reverted" in err) == (2, True, True)


def test_the_comparison_of_a_shadow_is_shown(stand: Stand, go: Any) -> None:
    go("desired", "set", "cell-1", "--model", "parts=1", "--shadow", "parts=2")
    assert "No part has been judged by both yet." in go("shadow", "show", "parts", "--release", "2")[1]
    digests = [stand.send("GET", f"/models/parts/versions/{n}/shadow").json()["digest"] for n in (1, 2)]
    here = {"active_digest": digests[0], "digest": digests[1]}
    take_pairs(stand, *(pair(**here) for _ in range(9)), pair(Verdict.OK, Verdict.NG, **here))
    out = go("shadow", "show", "parts", "--release", "2")[1]
    assert "against release 1: 10 parts, 1 differ (10.0%)" in out
    assert "9 (90.0%)" in out
    assert "cell-1" in out
    found = json.loads(go("shadow", "show", "parts", "--release", "2", "--json")[1])
    assert (found["schema"], len(found["disagreements"])) == ("lineside.shadow.v1", 1)
    assert go("shadow", "show", "parts", "--release", "9")[0] == 7


def test_a_deployment_is_listed_and_canceled(stand: Stand, go: Any) -> None:
    go("desired", "set", "cell-1", "--model", "parts=1")
    take(stand, report(LOCAL, FOREIGN, S.SUCCEEDED, origin=Origin.DEVICE, by="anna"))
    listed = json.loads(go("deployments", "list", "--json")[1])
    assert listed["schema"] == "lineside.deployments.v1"
    deployment = next(one["id"] for one in listed["items"] if one["origin"] == "fleet")
    assert "anna at the device" in go("deployments", "list", "--device", "cell-1")[1]
    status, out, err = go("deployments", "cancel", deployment, "--reason", "wrong lot")
    assert (status, out.strip()) == (0, deployment)
    assert "cell-1 is asked for no version now (revision 2).\noperator:admin took it back: wrong lot\n" in err
    status, _, err = go("deployments", "cancel", LOCAL, "--reason", "wrong lot")
    assert (status, "has ended already" in err) == (5, True)


def test_a_device_is_explained_and_shown_with_what_deviates(stand: Stand, go: Any) -> None:
    go("desired", "set", "cell-1", "--model", "parts=1")
    status, out, _ = go("why-not", "cell-1", "parts")
    assert status == 0
    assert out.splitlines()[-1].startswith("cell-1 has not got parts release 1 because the device is offline")
    found = json.loads(go("why-not", "cell-1", "parts", "--release", "2", "--json")[1])
    assert (found["schema"], found["has_it"]) == ("lineside.explain.v1", False)
    take(stand, report(LOCAL, FOREIGN, S.SUCCEEDED, origin=Origin.DEVICE, by="anna"))
    says(stand, "e" * 64, 1)
    out = go("devices", "show", "cell-1")[1]
    assert "parts runs an unknown release (eeeeeeeeeeee), but the newest deployment that succeeded put" in out
    assert "anna at the device" in out


def test_what_a_deployment_waits_for_is_put_into_words() -> None:
    one: dict[str, Any] = {
        "hold_reason": "maintenance_window",
        "hold_until": "2026-03-02T18:00:00Z",
        "hold_text": "The gap is 3 s.",
        "probation": {"parts": 34, "parts_needed": 100, "faults": 1},
        "state": "probation",
        "code": "",
        "reason": "",
    }
    assert words.why(one) == (
        "waits: maintenance window until 2026-03-02T18:00:00Z. The gap is 3 s.; 34 of 100 parts, 1 without verdict"
    )
