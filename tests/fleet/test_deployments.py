"""Desired documents, the deployments they start, and what devices report about them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlmodel import select

from fleet import db
from fleet.deployments import progress, reports, running
from fleet.deployments.service import ReportSlice
from fleet.deployments.tables import Deployment
from tests.support.fleet_stand import START, Stand, digest_of
from wire.deployment import ENDS, FLEET_OWNED, TRANSITIONS, DeploymentReport, DeploymentState
from wire.messages import Lane

S = DeploymentState
LATEST = "that of the document in force"


def put(stand: Stand, body: Any, *, if_match: str | None = LATEST, device: str = "cell-1") -> Any:
    if if_match is LATEST:
        if_match = stand.tag(device)
    headers = {"If-Match": if_match} if if_match is not None else {}
    return stand.send("PUT", f"/devices/{device}/desired", json=body, headers=headers)


def tag_of(answer: Any) -> str:
    """Return the entity tag that a document which was sent must have."""
    return f'"{answer.json()["revision"]}-{digest_of(answer.content)[:8]}"'


def ready(stand: Stand, *releases: int) -> list[str]:
    """Enrol cell-1 and push releases of `parts`, each with a model of its own; returns the digests."""
    stand.enrol("cell-1")
    return [stand.push("parts", release, model=f"onnx {release}".encode()) for release in releases]


def states(stand: Stand) -> list[tuple[int, str]]:
    items = stand.send("GET", "/devices/cell-1/deployments").json()["items"]
    return [(item["release"], item["state"]) for item in items]


def report(deployment: str, digest: str, state: S, sequence: int, **more: Any) -> DeploymentReport:
    values = {"at": START, **more}
    return DeploymentReport(
        deployment_id=deployment, model="parts", digest=digest, state=state, sequence=sequence, **values
    )


def test_a_device_nobody_asked_anything_of_has_an_empty_document(stand: Stand) -> None:
    credential = stand.enrol("cell-1")
    answer = stand.send("GET", "/devices/cell-1/desired", by=credential)
    assert (answer.status_code, answer.headers["etag"]) == (200, tag_of(answer))
    assert answer.json()["revision"] == 0
    assert answer.json()["models"] == []


def test_a_change_needs_the_revision_it_is_based_on(stand: Stand) -> None:
    ready(stand, 1)
    body = {"models": [{"model": "parts", "release": 1}]}
    empty = stand.tag()
    missing = put(stand, body, if_match=None)
    assert (missing.status_code, missing.json()["code"]) == (428, "resource.precondition_required")
    stale = put(stand, body, if_match='"7"')
    assert (stale.status_code, stale.json()["code"]) == (412, "resource.stale")
    done = put(stand, body, if_match=empty)
    assert (done.status_code, done.json()["revision"], done.headers["etag"]) == (200, 1, tag_of(done))
    assert put(stand, {"models": []}, if_match=empty).status_code == 412
    assert stand.announcer.wakes == [("cell-1", 1)]


def test_the_device_reads_the_change_and_is_told_when_there_is_none(stand: Stand) -> None:
    credential = stand.enrol("cell-1")
    digest = stand.push("parts", 1)
    empty = stand.tag()
    stand.desire("cell-1", {"parts": 1})
    answer = stand.send("GET", "/devices/cell-1/desired", by=credential, headers={"If-None-Match": empty})
    assert answer.status_code == 200
    model = answer.json()["models"][0]
    assert (model["model"], model["active"], model["release"], model["shadow"]) == ("parts", digest, 1, None)
    tag = answer.headers["etag"]
    same = stand.send("GET", "/devices/cell-1/desired", by=credential, headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)


def test_two_documents_of_one_revision_are_two(stand: Stand) -> None:
    """An older database was restored, and the person asks again: the device has read another document 1."""
    credential = stand.enrol("cell-1")
    for release in (1, 2):
        stand.push("parts", release, model=f"onnx {release}".encode())
    backup = sqlite3.connect(":memory:")
    with closing(sqlite3.connect(stand.settings.database_path)) as database:
        database.backup(backup)
    stand.desire("cell-1", {"parts": 1})
    read = stand.send("GET", "/devices/cell-1/desired", by=credential)
    with closing(sqlite3.connect(stand.settings.database_path)) as database:
        backup.backup(database)
    assert stand.desire("cell-1", {"parts": 2})["revision"] == read.json()["revision"]
    headers = {"If-None-Match": read.headers["etag"]}
    answer = stand.send("GET", "/devices/cell-1/desired", by=credential, headers=headers)
    assert (answer.status_code, answer.json()["models"][0]["release"]) == (200, 2)
    stale = put(stand, {"models": []}, if_match=read.headers["etag"])
    assert (stale.status_code, stale.json()["code"]) == (412, "resource.stale")


def test_asking_for_the_same_again_changes_nothing(stand: Stand) -> None:
    ready(stand, 1)
    body = {
        "models": [{"model": "parts", "release": 1}],
        "stations": [
            {
                "station": "st-1",
                "recipes": [{"id": "default", "views": {"top": {"model": "parts"}}}],
                "sampling": {"floor_rate": 0.2},
            }
        ],
    }
    first = put(stand, body).json()
    again = put(stand, body)
    assert (again.status_code, again.json()) == (200, first)
    assert stand.announcer.wakes == [("cell-1", 1)]
    assert states(stand) == [(1, "queued")]


def test_revisions_and_salts_change_with_what_they_stand_for_only(stand: Stand) -> None:
    ready(stand, 1, 2)

    def body(release: int, rate: float, threshold: float) -> dict[str, Any]:
        views = {"top": {"model": "parts", "parameters": {"scratch-ng": threshold}}}
        station = {
            "station": "st-1",
            "recipes": [{"id": "default", "views": views}],
            "sampling": {"floor_rate": rate},
        }
        return {"models": [{"model": "parts", "release": release}], "stations": [station]}

    first = put(stand, body(1, 0.2, 0.5)).json()["stations"][0]
    second = put(stand, body(2, 0.2, 0.5)).json()["stations"][0]
    assert second == first
    third = put(stand, body(2, 0.5, 0.5)).json()["stations"][0]
    assert third["recipes"] == first["recipes"]
    assert (first["sampling"]["revision"], third["sampling"]["revision"]) == (1, 2)
    assert third["sampling"]["salt"] != first["sampling"]["salt"]
    fourth = put(stand, body(2, 0.5, 0.6)).json()["stations"][0]
    assert fourth["sampling"] == third["sampling"]
    assert (first["recipes"][0]["revision"], fourth["recipes"][0]["revision"]) == (1, 2)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"models": [{"model": "parts", "release": 9}]}, 404, "resource.not_found"),
        ({"models": [{"model": "none", "release": 1}]}, 404, "resource.not_found"),
        ({"models": [{"model": "parts", "release": 1}] * 2}, 422, "request.invalid"),
        ({"stations": [{"station": "st-1"}] * 2}, 422, "request.invalid"),
        ({"models": [{"model": "parts", "release": "1"}]}, 400, "message.undecodable"),
        ({"models": [{"model": "parts", "release": 0}]}, 400, "message.undecodable"),
        ({"stations": [{"station": "st-1", "sampling": {"floor_rate": 0.0}}]}, 400, "message.undecodable"),
        ([], 400, "message.undecodable"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_and_changes_nothing(
    stand: Stand, body: Any, status: int, code: str
) -> None:
    ready(stand, 1)
    answer = put(stand, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert stand.send("GET", "/devices/cell-1/desired").json()["revision"] == 0
    assert stand.announcer.wakes == []


def test_a_parameter_outside_the_models_bounds_is_refused(stand: Stand) -> None:
    ready(stand, 1)
    views = {"top": {"model": "parts", "parameters": {"scratch-ng": 0.95}}}
    body = {
        "models": [{"model": "parts", "release": 1}],
        "stations": [{"station": "st-1", "recipes": [{"id": "default", "views": views}]}],
    }
    answer = put(stand, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "deployment.out_of_bounds")
    assert "0.2 to 0.9" in answer.json()["detail"]


def test_a_newer_version_supersedes_one_on_its_way_and_leaves_one_that_is_there(stand: Stand) -> None:
    _, second, _ = ready(stand, 1, 2, 3)
    stand.desire("cell-1", {"parts": 1})
    deployment = stand.desire("cell-1", {"parts": 2})["models"][0]["deployment_id"]
    assert states(stand) == [(2, "queued"), (1, "superseded")]
    stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [report(deployment, second, S.ALREADY_INSTALLED, 1)])
    stand.desire("cell-1", {"parts": 3})
    assert states(stand) == [(3, "queued"), (2, "already_installed"), (1, "superseded")]
    stand.desire("cell-1", {})
    assert states(stand)[0] == (3, "canceled")


def test_a_version_that_failed_is_tried_again_only_when_asked_to(stand: Stand) -> None:
    (digest,) = ready(stand, 1)
    first = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    stand.absorb(
        ReportSlice(),
        "cell-1",
        Lane.DEPLOYMENTS,
        [report(first, digest, S.REFUSED, 1, code="model.golden_mismatch", reason="2 of 4 samples differ.")],
    )
    assert stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"] == first
    again = stand.desire("cell-1", {"parts": 1}, retry=True)["models"][0]["deployment_id"]
    assert again != first
    assert states(stand) == [(1, "queued"), (1, "refused")]
    assert stand.desire("cell-1", {"parts": 1}, retry=True)["models"][0]["deployment_id"] == again


def test_reports_move_a_deployment_and_are_all_kept(stand: Stand) -> None:
    (digest,) = ready(stand, 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    way = [S.DOWNLOADING, S.VERIFYING, S.SELF_TESTING, S.STAGED, S.ACTIVATING, S.PROBATION, S.SUCCEEDED]
    reports = [report(deployment, digest, state, n) for n, state in enumerate(way, start=1)]
    assert stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, reports).accepted == 7
    assert stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, reports).accepted == 7  # sent again
    detail = stand.send("GET", f"/deployments/{deployment}").json()
    assert detail["deployment"]["state"] == "succeeded"
    assert detail["deployment"]["irregular"] == 0
    assert detail["deployment"]["ended_at"] is not None
    assert [one["report"]["state"] for one in detail["reports"]] == [state.value for state in way]


def test_reports_out_of_order_settle_and_the_newest_counts(stand: Stand) -> None:
    (digest,) = ready(stand, 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    for state, sequence in [(S.DOWNLOADING, 1), (S.SELF_TESTING, 3), (S.VERIFYING, 2)]:
        result = stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [report(deployment, digest, state, sequence)])
        assert (result.accepted, result.refused) == (1, ())
    detail = stand.send("GET", f"/deployments/{deployment}").json()
    assert detail["deployment"]["state"] == "self_testing"
    assert [one["report"]["sequence"] for one in detail["reports"]] == [1, 2, 3]


def test_a_leap_of_the_sequence_takes_no_history_away(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    (digest,) = ready(stand, 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]

    def kept(state: S, *sequences: int) -> list[int]:
        for sequence in sequences:
            stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [report(deployment, digest, state, sequence)])
        shown = stand.send("GET", f"/deployments/{deployment}").json()["reports"]
        return [one["report"]["sequence"] for one in shown]

    leap = 1_700_000_000  # where a device begins that has lost its journal
    assert kept(S.DOWNLOADING, 1, 2, 3, leap) == [1, 2, 3, leap]
    monkeypatch.setattr(reports, "REPORTS_KEPT", 5)
    assert kept(S.DOWNLOADING, leap + 1, leap + 2) == [2, 3, leap, leap + 1, leap + 2], "the highest stay"
    assert kept(S.DOWNLOADING, 1) == [2, 3, leap, leap + 1, leap + 2]


def test_a_late_report_does_not_open_what_the_fleet_has_ended_but_is_kept(stand: Stand) -> None:
    first, _ = ready(stand, 1, 2)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    stand.desire("cell-1", {"parts": 2})
    for _ in range(2):
        stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [report(deployment, first, S.DOWNLOADING, 1)])
    detail = stand.send("GET", f"/deployments/{deployment}").json()
    assert detail["deployment"]["state"] == "superseded"
    assert detail["deployment"]["irregular"] == 0
    assert [(one["irregular"], one["late"]) for one in detail["reports"]] == [(False, True)]


def test_reports_about_what_is_not_this_devices_are_refused(stand: Stand) -> None:
    (digest,) = ready(stand, 1)
    stand.enrol("cell-2")
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    other = "01890000-0000-7000-8000-000000000000"
    cases = [
        ("cell-2", report(deployment, digest, S.DOWNLOADING, 1), "message.foreign_id"),
        ("cell-1", report(other, digest, S.QUEUED, 1), "message.invalid_value"),
        ("cell-1", report(other, digest, S.DOWNLOADING, 2**60), "message.invalid_value"),
        ("cell-1", report(deployment, "f" * 64, S.DOWNLOADING, 1), "message.invalid_value"),
        ("cell-1", report(deployment, digest, S.CANCELED, 1), "message.invalid_value"),
        ("cell-1", report(deployment, digest, S.DOWNLOADING, 2**60), "message.invalid_value"),
    ]
    for device, body, code in cases:
        result = stand.absorb(ReportSlice(), device, Lane.DEPLOYMENTS, [body])
        assert (result.accepted, [refused.code for refused in result.refused]) == (0, [code])
    good = report(deployment, digest, S.DOWNLOADING, 1)
    mixed = stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [cases[1][1], good])
    assert (mixed.accepted, len(mixed.refused)) == (1, 1)
    assert states(stand) == [(1, "downloading")]


@pytest.mark.parametrize("state", list(S))
@pytest.mark.parametrize("reported", list(S))
def test_every_step_of_a_report_follows_the_table(state: S, reported: S) -> None:
    result = progress.after(state, 4, reported, 5)
    if reported in FLEET_OWNED:
        assert result is None
        return
    assert result is not None
    assert progress.after(state, 5, reported, 5) == progress.Progress(state=state, moved=False, irregular=False)
    if state in ENDS & FLEET_OWNED:  # the device learns of it later: expected, and it opens nothing
        assert result == progress.Progress(state=state, moved=False, irregular=False, late=True)
    elif state is reported or reported in TRANSITIONS[state]:
        assert result == progress.Progress(state=reported, moved=True, irregular=False)
    elif state in ENDS:
        assert result == progress.Progress(state=state, moved=False, irregular=True)
    else:
        assert result == progress.Progress(state=reported, moved=True, irregular=True)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def observe(stand: Stand, minutes: float, digest: str | None, *, received: float | None = None) -> None:
    with db.write_session(stand.engine) as session:
        running.observe(
            session,
            device="cell-1",
            model="parts",
            digest=digest,
            at=at(minutes),
            received_at=at(minutes if received is None else received),
            deployment_id=None,
        )


def line(stand: Stand) -> list[tuple[str | None, datetime, datetime | None]]:
    with db.read_session(stand.engine) as session:
        found = running.intervals(session, "cell-1", "parts")
    return [(one.digest, one.since, one.until) for one in found]


def test_intervals_say_what_ran_from_when_to_when(stand: Stand) -> None:
    stand.enrol("cell-1")
    for minutes, digest in [(0, "a"), (1, "a"), (5, "b"), (6, "b"), (9, None), (12, "b")]:
        observe(stand, minutes, digest)
    assert line(stand) == [
        ("a", at(0), at(5)),
        ("b", at(5), at(9)),
        (None, at(9), at(12)),
        ("b", at(12), None),
    ]


def test_a_report_that_waited_in_the_outbox_moves_the_change_to_its_own_time(stand: Stand) -> None:
    """Offline: b was activated at 5 and reverted at 7, then b came back at 9; the birth at 20 arrives first."""
    stand.enrol("cell-1")
    observe(stand, 0, "a")
    observe(stand, 20, "b")
    for minutes, digest in [(5, "b"), (7, "a"), (9, "b")]:
        observe(stand, minutes, digest, received=21)
    assert line(stand) == [("a", at(0), at(5)), ("b", at(5), at(7)), ("a", at(7), at(9)), ("b", at(9), None)]


@pytest.mark.parametrize("wrong", [-1e6, 1e6])
def test_a_clock_that_cannot_be_right_does_not_bend_the_line(stand: Stand, wrong: float) -> None:
    stand.enrol("cell-1")
    observe(stand, 0, "a")
    observe(stand, wrong, "b", received=5)
    assert line(stand) == [("a", at(0), at(5)), ("b", at(5), None)]


def test_intervals_are_read_over_the_api(stand: Stand) -> None:
    (digest,) = ready(stand, 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    body = report(deployment, digest, S.SUCCEEDED, 1, inferring_digest=digest)
    stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [body])
    items = stand.send("GET", "/devices/cell-1/intervals").json()["items"]
    assert [(one["digest"], one["until"], one["deployment_id"]) for one in items] == [(digest, None, deployment)]


def test_deployments_are_found_by_what_they_are(stand: Stand) -> None:
    ready(stand, 1, 2)
    stand.enrol("cell-2")
    stand.desire("cell-1", {"parts": 1})
    stand.desire("cell-2", {"parts": 1})
    stand.desire("cell-2", {"parts": 2})
    found = stand.send("GET", "/deployments?state=superseded").json()["items"]
    assert [(one["device"], one["release"]) for one in found] == [("cell-2", 1)]
    assert len(stand.send("GET", "/deployments?device=cell-2").json()["items"]) == 2
    first = stand.send("GET", "/deployments?limit=2").json()
    rest = stand.send("GET", "/deployments", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [one["device"] for one in [*first["items"], *rest["items"]]] == ["cell-2", "cell-2", "cell-1"]


def test_revoking_a_device_removes_what_was_on_its_way(stand: Stand) -> None:
    ready(stand, 1)
    stand.desire("cell-1", {"parts": 1})
    stand.send("POST", "/devices/cell-1/revocation")
    assert states(stand) == [(1, "removed")]
    answer = put(stand, {"models": []})
    assert (answer.status_code, answer.json()["code"]) == (403, "device.revoked")
    with db.read_session(stand.engine) as session:
        assert session.exec(select(Deployment)).one().ended_at == stand.now
