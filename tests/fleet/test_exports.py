"""A file that a device exported is taken as if its batches had come over MQTT, and nothing is counted twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import exc
from sqlmodel import func, select

from fleet import db
from fleet.auth.actor import Role
from fleet.deployments.tables import Deployment, ReportEntry
from fleet.devices.tables import DeviceEvent, DeviceHealth
from fleet.ingest import commit, exports, seams
from fleet.ingest.route import Standing, route
from fleet.inspections import service
from fleet.inspections.tables import CounterCell, InspectionRow
from fleet.pages import board
from fleet.shadow.tables import ShadowPairRow
from tests.fleet.test_fleet_cli import run, served  # noqa: F401 - a fixture
from tests.fleet.test_local_deployments import FOREIGN, LOCAL, report
from tests.fleet.test_shadow import pair
from tests.support import records
from tests.support.fleet_stand import START, Stand
from wire import codec, topics
from wire.deployment import DeploymentState, Origin
from wire.errors import LinesideError
from wire.export import MAX_LINE_BYTES, ExportHead
from wire.messages import Batch, Entry, Event, Health, Lane, Severity

TABLES = (InspectionRow, CounterCell, DeviceEvent, Deployment, ReportEntry, ShadowPairRow)


def batches() -> list[bytes]:
    """Return what cell-1 had to tell: five inspections, a count, an event, a local deployment and a shadow's pair."""
    local = {"origin": Origin.DEVICE, "by": "anna"}
    told = [
        (Lane.INSPECTIONS, [records.inspection(sequence=n) for n in range(1, 6)]),
        (Lane.COUNTERS, [records.counter(5)]),
        (Lane.EVENTS, [Event(at=START, name="model.activated", severity=Severity.NOTE, text="release 3")]),
        (
            Lane.DEPLOYMENTS,
            [
                report(LOCAL, FOREIGN, DeploymentState.DOWNLOADING, 1, **local),
                report(LOCAL, FOREIGN, DeploymentState.SUCCEEDED, 7, inferring_digest=FOREIGN, **local),
            ],
        ),
        (Lane.SHADOW, [pair()]),
    ]
    return [
        records.batch(*(records.entry(seq, body) for seq, body in enumerate(bodies, start=1)), lane=lane)
        for lane, bodies in told
    ]


def head(count: int, **changes: Any) -> bytes:
    values = {"device": "cell-1", "at": START, "agent_version": "0.1", "batches": count, "entries": 10, **changes}
    return codec.encode(ExportHead(**values))


def send(stand: Stand, lines: list[bytes], *, device: str = "cell-1", by: Role = Role.OPERATOR) -> Any:
    return stand.send("POST", f"/devices/{device}/exports", by=by, content=b"\n".join(lines) + b"\n")


def counts(stand: Stand) -> dict[str, int]:
    with db.read_session(stand.engine) as session:
        return {
            table.__name__: session.exec(select(func.count()).select_from(table)).one()
            for table in (*TABLES, DeviceHealth)
        }


def by_mqtt(stand: Stand, payloads: list[bytes]) -> list[commit.Outcome]:
    """Do with batches what ingest's worker does with those of the broker."""
    outcomes = []
    for payload in payloads:
        topic = topics.path(codec.decode(payload, Batch).lane.value, "cell-1")
        routed = route(topic, payload, lambda _: Standing.KNOWN, stand.now)
        outcomes.append(commit.put(stand.engine, seams.of_the_fleet(), [routed], isolated=False, now=stand.now))
    return outcomes


EXPECTED = {
    "InspectionRow": 5,
    "CounterCell": 1,
    "DeviceEvent": 1,
    "Deployment": 1,
    "ReportEntry": 2,
    "ShadowPairRow": 1,
    "DeviceHealth": 0,
}


def test_a_file_brought_twice_and_then_the_same_by_mqtt_make_each_row_once(stand: Stand) -> None:
    stand.enrol("cell-1")
    told = batches()
    first = send(stand, [head(5), *told])
    assert first.status_code == 200, first.text
    summary = first.json()
    assert (summary["batches"], summary["expected"], summary["trouble"]) == (5, 5, "")
    assert {lane: one["new"] for lane, one in summary["lanes"].items()} == {
        "inspections": 5,
        "counters": 1,
        "events": 1,
        "deployments": 2,
        "shadow": 1,
    }
    assert counts(stand) == EXPECTED
    again = send(stand, [head(5), *told]).json()
    assert {lane: (one["new"], one["known"]) for lane, one in again["lanes"].items()} == {
        "inspections": (0, 5),
        "counters": (0, 1),
        "events": (0, 1),
        "deployments": (0, 2),
        "shadow": (0, 1),
    }
    outcomes = by_mqtt(stand, told)
    assert [len(one.accepted) for one in outcomes] == [5, 1, 1, 2, 1], "all are acknowledged"
    assert [one.duplicates for one in outcomes] == [5, 1, 1, 2, 1]
    assert counts(stand) == EXPECTED
    entries = [one for one in stand.send("GET", "/audit").json()["items"] if one["action"] == "export.absorbed"]
    assert [one["actor"] for one in entries] == ["operator:operator"] * 2


def test_a_file_after_mqtt_brings_only_what_is_missing(stand: Stand) -> None:
    stand.enrol("cell-1")
    told = batches()
    by_mqtt(stand, told[:1])
    summary = send(stand, [head(5), *told]).json()
    assert (summary["lanes"]["inspections"]["known"], summary["lanes"]["events"]["new"]) == (5, 1)
    assert counts(stand) == EXPECTED


def test_a_file_says_nothing_of_the_device_being_there(stand: Stand) -> None:
    stand.enrol("cell-1")
    send(stand, [head(5), *batches()])
    assert stand.send("GET", "/devices/cell-1").json()["last_seen_at"] is None


def test_what_is_refused_goes_to_quarantine_and_harms_nothing_else(stand: Stand) -> None:
    stand.enrol("cell-1")
    mixed = records.batch(
        records.entry(1, records.inspection(sequence=1)),
        records.entry(2, b'{"no": "inspection"}'),
        records.entry(3, records.inspection(device="cell-2", sequence=2)),
    )
    foreign = records.batch(records.entry(9, records.inspection()), device="cell-2")
    summary = send(stand, [head(4), mixed, b"rubbish", foreign, *batches()[1:2]]).json()
    assert summary["lanes"]["inspections"] == {"records": 4, "new": 1, "known": 0, "refused": 3, "failed": 0}
    assert (summary["batches"], summary["unreadable"]) == (3, 1)
    assert "1 lines cannot be read" in summary["trouble"]
    codes = sorted(one["code"] for one in stand.send("GET", "/quarantine").json()["items"])
    assert codes == ["message.foreign_id", "message.foreign_id", "message.undecodable", "message.undecodable"]
    assert (counts(stand)["InspectionRow"], counts(stand)["CounterCell"]) == (1, 1)


def test_a_file_that_was_cut_short_brings_what_it_has_and_says_so(stand: Stand) -> None:
    stand.enrol("cell-1")
    summary = send(stand, [head(5), *batches()[:2]]).json()
    assert "names 5 batches and holds 2" in summary["trouble"]
    assert counts(stand)["InspectionRow"] == 5


@pytest.mark.parametrize(
    ("lines", "status", "code"),
    [
        ([b"{}"], 400, "message.undecodable"),
        ([b""], 400, "message.undecodable"),
        ([b'{"schema":"lineside.export/2"}'], 400, "message.undecodable"),
        ([head(1, device="cell-2")], 403, "message.foreign_id"),
    ],
)
def test_what_is_no_export_of_this_device_is_refused_whole(
    stand: Stand, lines: list[bytes], status: int, code: str
) -> None:
    stand.enrol("cell-1")
    answer = send(stand, [*lines, *batches()])
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert set(counts(stand).values()) == {0}


def test_only_operators_bring_files_and_only_of_devices_that_are_known(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.enrol("cell-1")
    lines = [head(0)]
    assert send(stand, lines, by=Role.REVIEWER).status_code == 403
    assert send(stand, lines, device="cell-2").status_code == 404
    monkeypatch.setattr("fleet.app.MAX_EXPORT_BYTES", 10)
    assert send(stand, lines).status_code == 413
    monkeypatch.undo()
    assert send(stand, lines).status_code == 200
    stand.send("POST", "/devices/cell-1/revocation")
    assert send(stand, lines).json()["code"] == "device.revoked"


def cannot_digest(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let the fleet meet an error at the third inspection."""
    real = service.InspectionSlice.absorb

    def picky(self: Any, session: Any, messages: Any) -> Any:
        if any(message.seq == 3 for message in messages):
            raise error
        return real(self, session, messages)

    monkeypatch.setattr(service.InspectionSlice, "absorb", picky)


def audited(stand: Stand) -> list[dict[str, Any]]:
    items = stand.send("GET", "/audit").json()["items"]
    return [one["detail"] for one in items if one["action"] == "export.absorbed"]


def test_a_record_that_a_slice_cannot_digest_keeps_no_other_out(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    cannot_digest(monkeypatch, ValueError("cannot digest 3"))
    stand.enrol("cell-1")
    inspections = batches()[0]
    summary = send(stand, [head(1), inspections]).json()
    assert summary["lanes"]["inspections"] == {"records": 5, "new": 4, "known": 0, "refused": 0, "failed": 1}
    assert "1 record could not be stored" in summary["trouble"]
    assert audited(stand)[0]["trouble"] == summary["trouble"]
    junk = send(stand, [head(1), inspections, b"junk"]).json()
    assert "names 1 batches and holds 2, of which 1 cannot be read" in junk["trouble"]
    cut = send(stand, [head(2), inspections]).json()
    assert "it was cut short" in cut["trouble"]
    assert "1 record could not be stored" in cut["trouble"], "neither trouble hides the other"
    monkeypatch.undo()
    again = send(stand, [head(1), inspections]).json()
    assert (again["lanes"]["inspections"]["new"], again["trouble"]) == (1, ""), "bringing the file again mends it"


def test_what_was_taken_before_the_database_failed_is_audited(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    cannot_digest(monkeypatch, exc.OperationalError("INSERT", {}, OSError("disk full")))
    stand.enrol("cell-1")
    counted = batches()[1]
    assert send(stand, [head(2), counted, batches()[0]]).status_code == 503
    (entry,) = audited(stand)
    assert (entry["batches"], entry["lanes"]["counters"]["new"]) == (1, 1)
    assert entry["trouble"].startswith("After 1 batches the fleet failed")


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_lines_come_out_as_they_went_in_whatever_the_pieces(size: int) -> None:
    text = b"first\nsecond\n\nlast"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(exports.lines_of(pieces, 100)) == [b"first", b"second", b"", b"last"]
    assert list(exports.lines_of([*pieces, b"\n"], 100)) == [b"first", b"second", b"", b"last"]


def test_a_line_without_an_end_is_given_up_before_it_is_read(stand: Stand) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 64 * 1024
            yield b"x" * 64 * 1024

    with pytest.raises(LinesideError, match="Line 1 is over"):
        list(exports.lines_of(endless(), MAX_LINE_BYTES))
    assert read <= MAX_LINE_BYTES + 64 * 1024
    stand.enrol("cell-1")
    summary = send(stand, [head(2), batches()[0], b"x" * (MAX_LINE_BYTES + 1)]).json()
    assert "After 1 batches: Line 3 is over" in summary["trouble"]
    assert counts(stand)["InspectionRow"] == 5


def test_a_file_is_absorbed_from_the_command_line(
    stand: Stand,
    served: str,  # noqa: F811 - the fixture
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand.enrol("cell-1")
    file = tmp_path / "cell-1.export"
    told = batches()
    file.write_bytes(b"\n".join([head(5), *told]) + b"\n")
    status, out, _ = run(capsys, "devices", "absorb", str(file), "--url", served)
    assert status == 0
    assert "5 of 5 batches" in out
    status, out, _ = run(capsys, "devices", "absorb", str(file), "--url", served, "--json")
    found = json.loads(out)
    assert (found["schema"], found["lanes"]["inspections"]["known"]) == ("lineside.export.v1", 5)
    file.write_bytes(b"\n".join([head(9), *batches()]) + b"\n")
    status, out, err = run(capsys, "devices", "absorb", str(file), "--url", served)
    assert (status, "names 9 batches and holds 5" in err) == (4, True)
    cannot_digest(monkeypatch, ValueError("cannot digest 3"))
    file.write_bytes(b"\n".join([head(5), *told]) + b"\n")
    status, out, err = run(capsys, "devices", "absorb", str(file), "--url", served)
    assert (status, "1 record could not be stored" in err) == (4, True)
    assert out.splitlines()[1].split() == ["LANE", "RECORDS", "NEW", "KNOWN", "REFUSED", "FAILED"]
    assert ["inspections", "5", "0", "4", "0", "1"] in [line.split() for line in out.splitlines()]
    file.write_bytes(b"no export")
    assert run(capsys, "devices", "absorb", str(file), "--url", served)[0] == 4
    assert run(capsys, "devices", "absorb", str(tmp_path / "none"), "--url", served)[0] == 4


def test_a_file_of_nothing_but_lines_that_cannot_be_read_is_given_up(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "MAX_UNREADABLE", 5)
    stand.enrol("cell-1")
    found = send(stand, [head(20), *[b"x"] * 20]).json()
    assert found["unreadable"] == 5
    assert "5 lines cannot be read, and the rest was left" in found["trouble"]


def test_health_that_was_brought_in_a_file_is_not_shown_as_fresh(stand: Stand) -> None:
    stand.enrol("cell-1")
    health = Health(
        at=stand.now - timedelta(days=3),
        uptime_s=1.0,
        cpu_fraction=0.1,
        rss_bytes=1,
        disk_free_bytes=1,
        disk_free_fraction=0.5,
        outbox_unsettled=1,
        outbox_bytes=1,
        outbox_dropped=0,
    )
    entry = Entry(seq=1, body=msgspec.Raw(codec.encode(health)))
    batch = Batch(device="cell-1", epoch="0" * 16, lane=Lane.HEALTH, entries=(entry,))
    answer = send(stand, [head(1), codec.encode(batch)]).json()
    assert answer["lanes"]["health"]["new"] == 1
    with db.read_session(stand.engine) as session:
        (shown,) = board.take(session, lambda _: False, stand.now)["devices"]
    assert shown["health"] == "stale"
