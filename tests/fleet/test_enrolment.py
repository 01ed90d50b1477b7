"""A claim enrols one device, once, in time; and the credential it gives is the device's own."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlmodel import select

from fleet import db
from fleet.audit.tables import AuditEntry
from fleet.auth.actor import Role
from fleet.devices.tables import Claim, Device
from tests.support.fleet_stand import Stand


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
