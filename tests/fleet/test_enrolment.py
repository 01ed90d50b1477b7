"""A claim enrols one device, once, in time; and the credential it gives is the device's own."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from fleet import db
from fleet.audit.tables import AuditEntry
from fleet.auth.actor import Role
from fleet.deployments import ticker
from fleet.deployments.service import ReportSlice
from fleet.deployments.timeouts import Limits
from fleet.devices.tables import Claim, Device
from tests.fleet.test_local_deployments import says
from tests.support.fleet_stand import Stand
from wire.deployment import DeploymentReport
from wire.deployment import DeploymentState as S
from wire.messages import Lane


def ask(stand: Stand, claim: str, device: str = "cell-1") -> Any:
    body = {"claim_token": claim, "device": device, "agent_version": "0.1", "architecture": "aarch64"}
    return stand.send("POST", "/enrolments", by=None, json=body)


def test_a_claim_gives_a_device_its_credential_and_the_brokers_address(stand: Stand) -> None:
    answer = ask(stand, stand.claim("cell-1"))
    assert answer.status_code == 201
    body = answer.json()
    assert body["device"] == "cell-1"
    assert (body["mqtt_host"], body["mqtt_port"]) == ("127.0.0.1", 1883)
    assert answer.headers["cache-control"] == "no-store"
    seen = stand.send("GET", "/devices/cell-1", by=body["credential"])
    assert seen.status_code == 200
    assert seen.json()["architecture"] == "aarch64"


def test_secrets_are_not_stored(stand: Stand) -> None:
    claim = stand.claim("cell-1")
    credential = ask(stand, claim).json()["credential"]
    stand.engine.dispose()
    data = stand.settings.database_path.read_bytes()
    assert claim.encode() not in data
    assert credential.encode() not in data
    assert stand.token().encode() not in stand.settings.database_path.read_bytes()


@pytest.mark.parametrize("case", ["used", "expired", "other device", "unknown"])
def test_a_claim_that_does_not_fit_is_refused_without_saying_why(stand: Stand, case: str) -> None:
    claim, device = stand.claim("cell-1", minutes=10), "cell-1"
    if case == "used":
        assert ask(stand, claim).status_code == 201
    elif case == "expired":
        stand.advance(minutes=10)
    elif case == "other device":
        device = "cell-2"
    else:
        claim = claim[:-1] + ("a" if claim[-1] != "a" else "b")
    answer = ask(stand, claim, device)
    assert answer.status_code == 403
    assert answer.json()["code"] == "claim.invalid"
    assert answer.json()["detail"].endswith("it is unknown, used, expired or for another device.")


def test_a_claim_for_another_device_stays_usable_by_its_own(stand: Stand) -> None:
    claim = stand.claim("cell-1")
    assert ask(stand, claim, "cell-2").status_code == 403
    assert ask(stand, claim, "cell-1").status_code == 201


def test_of_many_at_once_with_one_claim_exactly_one_wins(stand: Stand) -> None:
    claim = stand.claim("cell-1")
    gate = threading.Barrier(6)
    statuses: list[int] = []

    def run() -> None:
        gate.wait()
        statuses.append(ask(stand, claim).status_code)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 403, 403, 403, 403, 403]
    with db.read_session(stand.engine) as session:
        enrolled = session.exec(select(AuditEntry).where(AuditEntry.action == "device.enrolled")).all()
    assert len(enrolled) == 1


def test_a_revoked_device_is_refused_until_it_is_claimed_anew(stand: Stand) -> None:
    credential = stand.enrol("cell-1")
    assert stand.send("POST", "/devices/cell-1/revocation", by=Role.OPERATOR).status_code == 403
    assert stand.send("POST", "/devices/cell-1/revocation").json()["revoked"] is True
    refused = stand.send("GET", "/devices/cell-1/desired", by=credential)
    assert (refused.status_code, refused.json()["code"]) == (403, "device.revoked")
    fresh = ask(stand, stand.claim("cell-1")).json()["credential"]
    assert stand.send("GET", "/devices/cell-1/desired", by=fresh).status_code == 200
    assert stand.send("GET", "/devices/cell-1/desired", by=credential).status_code == 401


def test_a_device_that_enrols_again_begins_to_count_its_boots_anew(stand: Stand) -> None:
    stand.enrol("cell-1")
    with db.write_session(stand.engine) as session:
        row = session.get(Device, "cell-1")
        assert row is not None
        row.boot, row.state_revision = 40, 7
        session.add(row)
    stand.enrol("cell-1")
    with db.read_session(stand.engine) as session:
        row = session.get(Device, "cell-1")
        assert row is not None
        assert (row.boot, row.state_revision) == (0, 0)
        assert len(session.exec(select(Claim)).all()) == 2


def test_a_request_of_the_wrong_shape_names_the_place(stand: Stand) -> None:
    body = {"claim_token": "x" * 20, "device": "Cell 1", "agent_version": "0.1", "architecture": "a"}
    answer = stand.send("POST", "/enrolments", by=None, json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "message.undecodable")
    assert "$.device" in answer.json()["detail"]


def told(stand: Stand, deployment: str, digest: str, *way: tuple[S, int], **more: Any) -> None:
    """Let cell-1 report on a deployment, by its clock a minute before the fleet hears of it."""
    values = {"at": stand.now - timedelta(minutes=1), **more}
    bodies = [
        DeploymentReport(
            deployment_id=deployment, model="parts", digest=digest, state=state, sequence=sequence, **values
        )
        for state, sequence in way
    ]
    assert stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, bodies).refused == ()


def shown(stand: Stand, deployment: str) -> tuple[dict[str, Any], list[str]]:
    """Return a deployment and the states that were reported."""
    found = stand.send("GET", f"/deployments/{deployment}").json()
    return found["deployment"], [one["report"]["state"] for one in found["reports"]]


_STATES = [S.DOWNLOADING, S.VERIFYING, S.SELF_TESTING, S.STAGED, S.ACTIVATING, S.PROBATION, S.SUCCEEDED]
ALL_THE_WAY = [(state, sequence) for sequence, state in enumerate(_STATES, start=1)]
ALL_REPORTED = [state.value for state, _ in ALL_THE_WAY]


def succeeded(stand: Stand) -> tuple[str, str]:
    """Return a deployment that succeeded on cell-1 an hour ago, and its digest."""
    stand.enrol("cell-1")
    digest = stand.push("parts", 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    stand.advance(hours=1)
    told(stand, deployment, digest, *ALL_THE_WAY, inferring_digest=digest)
    stand.advance(hours=1)
    return deployment, digest


def test_what_a_device_with_a_new_disk_does_again_is_seen(stand: Stand) -> None:
    deployment, digest = succeeded(stand)
    stand.enrol("cell-1")
    says(stand, None, 1)
    told(stand, deployment, digest, (S.DOWNLOADING, 1))
    row, reported = shown(stand, deployment)
    assert (row["state"], row["ended_at"]) == ("downloading", None)
    assert reported == [*ALL_REPORTED, "downloading"]
    refused = {"code": "deployment.incompatible", "reason": "It is for another runtime."}
    told(stand, deployment, digest, (S.VERIFYING, 2))
    told(stand, deployment, digest, (S.REFUSED, 3), **refused)
    row, reported = shown(stand, deployment)
    assert (row["state"], row["code"], row["irregular"]) == ("refused", "deployment.incompatible", 0)
    assert reported == [*ALL_REPORTED, "downloading", "verifying", "refused"], "the history has both"
    found = stand.send("GET", "/devices/cell-1/models/parts/explain").json()
    assert "the device refused it (deployment.incompatible): It is for another runtime" in found["answer"]
    stand.advance(hours=1)
    told(stand, deployment, digest, *ALL_THE_WAY)
    assert shown(stand, deployment)[0]["state"] == "succeeded", "and once more with a third disk"
    assert shown(stand, deployment)[1] == [*reported, *ALL_REPORTED]


def test_what_comes_twice_or_late_from_the_former_disk_is_no_new_beginning(stand: Stand) -> None:
    deployment, digest = succeeded(stand)
    former = stand.now - timedelta(hours=1, minutes=1)
    told(stand, deployment, digest, *ALL_THE_WAY, at=former)
    assert shown(stand, deployment)[1] == ALL_REPORTED, "the same again"
    told(stand, deployment, digest, (S.STAGED, 4), at=former - timedelta(days=400))
    assert shown(stand, deployment)[0]["state"] == "succeeded", "a clock that lost its senses proves nothing"
    stand.enrol("cell-1")
    told(stand, deployment, digest, (S.DOWNLOADING, 1))
    told(stand, deployment, digest, *ALL_THE_WAY, at=former, inferring_digest=digest)
    assert shown(stand, deployment)[0]["state"] == "downloading", "a stick brought what the former disk had told"
    assert shown(stand, deployment)[1] == [*ALL_REPORTED, "downloading"]


def test_a_new_beginning_opens_nothing_that_the_fleet_has_ended(stand: Stand) -> None:
    stand.enrol("cell-1")
    digest = stand.push("parts", 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    told(stand, deployment, digest, (S.DOWNLOADING, 1))
    stand.desire("cell-1", {})
    stand.enrol("cell-1")
    stand.advance(hours=1)
    told(stand, deployment, digest, (S.DOWNLOADING, 1), (S.FAILED_NO_CHANGE, 2), code="deployment.withdrawn")
    found = stand.send("GET", f"/deployments/{deployment}").json()
    assert found["deployment"]["state"] == "canceled"
    assert [one["late"] for one in found["reports"]] == [False, True, True]


@pytest.mark.parametrize("during", [[], ALL_THE_WAY[1:3], ALL_THE_WAY[1:]])
def test_a_new_claim_takes_back_what_the_revocation_ended(stand: Stand, during: list[tuple[S, int]]) -> None:
    stand.enrol("cell-1")
    digest, old = stand.push("parts", 1, model=b"1"), stand.push("parts", 2, model=b"2")
    superseded = stand.desire("cell-1", {"parts": 2})["models"][0]["deployment_id"]
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    told(stand, superseded, old, (S.DOWNLOADING, 1))
    told(stand, deployment, digest, (S.DOWNLOADING, 1))
    stand.advance(hours=1)
    stand.send("POST", "/devices/cell-1/revocation")
    assert shown(stand, deployment)[0]["state"] == "removed"
    told(stand, deployment, digest, *during)
    assert shown(stand, deployment)[0]["state"] == "removed"
    stand.advance(days=30)
    stand.enrol("cell-1")
    row, _ = shown(stand, deployment)
    assert row["state"] == (during[-1][0].value if during else "downloading"), "as the device told it last"
    assert (row["ended_at"] is None, row["reason"], row["irregular"]) == (len(during) < 6, "", 0)
    assert shown(stand, superseded)[0]["state"] == "superseded"
    assert stand.send("GET", "/devices/cell-1/desired").json()["models"][0]["deployment_id"] == deployment
    ticker.tick(stand.engine, Limits(), stand.now)
    told(stand, deployment, digest, *ALL_THE_WAY)
    assert shown(stand, deployment)[0]["state"] == "succeeded", "no report is late"


def test_a_new_claim_opens_nothing_where_nobody_revoked(stand: Stand) -> None:
    deployment, _ = succeeded(stand)
    before = shown(stand, deployment)
    stand.enrol("cell-1")
    stand.send("POST", "/devices/cell-1/revocation")
    stand.enrol("cell-1")
    assert shown(stand, deployment) == before
