"""The audit is added to and never changed, and every act of a person is in it."""

from __future__ import annotations

import sqlite3

import pytest

from fleet.auth.actor import Role
from tests.support.fleet_stand import Stand


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET actor = 'nobody'",
        "DELETE FROM audit_entry",
        "REPLACE INTO audit_entry (id, at, actor, action, subject, detail) VALUES (1, 'x', 'x', 'x', 'x', '{}')",
    ],
)
def test_the_database_itself_refuses_to_change_the_audit(stand: Stand, statement: str) -> None:
    stand.token()
    raw = sqlite3.connect(stand.settings.database_path)
    try:
        raw.execute("PRAGMA recursive_triggers=ON")  # as every connection of the fleet has it
        before = raw.execute("SELECT * FROM audit_entry").fetchall()
        assert before
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
        assert raw.execute("SELECT * FROM audit_entry").fetchall() == before
    finally:
        raw.close()


def test_what_people_and_devices_do_is_in_the_audit(stand: Stand) -> None:
    stand.enrol("cell-1")
    stand.push("parts", 1)
    stand.desire("cell-1", {"parts": 1})
    stand.send("POST", "/devices/cell-1/revocation")
    entries = stand.send("GET", "/audit").json()["items"]
    acts = [(entry["actor"], entry["action"], entry["subject"]) for entry in reversed(entries)]
    for act in [
        ("local:test", "claim.created", "cell-1"),
        ("device:cell-1", "device.enrolled", "cell-1"),
        ("operator:admin", "version.pushed", "parts"),
        ("operator:admin", "desired.changed", "cell-1"),
        ("operator:admin", "device.revoked", "cell-1"),
    ]:
        assert act in acts
    assert "lso_" not in str(entries)
    assert "lsc_" not in str(entries)


def test_what_is_refused_leaves_no_act_behind(stand: Stand) -> None:
    stand.enrol("cell-1")
    before = stand.send("GET", "/audit").json()["items"]
    stand.send("PUT", "/devices/cell-1/desired", json={"models": [{"model": "none", "release": 1}]})
    stand.send("POST", "/devices/nowhere/revocation")
    after = stand.send("GET", "/audit").json()["items"]
    assert after == before


def test_the_audit_of_one_subject_can_be_asked_for(stand: Stand) -> None:
    stand.enrol("cell-1")
    stand.enrol("cell-2")
    entries = stand.send("GET", "/audit", by=Role.ADMIN, params={"subject": "cell-2"}).json()["items"]
    assert {entry["subject"] for entry in entries} == {"cell-2"}
