"""`lineside-fleet devices show` tells what a device said was wrong: refusals, stations, cameras, events."""

from __future__ import annotations

from typing import Any

from fleet.commands import devices

VIEW: dict[str, Any] = {"view": "side", "trouble": "", "vitals": []}


def wrong(refusals: list[str], **station: Any) -> list[str]:
    health = {"health": {"stations": [{"station": "outlet", "not_ready": "", "views": [VIEW], **station}]}}
    return devices._wrong({"reported": {"refusals": refusals}}, health)


def test_all_that_is_wrong_is_told_with_its_place() -> None:
    views = [{**VIEW, "trouble": "no frame within 3 s"}, {**VIEW, "view": "top", "vitals": ["wrong_size"]}]
    assert wrong(["No station inlet."], not_ready="The view top has no model.", views=views) == [
        "refused: No station inlet.",
        "outlet: not ready: The view top has no model.",
        "outlet/side: no frames: no frame within 3 s",
        "outlet/top: the picture is wrong: wrong size",
    ]


def test_what_runs_is_told_with_its_release_where_a_deployment_names_it() -> None:
    models = [{"model": "parts", "digest": "b" * 64}, {"model": "caps", "digest": "c" * 64}, {"model": "pins"}]
    device = {"reported": {"models": [{"digest": None, **model} for model in models]}}
    assert devices._runs(device, {"b" * 64: 4}) == "parts release 4 (bbbbbbbbbbbb), caps cccccccccccc, pins nothing"
    assert devices._runs({"reported": None}, {}) == "-"


def test_a_device_that_is_well_or_has_said_nothing_yet_or_is_of_an_older_release_shows_nothing() -> None:
    assert wrong([]) == []
    assert devices._wrong({"reported": None}, None) == []
    assert devices._wrong({"reported": None}, {"health": {"stations": [{"station": "outlet"}]}}) == []
