"""One inspection with all that stands behind its verdict, and inspections found by version."""

from __future__ import annotations

from fleet.inspections import service
from tests.support import records
from tests.support.fleet_stand import Stand, digest_of
from wire.inspection import Verdict
from wire.messages import Lane


def _absorb(stand: Stand, *bodies: object) -> None:
    stand.absorb(service.InspectionSlice(), "cell-1", Lane.INSPECTIONS, bodies)


def test_an_inspection_names_its_pictures_rule_models_deployments_and_recipe(stand: Stand) -> None:
    credential = stand.enrol("cell-1")
    digest = stand.push(release=3)
    document = stand.desire("cell-1", {"parts": 3})
    picture, on_its_way = b"a picture", digest_of(b"another")
    stand.upload(picture, by=credential)
    views = (
        records.view(
            view="top",
            model_digest=digest,
            deployment_id=document["models"][0]["deployment_id"],
            picture_digest=digest_of(picture),
        ),
        records.view(view="side", model_digest="c" * 64, picture_digest=on_its_way),
    )
    judged = records.inspection(verdict=Verdict.NG, views=views, rule_fired="scratch", parameters_revision=2)
    _absorb(stand, judged)
    why = stand.send("GET", f"/inspections/{judged.id}").json()["why"]
    top, side = why["views"]
    assert (top["release"], top["deployment"]["state"], top["picture"]["here"]) == (3, "queued", True)
    assert stand.send("GET", top["picture"]["path"]).content == picture
    assert (side["release"], side["deployment"], side["picture"]["here"]) == (None, None, False)
    assert (why["rule"]["name"], why["rule"]["rule"]["ng_at"]) == ("scratch", "scratch-ng")
    assert why["recipe"] == {"id": "default", "revision": 0, "recipe": None}


def test_a_recipe_is_shown_while_the_desired_document_still_has_its_revision(stand: Stand) -> None:
    stand.enrol("cell-1")
    stand.push()
    recipe = {"id": "wide", "views": {"top": {"model": "parts", "parameters": {"scratch-ng": 0.7}}}}
    body = {"models": [{"model": "parts", "release": 1}], "stations": [{"station": "s1", "recipes": [recipe]}]}
    etag = stand.send("GET", "/devices/cell-1/desired").headers["etag"]
    answer = stand.send("PUT", "/devices/cell-1/desired", json=body, headers={"If-Match": etag})
    assert answer.status_code == 200, answer.text
    current = records.inspection(recipe="wide", recipe_revision=1)
    older = records.inspection(recipe="wide", recipe_revision=9)
    _absorb(stand, current, older)
    found = [stand.send("GET", f"/inspections/{one.id}").json()["why"]["recipe"] for one in (current, older)]
    assert found[0]["recipe"]["views"]["top"]["parameters"] == {"scratch-ng": 0.7}
    assert found[1] == {"id": "wide", "revision": 9, "recipe": None}


def test_inspections_are_found_by_model_and_release(stand: Stand) -> None:
    digest = stand.push(release=4)
    mine = records.inspection(views=(records.view(model_digest=digest),))
    _absorb(stand, mine, records.inspection())
    answer = stand.send("GET", "/inspections", params={"model": "parts", "release": "4"}).json()
    assert [item["id"] for item in answer["items"]] == [mine.id]
    assert stand.send("GET", "/inspections", params={"model": "parts", "release": "5"}).status_code == 404


def test_a_record_with_what_nobody_can_read_is_shown_as_it_was_understood(stand: Stand) -> None:
    """A field this fleet does not know may hold a number that no decoder takes: the strict one passes over it."""
    from fleet import db
    from fleet.absorb import Received
    from wire import codec
    from wire.inspection import Inspection

    text = codec.encode(records.inspection())[:-1] + b',"invented_later":1e999}'
    record = codec.decode(text, Inspection)
    with db.write_session(stand.engine) as session:
        received = Received(
            device="cell-1",
            epoch=records.EPOCH,
            lane=Lane.INSPECTIONS,
            seq=1,
            body=record,
            received_at=stand.now,
            text=text,
        )
        service.InspectionSlice().absorb(session, [received])
    answer = stand.send("GET", f"/inspections/{record.id}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["record"]["station"] == "s1"
