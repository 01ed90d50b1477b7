"""Pairs of a candidate and the active version: each once, bounded, compared by version and device."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from fleet import db
from fleet.devices.service import HealthSlice, absorb_state
from fleet.ingest import seams
from fleet.shadow import matrix
from fleet.shadow.absorb import ShadowSlice
from fleet.shadow.tables import ShadowPairRow
from tests.support.fleet_stand import START, Stand, digest_of
from tests.support.records import MINT
from wire.inspection import Verdict
from wire.messages import (
    Health,
    Lane,
    Reported,
    RunningModel,
    ShadowHealth,
    ShadowPair,
    ShadowView,
    State,
    StationHealth,
)

ACTIVE, CANDIDATE = "a" * 64, "c" * 64
OK, NG, UNSURE = Verdict.OK, Verdict.NG, Verdict.UNSURE


def pair(active: Verdict = OK, verdict: Verdict = OK, *, seconds: float = 0.0, **more: Any) -> ShadowPair:
    view = ShadowView(view="top", active_verdict=active, verdict=verdict)
    made = ShadowPair(
        inspection_id=MINT.uuid7(),
        at=START + timedelta(seconds=seconds),
        station="s1",
        recipe="default",
        model="parts",
        active_digest=ACTIVE,
        digest=CANDIDATE,
        rate=0.25,
        active_verdict=active,
        verdict=verdict,
        views=(view,),
    )
    return replace(made, **more)


def take(stand: Stand, *pairs: ShadowPair, device: str = "cell-1", first: int = 1, taker: Any = None) -> Any:
    return stand.absorb(taker or ShadowSlice(), device, Lane.SHADOW, pairs, first=first)


def parts_kept(stand: Stand) -> list[bytes]:
    with db.read_session(stand.engine) as session:
        return sorted(session.exec(select(ShadowPairRow.inspection_id)).all())


def test_every_lane_of_the_wire_has_a_slice() -> None:
    assert set(seams.of_the_fleet().lanes) == set(Lane)


def test_a_pair_sent_again_stays_one_row(stand: Stand) -> None:
    stand.enrol("cell-1")
    sent = [pair(), pair(OK, NG)]
    assert (take(stand, *sent).accepted, take(stand, *sent, pair()).duplicates) == (2, 2)
    assert len(parts_kept(stand)) == 3


def test_only_the_newest_parts_are_kept_in_whatever_order_they_come_and_however_often(stand: Stand) -> None:
    stand.enrol("cell-1")
    taker = ShadowSlice(pairs_kept=10)
    sent = [pair() for _ in range(40)]
    newest = sorted(bytes.fromhex(one.inspection_id.replace("-", "")) for one in sent[-10:])
    order = [*sent, *sent[:25]]
    random.Random(3).shuffle(order)
    for number, one in enumerate(order, start=1):
        take(stand, one, first=number * 64, taker=taker)
    assert parts_kept(stand) == newest


def test_only_the_newest_candidates_of_a_device_are_kept(stand: Stand) -> None:
    stand.enrol("cell-1")
    taker = ShadowSlice(candidates_kept=2)
    for number in range(4):
        take(stand, pair(digest=f"{number}" * 64), first=(number + 1) * 64, taker=taker)
    with db.read_session(stand.engine) as session:
        assert set(session.exec(select(ShadowPairRow.digest)).all()) == {"2" * 64, "3" * 64}


def test_a_matrix_counts_pairs_and_no_evidence_is_not_agreement() -> None:
    at = {"first_at": START, "last_at": START}
    made = matrix.of(
        [
            matrix.Counted(active_verdict="OK", verdict="OK", count=6, **at),
            matrix.Counted(active_verdict="OK", verdict="NG", count=1, **at),
            matrix.Counted(active_verdict="OK", verdict="OK", count=1, **at),
        ]
    )
    assert (made.compared, made.disagreed, made.disagreement_rate) == (8, 1, 0.125)
    assert [(cell.active_verdict, cell.verdict, cell.count, cell.rate) for cell in made.cells] == [
        ("OK", "NG", 1, 0.125),
        ("OK", "OK", 7, 0.875),
    ]
    assert matrix.of([]).disagreement_rate is None


def asked(stand: Stand) -> tuple[str, str]:
    """Two devices run release 1, and release 2 is the shadow on cell-1; returns both digests."""
    for device in ("cell-1", "cell-2"):
        stand.enrol(device)
    digests = stand.push("parts", 1, model=b"1"), stand.push("parts", 2, model=b"2")
    stand.desire("cell-1", {"parts": 1}, shadow=2)
    return digests


def test_a_candidate_is_compared_with_each_active_version_in_all_and_by_device(stand: Stand) -> None:
    first, second = asked(stand)
    here = {"active_digest": first, "digest": second}
    take(stand, *(pair(**here) for _ in range(3)), pair(OK, NG, **here))
    take(stand, pair(NG, NG, **here), device="cell-2")
    take(stand, pair(OK, UNSURE, active_digest=ACTIVE, digest=second, seconds=60), first=10)
    found = stand.send("GET", "/models/parts/versions/2/shadow").json()
    assert found["digest"] == second
    unknown, known = found["against"]  # the latest first
    assert (unknown["active_release"], unknown["matrix"]["disagreement_rate"]) == (None, 1.0)
    assert known["active_release"] == 1
    assert (known["matrix"]["compared"], known["matrix"]["disagreed"]) == (5, 1)
    assert [(one["device"], one["matrix"]["compared"]) for one in known["devices"]] == [("cell-1", 4), ("cell-2", 1)]
    one = stand.send("GET", "/models/parts/versions/2/shadow?device=cell-2").json()
    assert [entry["matrix"]["compared"] for entry in one["against"]] == [1]
    assert stand.send("GET", "/models/parts/versions/9/shadow").status_code == 404


def test_parts_that_were_chosen_and_never_compared_are_shown_beside_the_pairs(stand: Stand) -> None:
    first, second = asked(stand)
    told = ShadowHealth(
        model="parts", digest=second, chosen=50, compared=40, disagreed=2, skipped={"line_waits": 7, "no_room": 3}
    )
    station = StationHealth(
        station="s1",
        triggers=200,
        verdicts=200,
        frames_in=200,
        frames_used=200,
        frames_not_triggered=0,
        frames_dropped=0,
        shadows=(told,),
    )
    health = Health(
        at=START,
        uptime_s=1,
        cpu_fraction=0.1,
        rss_bytes=1,
        disk_free_bytes=1,
        disk_free_fraction=0.5,
        outbox_unsettled=0,
        outbox_bytes=0,
        outbox_dropped=0,
        stations=(station,),
    )
    before = stand.send("GET", "/models/parts/versions/2/shadow").json()["evidence"]
    assert [(one["device"], one["asked"], one["runs"], one["chosen"]) for one in before] == [("cell-1", True, None, 0)]
    stand.absorb(HealthSlice(), "cell-1", Lane.HEALTH, [health])
    model = RunningModel(model="parts", digest=first, shadow_trouble="no memory for a second session")
    state(stand, 1, model)
    (shown,) = stand.send("GET", "/models/parts/versions/2/shadow").json()["evidence"]
    assert (shown["chosen"], shown["compared"], shown["disagreed"]) == (50, 40, 2)
    assert shown["skipped"] == {"line_waits": 7, "no_room": 3}
    assert (shown["runs"], shown["trouble"], shown["kept"]) == (False, "no memory for a second session", 0)
    state(stand, 2, replace(model, shadow_digest=second, shadow_trouble=""))
    (shown,) = stand.send("GET", "/models/parts/versions/2/shadow").json()["evidence"]
    assert (shown["runs"], shown["trouble"]) == (True, "")


def state(stand: Stand, revision: int, model: RunningModel) -> None:
    reported = Reported(
        desired_revision=1, agent_version="0.1", runtime_version="1", architecture="x86_64", models=(model,)
    )
    with db.write_session(stand.engine) as session:
        absorb_state(
            session,
            State(device="cell-1", boot=1, revision=revision, online=True, at=stand.now, reported=reported),
            stand.now,
        )


def test_disagreements_are_listed_by_part_with_their_pictures_page_by_page(stand: Stand) -> None:
    first, second = asked(stand)
    picture = b"a picture"
    stand.upload(picture)
    view = ShadowView(view="top", active_verdict=OK, verdict=NG, picture_digest=digest_of(picture))
    here = {"active_digest": first, "digest": second}
    parts = [pair(OK, NG, views=(view,), **here) for _ in range(5)]
    take(stand, *reversed(parts), pair(**here))
    path = "/models/parts/versions/2/shadow/disagreements"
    found: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        page = stand.send("GET", path, params={"limit": "2", **cursor}).json()
        found += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert [one["inspection"] for one in found] == [one.inspection_id for one in reversed(parts)]
    shown = found[0]["pictures"][0]
    assert (shown["view"], shown["here"]) == ("top", True)
    assert stand.send("GET", shown["path"]).content == picture
    assert found[0]["pair"]["rate"] == 0.25
    assert stand.send("GET", path, params={"active_digest": ACTIVE}).json()["items"] == []
    assert stand.send("GET", path, params={"cursor": "WyJ4Il0"}).status_code == 422


def test_a_shadow_is_asked_for_beside_the_active_version_and_starts_no_deployment(stand: Stand) -> None:
    _, second = asked(stand)
    document = stand.send("GET", "/devices/cell-1/desired").json()
    model = document["models"][0]
    assert (document["revision"], model["shadow"], model["shadow_rate"]) == (1, second, 0.25)
    other = stand.desire("cell-1", {"parts": 1}, shadow=2, shadow_rate=0.5)
    assert (other["revision"], other["models"][0]["shadow_rate"]) == (2, 0.5)
    assert other["models"][0]["deployment_id"] == model["deployment_id"]
    none = stand.desire("cell-1", {"parts": 1})
    assert (none["revision"], none["models"][0]["shadow"], none["models"][0]["shadow_rate"]) == (3, None, 0.25)
    assert len(stand.send("GET", "/devices/cell-1/deployments").json()["items"]) == 1


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ({"release": 1, "shadow": 1}, 422, "request.invalid"),
        ({"release": 1, "shadow": 9}, 404, "resource.not_found"),
        ({"release": 1, "shadow": 2, "shadow_rate": 0.0}, 400, "message.undecodable"),
    ],
)
def test_a_shadow_that_cannot_be_is_refused(stand: Stand, model: dict[str, Any], status: int, code: str) -> None:
    asked(stand)
    body = {"models": [{"model": "parts", **model}]}
    answer = stand.send("PUT", "/devices/cell-1/desired", json=body, headers={"If-Match": stand.tag()})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_device_may_read_the_files_of_its_shadow(stand: Stand) -> None:
    credential = stand.enrol("cell-3")
    stand.push("parts", 1, model=b"1")
    digest = stand.push("parts", 2, model=b"2")
    stand.desire("cell-3", {"parts": 1}, shadow=2)
    index = stand.send("GET", f"/blobs/{digest}", by=credential)
    assert index.status_code == 200
    assert [
        stand.send("GET", f"/blobs/{file['digest']}", by=credential).status_code for file in index.json()["files"]
    ] == [200, 200]
