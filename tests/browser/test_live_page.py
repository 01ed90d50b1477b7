"""The live page in a real browser, at an office's and a phone's size, with and without its script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.board_scene import BOX, GOOD_WAY, HEIGHT, HELD, WIDTH, Scene, served
from wire.deployment import DeploymentState
from wire.inspection import Verdict

SIZES = {"desk": (1280, 800), "phone": (390, 844)}


@contextmanager
def _page(chromium: Any, *, size: str = "desk", **options: Any) -> Iterator[tuple[Any, list[str]]]:
    """Open a page; gives it and the list of what went wrong in it."""
    width, height = SIZES[size]
    context = chromium.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    page.set_default_timeout(15_000)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        yield page, wrong
    finally:
        context.close()


def _sign_in(page: Any, address: str, scene: Scene) -> None:
    page.goto(f"{address}/sign-in#token={scene.stand.token()}")
    page.wait_for_selector("h2#devices")


@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits_and_breaks_no_policy(chromium: Any, scene: Scene, address: str, size: str) -> None:
    scene.count("cell-1", OK=120, NG=6, UNSURE=3, NO_VERDICT=1)
    scene.desire("cell-2", 3, DeploymentState.DOWNLOADING, DeploymentState.REFUSED, code="deployment.digest_mismatch")
    scene.picture("cell-1")
    with _page(chromium, size=size) as (page, wrong):
        _sign_in(page, address, scene)
        page.wait_for_selector("#live[data-live=yes]")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0], "it scrolls sideways"
        assert page.locator("tr[data-key=cell-2] .state").inner_text() == "refused"
        assert "deployment.digest_mismatch" in page.locator("tr[data-key=cell-2]").inner_text()
        assert page.locator("tr[data-key=cell-1] dd[data-count=NG]").inner_text() == "6"
        assert page.locator("tr[data-key=cell-1] svg.bar").get_attribute("aria-label").startswith("OK 120, NG 6")
    assert wrong == []


def test_the_token_leaves_the_address_and_never_reaches_the_server(chromium: Any, scene: Scene, address: str) -> None:
    asked: list[str] = []
    with _page(chromium) as (page, _):
        page.on("request", lambda request: asked.append(request.url + str(request.headers.get("referer"))))
        _sign_in(page, address, scene)
        assert page.url == f"{address}/"
        page.go_back()
        assert scene.stand.token() not in page.url
    assert not [url for url in asked if scene.stand.token() in url.split("#")[0]]


def test_who_is_not_signed_in_is_led_to_the_form_and_told_of_a_wrong_token(
    chromium: Any, scene: Scene, address: str
) -> None:
    with _page(chromium) as (page, _):
        page.goto(address)
        assert page.url == f"{address}/sign-in"
        page.get_by_label("Token").fill("lso_wrong-wrong-wrong-wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]")
        page.get_by_label("Token").fill(scene.stand.token())
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("h2#devices")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{address}/sign-in")
        page.goto(address)
        assert page.url == f"{address}/sign-in"


def test_what_changes_is_shown_without_a_reload(chromium: Any, scene: Scene, address: str) -> None:
    with _page(chromium) as (page, wrong):
        _sign_in(page, address, scene)
        row = page.locator("tr[data-key=cell-1]")
        assert row.locator("strong[data-text=release]").first.inner_text() == "release 1"
        page.evaluate("window.stayed = true")
        scene.desire("cell-1", 2, *GOOD_WAY)
        scene.report("cell-1", release=2)
        scene.report("cell-3", release=1, online=False)
        scene.count("cell-1", OK=7)
        scene.stand.enrol("cell-0")
        page.wait_for_selector("tr[data-key=cell-0]")
        assert row.locator("[data-list=running] strong").inner_text() == "release 2"
        assert row.locator("[data-list=wanted] .state").inner_text() == "succeeded"
        assert row.locator("dd[data-count=OK]").inner_text() == "7"
        assert page.locator("tr[data-key=cell-3] .presence").inner_text() == "offline"
        assert "parts release 1 on 2, parts release 2 on 1" in page.locator("#summary").inner_text()
        order = page.locator("tbody[data-list=devices] > tr").evaluate_all("rows => rows.map(row => row.dataset.key)")
        assert order == ["cell-0", "cell-1", "cell-2", "cell-3"]
        trail = page.locator("tbody[data-list=deployments] tr").first.inner_text()
        assert "self testing > staged > activating > probation > succeeded" in trail
        assert page.evaluate("window.stayed") is True
    assert wrong == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("live", [False, True], ids=["rendered", "live"])
def test_a_box_lies_over_what_it_marks(chromium: Any, scene: Scene, address: str, size: str, live: bool) -> None:
    if not live:
        scene.picture("cell-1")
    with _page(chromium, size=size) as (page, wrong):
        _sign_in(page, address, scene)
        page.wait_for_selector("#live[data-live=yes]")
        if live:
            scene.picture("cell-1")
        card = page.locator(".card").first
        card.locator("svg.boxes rect").wait_for(state="attached")
        page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        picture = card.locator("img").bounding_box()
        box = card.locator("svg.boxes rect").bounding_box()
        scale = picture["width"] / WIDTH
        assert picture["height"] == pytest.approx(HEIGHT * scale, abs=1)
        for name, wanted in {
            "x": picture["x"] + BOX.x1_px * scale,
            "y": picture["y"] + BOX.y1_px * scale,
            "width": (BOX.x2_px - BOX.x1_px) * scale,
            "height": (BOX.y2_px - BOX.y1_px) * scale,
        }.items():
            assert box[name] == pytest.approx(wanted, abs=3), name
        assert "NG" in card.inner_text()
        assert "scratch 0.87" in card.inner_text()
    assert wrong == []


def test_without_its_script_the_page_reads_as_well(chromium: Any, scene: Scene, address: str) -> None:
    scene.count("cell-1", OK=5)
    scene.picture("cell-2", Verdict.UNSURE)
    with _page(chromium, java_script_enabled=False) as (page, wrong):
        page.goto(f"{address}/sign-in")
        page.get_by_label("Token").fill(scene.stand.token())
        page.get_by_role("button", name="Sign in").click()
        text = page.locator("body").inner_text()
        assert "3 of 3 devices online." in text
        assert "Scripts are off" in text
        assert "UNSURE" in text
        assert page.locator("tr[data-key=cell-1] dd[data-count=OK]").inner_text() == "5"
        assert page.locator("svg.boxes rect").count() == 1
    assert wrong == []


def test_names_from_devices_are_shown_as_text_never_as_markup(chromium: Any, scene: Scene, address: str) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    scene.desire("cell-1", 2, DeploymentState.FAILED_NO_CHANGE, code="model.crashed", reason=hostile)
    with _page(chromium) as (page, wrong):
        _sign_in(page, address, scene)
        scene.desire("cell-2", 2, DeploymentState.FAILED_NO_CHANGE, code="model.crashed", reason=hostile)
        page.wait_for_selector("tr[data-key=cell-2] .state[data-tone=bad]")
        for device in ("cell-1", "cell-2"):
            assert hostile in page.locator(f"tr[data-key={device}] .why").inner_text()
        assert page.locator("img[src=x]").count() == 0
    assert wrong == []


def test_a_cut_stream_marks_the_page_as_old_and_it_comes_back_by_itself(chromium: Any, scene: Scene) -> None:
    with _page(chromium) as (page, _):
        with served(scene.stand) as address:
            _sign_in(page, address, scene)
            page.wait_for_selector("#live[data-live=yes]")
        page.wait_for_selector("#stale:not([hidden])")
        assert re.search(r"Not live since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", page.locator("#stale").inner_text())
        scene.report("cell-1", release=2)
        with served(scene.stand, port=int(address.rsplit(":", 1)[1])):
            page.wait_for_selector("#live[data-live=yes]", timeout=30_000)
            page.wait_for_function("document.querySelector('#summary').textContent.includes('release 2')")
            assert page.locator("#stale").is_hidden()


def test_the_page_has_names_for_all_its_parts_and_one_polite_line(chromium: Any, scene: Scene, address: str) -> None:
    scene.picture("cell-1")
    with _page(chromium) as (page, _):
        _sign_in(page, address, scene)
        assert page.locator("[aria-live]").count() == 1
        assert page.locator("html[lang=en]").count() == 1
        for name in ("Device", "Running", "Asked for", "Verdicts, last hour", "Inspections per minute", "Health"):
            assert page.get_by_role("columnheader", name=name, exact=True).count() >= 1
        assert page.get_by_role("rowheader", name=re.compile("cell-1")).count() >= 1
        assert page.locator("img:not([alt]), img[alt='']").count() == 0
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the devices"


def test_live_pages_are_bounded_and_give_their_place_back(
    chromium: Any, scene: Scene, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.pages.live.MAX_STREAMS", 1)
    with _page(chromium) as (page, _):
        _sign_in(page, address, scene)
        page.wait_for_selector("#live[data-live=yes]")
        assert page.evaluate("fetch('/live').then(answer => answer.status)") == 429
    live = scene.stand.app.state.live
    with _page(chromium) as (page, _):
        _sign_in(page, address, scene)
        page.wait_for_selector("#live[data-live=yes]", timeout=30_000)
        assert live.streams == 1


@pytest.mark.parametrize("size", SIZES)
def test_probation_holds_shadows_and_what_a_person_did_at_the_device_are_told_in_words(
    chromium: Any, scene: Scene, address: str, size: str
) -> None:
    with _page(chromium, size=size) as (page, wrong):
        _sign_in(page, address, scene)
        page.wait_for_selector("#live[data-live=yes]")
        scene.desire("cell-1", 2, *GOOD_WAY[:-1], **HELD)
        scene.shadow("cell-2", release=1, shadow=3)
        scene.roll_back("cell-3", by="anna")
        # Its words change with each report: the last of them is waited for.
        page.locator("tr[data-key=cell-3]", has_text="asked for at the device by anna").wait_for()
        first = page.locator("tr[data-key=cell-1]").inner_text()
        assert (
            "waits: awaiting confirmation until 2030-01-02 03:04:05 UTC: NG rose: show parts of known truth; " in first
        )
        assert "34 of 100 parts, 1 without verdict" in first
        assert (
            "shadow release 3: 40 of 50 chosen parts compared, 2 differ"
            in page.locator("tr[data-key=cell-2]").inner_text()
        )
        assert (
            "runs release 1, asked for at the device by anna; desired is release 2"
            in page.locator("tr[data-key=cell-3]").inner_text()
        )
        newest = page.locator("tbody[data-list=deployments]").inner_text()
        assert "asked for at the device by anna" in newest
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0], "it scrolls sideways"
    assert wrong == []
