"""Deployments known by a report alone, ones that are taken back, and what deviates from what is desired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import func, select

from fleet import db
from fleet.auth.actor import Role
from fleet.deployments import reports
from fleet.deployments.deviation import Account, Kind, Placed, of
from fleet.deployments.reports import ReportSlice
from fleet.deployments.tables import Deployment
from fleet.devices.service import absorb_state
from fleet.pages import deployment_lines
from fleet.web import write_cursor
from tests.support.fleet_stand import MANIFEST, START, Stand
from wire.deployment import DeploymentReport, DeploymentState, Hold, HoldReason, Origin, ProbationReport
from wire.desired import DesiredModel
from wire.messages import Lane, Reported, RunningModel, State

S = DeploymentState
LOCAL = "01890000-0000-7000-8000-000000000001"
FOREIGN = "d" * 64


def report(deployment: str, digest: str, state: S, sequence: int = 1, **more: Any) -> DeploymentReport:
    values = {"at": START, "inferring_digest": None, **more}
    return DeploymentReport(
        deployment_id=deployment, model="parts", digest=digest, state=state, sequence=sequence, **values
    )


def take(stand: Stand, *bodies: DeploymentReport, device: str = "cell-1") -> Any:
    return stand.absorb(ReportSlice(), device, Lane.DEPLOYMENTS, bodies)


def says(stand: Stand, digest: str | None, revision: int, device: str = "cell-1") -> None:
    """Let a device say what it runs."""
    reported = Reported(
        desired_revision=1,
        agent_version="0.1",
        runtime_version="1",
        architecture="x86_64",
        models=(RunningModel(model="parts", digest=digest),),
    )
    state = State(device=device, boot=1, revision=revision, online=True, at=stand.now, reported=reported)
    with db.write_session(stand.engine) as session:
        absorb_state(session, state, stand.now)


def shown(stand: Stand, deployment: str) -> dict[str, Any]:
    found: dict[str, Any] = stand.send("GET", f"/deployments/{deployment}").json()["deployment"]
    return found


def test_an_import_at_the_device_is_known_by_its_first_report(stand: Stand) -> None:
    stand.enrol("cell-1")
    local: dict[str, Any] = {"origin": Origin.DEVICE, "by": "anna"}
    way = [S.DOWNLOADING, S.VERIFYING, S.SELF_TESTING, S.STAGED, S.ACTIVATING, S.PROBATION, S.SUCCEEDED]
    sent = [report(LOCAL, FOREIGN, state, n, **local) for n, state in enumerate(way, start=1)]
    assert take(stand, *sent).refused == ()
    assert take(stand, *sent).duplicates == 7
    found = shown(stand, LOCAL)
    assert (found["origin"], found["by"], found["created_by"]) == ("device", "anna", "device: anna")
    assert (found["state"], found["release"], found["irregular"]) == ("succeeded", None, 0)
    assert found["installed_at"] is not None
    known = stand.push("parts", 4)
    other = LOCAL[:-1] + "2"
    take(stand, report(other, known, S.DOWNLOADING, **local))
    assert shown(stand, other)["release"] == 4, "the registry knows this one"
    third = LOCAL[:-1] + "3"
    take(stand, report(third, "e" * 64, S.DOWNLOADING, release=7, **local))
    assert shown(stand, third)["release"] == 7, "the device told it"


def test_of_a_version_that_the_registry_knows_its_release_is_believed(stand: Stand) -> None:
    stand.enrol("cell-1")
    known = stand.push("parts", 4)
    # an agent whose index of the version is damaged tells 0
    take(stand, report(LOCAL, known, S.DOWNLOADING, release=0, origin=Origin.DEVICE))
    assert shown(stand, LOCAL)["release"] == 4
    other = LOCAL[:-1] + "2"
    take(stand, report(other, FOREIGN, S.DOWNLOADING, release=0, origin=Origin.DEVICE))
    assert shown(stand, other)["release"] is None, "no version has release 0"


def test_a_version_that_only_calls_itself_a_release_is_told_from_that_release(stand: Stand) -> None:
    stand.enrol("cell-1")
    stand.push("parts", 4)
    five = stand.push("parts", 5, model=b"5")
    stand.advance(minutes=1)
    local = {"origin": Origin.DEVICE, "by": "anna", "at": stand.now}
    take(stand, report(LOCAL, FOREIGN, S.SUCCEEDED, 7, release=4, inferring_digest=FOREIGN, **local))
    says(stand, FOREIGN, 1)
    path = "/devices/cell-1/models/parts/explain"
    found = stand.send("GET", path, params={"release": "4"}).json()
    assert "cell-1 has not got parts release 4 because nobody has asked for it" in found["answer"]
    texts = [fact["text"] for fact in found["facts"]]
    assert any(text.startswith("cell-1 runs parts release 4 (dddddddddddd) since") for text in texts), texts
    itself = stand.send("GET", path, params={"digest": FOREIGN}).json()
    assert itself["answer"].startswith("cell-1 has parts release 4 (dddddddddddd): it runs it")
    asked = stand.desire("cell-1", {"parts": 5})["models"][0]["deployment_id"]
    second = LOCAL[:-1] + "2"
    take(stand, report(second, FOREIGN, S.DOWNLOADING, release=4, **local))
    behind = stand.send("GET", path, params={"release": "5"}).json()["answer"]
    assert "because release 4 (dddddddddddd) was asked for at the device by anna and is downloading" in behind
    take(stand, report(asked, five, S.REFUSED, 2))
    take(stand, report(second, FOREIGN, S.ALREADY_INSTALLED, 2, release=4, **local))
    (wrong,) = deviations(stand)[1]
    assert wrong.startswith("runs release 4 (dddddddddddd), asked for at the device by anna; desired is release 5")


def test_a_report_on_a_deployment_the_database_forgot_is_taken_and_says_so(stand: Stand) -> None:
    stand.enrol("cell-1")
    assert take(stand, report(LOCAL, FOREIGN, S.SUCCEEDED, 8, inferring_digest=FOREIGN)).refused == ()
    found = shown(stand, LOCAL)
    assert (found["origin"], found["created_by"], found["revision"]) == ("fleet", "unknown", None)
    (interval,) = stand.send("GET", "/devices/cell-1/intervals").json()["items"]
    assert (interval["digest"], interval["deployment_id"]) == (FOREIGN, LOCAL)
    stand.enrol("cell-2")
    foreign = take(stand, report(LOCAL, FOREIGN, S.SUCCEEDED, 9), device="cell-2")
    assert [one.code for one in foreign.refused] == ["message.foreign_id"]


def test_deployments_that_come_by_reports_alone_are_bounded(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "FOUND_KEPT", 5)
    stand.enrol("cell-1")
    for number in range(12):
        take(stand, report(f"01890000-0000-7000-8000-{number:012d}", FOREIGN, S.SUCCEEDED, origin=Origin.DEVICE))
    with db.read_session(stand.engine) as session:
        assert session.exec(select(func.count()).select_from(Deployment)).one() <= 6


def test_a_report_older_than_all_that_are_kept_settles_too(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "FOUND_KEPT", 5)
    stand.enrol("cell-1")
    stand.advance(hours=12)
    for number in range(7):
        body = report(
            f"01890000-0000-7000-8000-{number:012d}",
            FOREIGN,
            S.SUCCEEDED,
            origin=Origin.DEVICE,
            at=stand.now - timedelta(hours=number),
        )
        assert take(stand, body).accepted == 1
        assert shown(stand, body.deployment_id)["state"] == "succeeded", "what has just come is never what goes"
    with db.read_session(stand.engine) as session:
        assert session.exec(select(func.count()).select_from(Deployment)).one() <= 6


def test_probation_and_the_words_of_a_hold_are_shown(stand: Stand) -> None:
    stand.enrol("cell-1")
    digest = stand.push("parts", 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    hold = Hold(
        reason=HoldReason.AWAITING_CONFIRMATION,
        deadline=START + timedelta(days=2),
        text="NG rose from 2 % to 31 %: show parts of known truth.",
    )
    seen = ProbationReport(parts=140, faults=2, parts_needed=100, look_p95_ms=12.5, shift="NG rose")
    take(stand, report(deployment, digest, S.PROBATION, 6, hold=hold, probation=seen))
    found = shown(stand, deployment)
    assert found["hold_text"] == hold.text
    assert (found["probation"]["parts"], found["probation"]["shift"]) == (140, "NG rose")
    assert found["revision"] == 1
    take(stand, report(deployment, digest, S.SUCCEEDED, 7))
    found = shown(stand, deployment)
    assert (found["hold_text"], found["hold_reason"]) == ("", None)
    assert found["probation"]["parts"] == 140, "what it was judged by stays"


def test_what_a_person_at_the_device_asked_for_is_not_superseded_from_afar(stand: Stand) -> None:
    stand.enrol("cell-1")
    stand.push("parts", 1)
    take(stand, report(LOCAL, FOREIGN, S.SELF_TESTING, 3, origin=Origin.DEVICE, by="anna"))
    stand.desire("cell-1", {"parts": 1})
    stand.desire("cell-1", {})
    assert shown(stand, LOCAL)["state"] == "self_testing"
    stand.send("POST", "/devices/cell-1/revocation")
    assert shown(stand, LOCAL)["state"] == "removed"


def cancel(stand: Stand, deployment: str, **options: Any) -> Any:
    return stand.send("POST", f"/deployments/{deployment}/cancel", json={"reason": "wrong lot"}, **options)


def two(stand: Stand) -> tuple[str, str, str, str]:
    """Release 1 succeeded on cell-1 and release 2 is on its way; returns both deployments and digests."""
    stand.enrol("cell-1")
    digests = stand.push("parts", 1, model=b"1"), stand.push("parts", 2, model=b"2")
    first = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    take(stand, report(first, digests[0], S.SUCCEEDED, 7, inferring_digest=digests[0]))
    stand.advance(hours=1)
    second = stand.desire("cell-1", {"parts": 2}, shadow=1)["models"][0]["deployment_id"]
    return first, second, *digests


def test_a_canceled_deployment_gives_the_device_back_what_ran_before(stand: Stand) -> None:
    first, second, digest, _ = two(stand)
    wakes = len(stand.announcer.wakes)
    answer = cancel(stand, second)
    assert (answer.status_code, answer.json()["state"], answer.headers["etag"]) == (200, "canceled", stand.tag())
    assert answer.json()["reason"] == "operator:admin took it back: wrong lot"
    (model,) = stand.send("GET", "/devices/cell-1/desired").json()["models"]
    assert (model["release"], model["active"], model["deployment_id"]) == (1, digest, first)
    assert model["shadow"] is None, "a version is not the shadow of itself"
    assert stand.announcer.wakes[wakes:] == [("cell-1", 3)]
    assert shown(stand, first)["state"] == "succeeded"
    assert cancel(stand, second).headers["etag"] == answer.headers["etag"], "done twice it changes nothing"
    assert len(stand.announcer.wakes) == wakes + 1
    actions = [one for one in stand.send("GET", "/audit").json()["items"] if one["action"] == "deployment.canceled"]
    assert len(actions) == 1
    # the device was past the swap: it reverts, and says so later
    take(stand, report(second, shown(stand, second)["digest"], S.FAILED_REVERTED, 9, code="deployment.withdrawn"))
    assert (shown(stand, second)["state"], shown(stand, second)["irregular"]) == ("canceled", 0)
    # the former version stays the one that is asked for
    assert stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"] == first


def test_a_recipe_that_the_former_version_does_not_allow_is_named_and_the_cancel_goes_through(stand: Stand) -> None:
    stand.enrol("cell-1")
    manifest = MANIFEST.replace("max = 0.9", "max = 0.7")
    digest = stand.push("parts", 1, model=b"1", manifest=manifest)
    stand.push("parts", 2, model=b"2")
    first = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    take(stand, report(first, digest, S.SUCCEEDED, 7, inferring_digest=digest))
    stand.advance(hours=1)
    views = {"top": {"model": "parts", "parameters": {"scratch-ng": 0.85}}, "side": {"model": "others"}}
    stations = [{"station": "st-1", "recipes": [{"id": "nut", "views": views}]}]
    body = {"models": [{"model": "parts", "release": 2}], "stations": stations}
    answer = stand.send("PUT", "/devices/cell-1/desired", json=body, headers={"If-Match": stand.tag()})
    canceled = cancel(stand, answer.json()["models"][0]["deployment_id"])
    assert canceled.status_code == 200
    assert canceled.json()["reason"] == (
        "operator:admin took it back: wrong lot. The device refuses what release 1 does not allow: Station st-1, "
        "recipe nut, view top: scratch-ng = 0.85 is outside 0.2 to 0.7, which parts allows."
    )
    document = stand.send("GET", "/devices/cell-1/desired").json()
    assert document["models"][0]["release"] == 1
    assert document["stations"] == answer.json()["stations"]


def test_a_first_deployment_that_is_canceled_leaves_no_version(stand: Stand) -> None:
    stand.enrol("cell-1")
    digest = stand.push("parts", 1, model=b"1")
    stand.push("parts", 2, model=b"2")
    refused = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    take(stand, report(refused, digest, S.REFUSED, code="model.golden_mismatch"))  # it never ran
    deployment = stand.desire("cell-1", {"parts": 2})["models"][0]["deployment_id"]
    assert cancel(stand, deployment).status_code == 200
    assert stand.send("GET", "/devices/cell-1/desired").json()["models"] == []


def test_going_back_means_what_succeeded_last_also_where_a_person_did_that(stand: Stand) -> None:
    """Release 2 ran, anna rolled back to 1, then 3 was asked for and taken back: 1 it is."""
    stand.enrol("cell-1")
    digests = [stand.push("parts", n, model=f"{n}".encode()) for n in (1, 2, 3)]
    for number in (0, 1):
        deployment = stand.desire("cell-1", {"parts": number + 1})["models"][0]["deployment_id"]
        stand.advance(hours=1)
        take(stand, report(deployment, digests[number], S.SUCCEEDED, 7, at=stand.now))
    stand.advance(hours=1)
    take(stand, report(LOCAL, digests[0], S.SUCCEEDED, 7, at=stand.now, origin=Origin.DEVICE, by="anna"))
    third = stand.desire("cell-1", {"parts": 3})["models"][0]["deployment_id"]
    cancel(stand, third)
    (model,) = stand.send("GET", "/devices/cell-1/desired").json()["models"]
    assert (model["release"], model["deployment_id"]) == (1, LOCAL)


def test_what_cannot_be_canceled_is_refused_in_words(stand: Stand) -> None:
    first, second, *_ = two(stand)
    ended = cancel(stand, first)
    assert (ended.status_code, ended.json()["code"]) == (409, "resource.conflict")
    assert "has ended already: succeeded" in ended.json()["detail"]
    take(stand, report(LOCAL, FOREIGN, S.PROBATION, 5, origin=Origin.DEVICE, by="anna"))
    local = cancel(stand, LOCAL)
    assert (local.status_code, "only there can it be taken back" in local.json()["detail"]) == (409, True)
    assert cancel(stand, "nothing").status_code == 404
    assert cancel(stand, second, headers={"If-Match": '"1-0123abcd"'}).status_code == 412
    assert cancel(stand, second, by=Role.VIEWER).status_code == 403
    assert stand.send("POST", f"/deployments/{second}/cancel", json={"reason": ""}).status_code == 400
    assert shown(stand, second)["state"] == "queued"
    assert cancel(stand, second, headers={"If-Match": stand.tag()}).status_code == 200


def placed(digest: str = "b", release: int | None = 2, state: S = S.SUCCEEDED, **more: Any) -> Placed:
    return Placed(digest=digest, release=release, state=state, **more)


BASE = Account(
    model="parts",
    runs="b",
    installed=placed(),
    on_the_way=(),
    desired=None,
    deployment=None,
    releases={"a": 1, "b": 2, "c": 3},
)
THREE = DesiredModel(model="parts", active="c", release=3, deployment_id=LOCAL)


@pytest.mark.parametrize(
    ("account", "kind", "text"),
    [
        (BASE, None, ""),
        (replace(BASE, runs="a"), Kind.DRIFT, "runs release 1, but the newest deployment that succeeded put release 2"),
        (replace(BASE, runs=None), Kind.DRIFT, "runs nothing, but the newest deployment that succeeded put release 2"),
        (replace(BASE, runs="f" * 64), Kind.DRIFT, "runs an unknown release (ffffffffffff), but"),
        (replace(BASE, runs="a", on_the_way=[placed("c", 3, S.PROBATION)]), None, ""),
        (replace(BASE, runs="a", on_the_way=[placed("c", 3, S.QUEUED)]), Kind.DRIFT, "runs release 1"),
        # its state has come, and the report on it has not yet
        (replace(BASE, runs="c", on_the_way=[placed("c", 3, S.STAGED)]), None, ""),
        (
            replace(
                BASE,
                installed=placed(origin=Origin.DEVICE, by="anna"),
                desired=THREE,
                deployment=placed("c", 3),
            ),
            Kind.NOT_DESIRED,
            "runs release 2, asked for at the device by anna; desired is release 3",
        ),
        (
            replace(BASE, desired=THREE, deployment=placed("c", 3, S.FAILED_REVERTED, code="deployment.too_slow")),
            Kind.NOT_DESIRED,
            "runs release 2; desired is release 3, whose deployment ended as failed reverted (deployment.too_slow)",
        ),
        (replace(BASE, desired=THREE, deployment=placed("c", 3, S.DOWNLOADING)), None, ""),
        (replace(BASE, runs="c", installed=placed("c", 3), desired=THREE, deployment=placed("c", 3)), None, ""),
    ],
)
def test_drift_and_what_is_not_desired_are_told_apart(account: Account, kind: Kind | None, text: str) -> None:
    found = of(account)
    assert (found.kind if found else None) == kind
    if found is not None:
        assert found.text.startswith(text), found.text


def deviations(stand: Stand) -> tuple[list[str], Sequence[str]]:
    device = stand.send("GET", "/devices/cell-1").json()
    return device["drift"], [one["text"] for one in device["deviations"]]


def test_a_rollback_at_the_device_is_no_drift_but_is_not_what_is_desired(stand: Stand) -> None:
    stand.enrol("cell-1")
    digests = [stand.push("parts", n, model=f"{n}".encode()) for n in (1, 2)]
    for number, digest in enumerate(digests):
        deployment = stand.desire("cell-1", {"parts": number + 1})["models"][0]["deployment_id"]
        stand.advance(hours=1)
        take(stand, report(deployment, digest, S.SUCCEEDED, 7, at=stand.now, inferring_digest=digest))
        says(stand, digest, number + 1)
    assert deviations(stand) == ([], [])
    stand.advance(hours=1)
    says(stand, digests[0], 5)
    assert deviations(stand)[0] == ["parts"], "nobody has accounted for it yet"
    local = report(
        LOCAL, digests[0], S.SUCCEEDED, 6, at=stand.now, origin=Origin.DEVICE, by="anna", inferring_digest=digests[0]
    )
    take(stand, local)
    assert deviations(stand) == ([], ["runs release 1, asked for at the device by anna; desired is release 2"])
    stand.advance(hours=1)
    says(stand, FOREIGN, 6)
    assert deviations(stand)[0] == ["parts"]
    found = stand.send("GET", "/devices/cell-1/intervals?model=parts").json()["items"]
    assert [one["digest"] for one in found] == [*digests, digests[0], FOREIGN]


def test_a_version_that_a_person_went_back_from_can_be_asked_for_again(stand: Stand) -> None:
    stand.enrol("cell-1")
    two, three = stand.push("parts", 2), stand.push("parts", 3)
    first = stand.desire("cell-1", {"parts": 3})["models"][0]["deployment_id"]
    take(stand, report(first, three, S.SUCCEEDED, 8, inferring_digest=three))
    says(stand, three, 1)
    assert stand.desire("cell-1", {"parts": 3}, retry=True)["models"][0]["deployment_id"] == first, "it runs there"
    stand.advance(hours=1)
    local = {"origin": Origin.DEVICE, "by": "anna", "at": stand.now, "inferring_digest": two}
    take(stand, report(LOCAL, two, S.SUCCEEDED, 8, **local))
    again = stand.desire("cell-1", {"parts": 3}, retry=True)["models"][0]["deployment_id"]
    assert again != first, "the device never does the first one again"
    assert stand.desire("cell-1", {"parts": 3}, retry=True)["models"][0]["deployment_id"] == again, "it is on its way"


def test_what_was_canceled_too_late_can_be_taken_back_by_asking_for_the_former_version_again(stand: Stand) -> None:
    stand.enrol("cell-1")
    two, three = stand.push("parts", 2), stand.push("parts", 3)
    former = stand.desire("cell-1", {"parts": 2})["models"][0]["deployment_id"]
    take(stand, report(former, two, S.SUCCEEDED, 8, inferring_digest=two))
    late = stand.desire("cell-1", {"parts": 3})["models"][0]["deployment_id"]
    assert stand.send("POST", f"/deployments/{late}/cancel", json={"reason": "wrong lot"}).status_code == 200
    stand.advance(hours=1)
    take(stand, report(late, three, S.SUCCEEDED, 8, at=stand.now, inferring_digest=three))
    says(stand, three, 1)
    (wrong,) = stand.send("GET", "/devices/cell-1").json()["deviations"]
    assert wrong["text"] == "runs release 3; desired is release 2"
    assert stand.desire("cell-1", {"parts": 2})["models"][0]["deployment_id"] == former
    assert stand.desire("cell-1", {"parts": 2}, retry=True)["models"][0]["deployment_id"] not in (former, late)


def test_a_device_that_begins_deployment_after_deployment_and_ends_none_fills_no_table(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "FOUND_KEPT", 5)
    stand.enrol("cell-1")
    digest = stand.push("parts", 1)
    asked = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    for number in range(12):
        take(stand, report(f"01890000-0000-7000-8000-{number:012d}", FOREIGN, S.DOWNLOADING, origin=Origin.DEVICE))
    with db.read_session(stand.engine) as session:
        assert session.exec(select(func.count()).select_from(Deployment)).one() <= 7
    take(stand, report(asked, digest, S.SUCCEEDED, 8))
    assert shown(stand, asked)["state"] == "succeeded", "what the fleet asked for is never dropped"


def test_the_newest_deployments_stand_first_whatever_clock_made_their_ids(stand: Stand) -> None:
    stand.enrol("cell-1")
    stand.push("parts", 1)
    ahead, behind = "ffffffff-ffff-7000-8000-000000000001", "00000000-0001-7000-8000-000000000001"
    take(stand, report(ahead, FOREIGN, S.DOWNLOADING, origin=Origin.DEVICE, at=START + timedelta(days=4000)))
    stand.advance(hours=1)
    asked = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    stand.advance(hours=1)
    take(stand, report(behind, FOREIGN, S.DOWNLOADING, origin=Origin.DEVICE, at=START - timedelta(days=9000)))
    found: list[str] = []
    cursor = None
    for _ in range(3):
        params = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = stand.send("GET", "/deployments", params=params).json()
        found += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert (found, cursor) == ([behind, asked, ahead], None)
    with db.read_session(stand.engine) as session:
        assert [line["key"] for line in deployment_lines.recent(session)] == found
    early = ["0001-01-01T00:00:00+14:00", "x"]  # no time in UTC
    for bad in (["x", "y"], ["2026-03-01T12:00:00Z"], [1, 2], early):
        assert stand.send("GET", "/deployments", params={"cursor": write_cursor(bad)}).status_code == 422
