"""HTTP triggers through the real local server to a real station worker: one request is one part and one verdict."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from agent.capture.frame import NoFrame
from agent.line.http_trigger import HttpLine
from agent.line.messages import TriggerMessage
from agent.line.trigger import Answer, LinePosition, RecipeRequest, StationState, Trigger
from agent.local.api import LocalApi
from agent.local.server import LocalServer
from tests.support import station
from wire.errors import LinesideError
from wire.inspection import Reason, Route, Verdict
from wire.mint import Mint

JSON = {"Content-Type": "application/json"}
NOBODY: Any = {}


class Station:
    """Takes events from a line on a thread of its own and answers each trigger, once `comes_back` is set."""

    def __init__(self, line: HttpLine) -> None:
        self.line = line
        self.events: list[object] = []
        self.delay_s = 0.0
        self.comes_back = threading.Event()
        self.comes_back.set()
        self.recipes = {"default": 1, "lid": 2}
        self.recipe = "default"
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.line.set_state(StationState(ready=True))
        while not self.stop.is_set():
            event = self.line.take(0.05)
            if event is None:
                continue
            self.events.append(event)
            if isinstance(event, RecipeRequest):
                name = next((one for one, number in self.recipes.items() if event.number == number), event.recipe)
                refusal = "" if name in self.recipes else f"There is no recipe {name}."
                self.recipe = self.recipe if refusal else str(name)
                self.line.answer_recipe(event, refusal)
            elif isinstance(event, Trigger):
                time.sleep(self.delay_s)
                self.comes_back.wait(20)
                self.line.answer(self.answer_to(event))

    def answer_to(self, event: Trigger) -> Answer:
        return Answer(
            trigger=event, inspection_id="01932f5e-7a10-7abc-8def-0123456789ab", verdict=Verdict.OK,
            reason=Reason.NONE, route=Route.ACCEPT, recipe=self.recipe, judged_ns=time.monotonic_ns(),
        )  # fmt: skip

    def close(self) -> None:
        self.line.close()
        self.stop.set()
        self._thread.join(5)


@pytest.fixture
def scripted() -> Iterator[Station]:
    running = Station(HttpLine(station.CLOCK, Mint(), deadline_ms=5000, name="gauge"))
    yield running
    running.close()


@pytest.fixture
def hasty() -> Iterator[Station]:
    """A station that has 200 ms for a part."""
    running = Station(HttpLine(station.CLOCK, Mint(), deadline_ms=200, name="gauge"))
    yield running
    running.comes_back.set()
    running.close()


@dataclass
class Camera:
    image_bgr: Any = field(default_factory=lambda: np.full((48, 64, 3), 90, np.uint8))

    def snapshot(self, timeout_s: float) -> Any:
        return self.image_bgr


@dataclass
class Desk:
    """A station's recipes."""

    chosen: list[RecipeRequest] = field(default_factory=list)

    def recipes(self) -> list[object]:
        return [{"id": "default", "number": 1, "active": True}]

    def request_recipe(self, request: RecipeRequest) -> str:
        self.chosen.append(request)
        return "" if request.recipe == "default" else "There is no such recipe."


def api_of(lines: dict[str, HttpLine], desk: Desk | None = None, camera: Camera | None = None) -> LocalApi:
    kept: list[str] = []

    def keep_reference(name: str, view: str, image_bgr: Any) -> str:
        kept.append(f"{name}/{view} {image_bgr.shape}")
        return "default"

    return LocalApi(
        device="press-1",
        status=lambda: {"kept": kept},
        metrics=lambda: "lineside_up 1\n",
        counters=lines,
        desks=cast("Any", {"gauge": desk or Desk(), "plc": Desk()}),
        views=cast("Any", {"gauge": {"top": camera or Camera()}}),
        keep_reference=keep_reference,
    )


@pytest.fixture
def serve() -> Iterator[Callable[[LocalApi], LocalServer]]:
    servers: list[LocalServer] = []

    def start(api: LocalApi) -> LocalServer:
        servers.append(LocalServer("127.0.0.1", 0, api.routes()))
        servers[-1].start()
        return servers[-1]

    yield start
    for one in servers:
        one.close()


def post(local: LocalServer, path: str, body: object) -> tuple[int, Any]:
    client = http.client.HTTPConnection(local.address, timeout=10)
    client.request("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), JSON)
    answer = client.getresponse()
    got = json.loads(answer.read())
    client.close()
    return answer.status, got


def get(local: LocalServer, path: str) -> tuple[int, str, bytes]:
    client = http.client.HTTPConnection(local.address, timeout=10)
    client.request("GET", path)
    answer = client.getresponse()
    data = answer.read()
    client.close()
    return answer.status, answer.getheader("Content-Type") or "", data


def test_a_request_is_a_part_with_a_record_and_its_verdict(serve: Callable[[LocalApi], LocalServer]) -> None:
    line = HttpLine(station.CLOCK, Mint(), deadline_ms=2000, name="gauge")
    outbox = station.MemoryOutbox()
    worker = station.worker_of(cast("Any", line), {"top": []}, outbox=outbox, deadline_ms=300)
    local = serve(api_of({"gauge": line}))
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            event = line.take(0.05)
            if isinstance(event, Trigger):
                worker.inspect(event)

    thread = threading.Thread(target=work)
    thread.start()
    status, body = post(
        local,
        "/v1/stations/gauge/triggers",
        {"run": "press", "sequence": 7, "part_id": "S-1", "lot": "L-2", "mode": "challenge"},
    )
    stop.set()
    thread.join(5)
    (record,) = outbox.inspections
    assert (status, body["schema"], body["device"], body["station"]) == (200, "lineside.verdict/1", "press-1", "gauge")
    assert body["inspection_id"] == record.id
    assert (body["verdict"], body["reason"], body["route"]) == ("NO_VERDICT", "no_frame", "divert")
    assert (record.trigger_id, record.trigger_sequence) == (body["trigger_id"], 7) == ("press-7", 7)
    assert (record.part_id, record.lot, record.mode.value) == ("S-1", "L-2", "challenge")


def test_beyond_the_deadline_a_part_is_told_to_have_no_verdict_and_stays_so(hasty: Station) -> None:
    hasty.comes_back.clear()
    started = time.monotonic()
    with ThreadPoolExecutor(1) as callers:
        told = callers.submit(hasty.line.submit, TriggerMessage(id="a")).result(10)
    assert 0.2 <= time.monotonic() - started < 2
    assert (told.verdict, told.reason, told.route) == (Verdict.NO_VERDICT, Reason.DEADLINE, Route.DIVERT)
    assert hasty.line.late_count == 0, "told at the deadline and a little grace, not when the station comes back"
    hasty.comes_back.set()
    deadline = time.monotonic() + 10
    while hasty.line.late_count == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert hasty.line.late_count == 1
    assert hasty.line.submit(TriggerMessage(id="a")) == told, "whoever diverted a part must not hear OK later"


def test_the_same_id_again_is_the_same_part(scripted: Station) -> None:
    scripted.delay_s = 0.1
    with ThreadPoolExecutor(4) as callers:
        together = list(callers.map(lambda _: scripted.line.submit(TriggerMessage(id="a")), range(4)))
    again = scripted.line.submit(TriggerMessage(id="a"))
    assert {one.judged_ns for one in (*together, again)} == {together[0].judged_ns}
    assert len(scripted.events) == 1
    counted = [TriggerMessage(run="r", sequence=1)] * 2
    assert scripted.line.submit(counted[0]) == scripted.line.submit(counted[1])
    assert [type(event) for event in scripted.events] == [Trigger, LinePosition, Trigger]


def test_the_first_counted_trigger_tells_what_passed_before_it(scripted: Station) -> None:
    scripted.line.submit(TriggerMessage(run="r", sequence=41))
    scripted.line.submit(TriggerMessage(run="r", sequence=44))
    assert scripted.events[0] == LinePosition(run="r", sequence=40)
    assert [event.sequence for event in scripted.events if isinstance(event, Trigger)] == [41, 44]


def test_a_part_with_a_recipe_is_judged_with_it_or_not_at_all(scripted: Station) -> None:
    assert scripted.line.submit(TriggerMessage(id="a", recipe="lid")).recipe == "lid"
    assert scripted.line.submit(TriggerMessage(id="b", recipe=1)).recipe == "default"
    with pytest.raises(LinesideError, match="no recipe nut") as caught:
        scripted.line.submit(TriggerMessage(id="c", recipe="nut"))
    assert caught.value.code == "recipe.refused"
    assert [event.id for event in scripted.events if isinstance(event, Trigger)] == ["a", "b"]


def test_requests_of_two_senders_never_swap_recipes(scripted: Station) -> None:
    def ask(number: int) -> tuple[str, str]:
        wanted = ("default", "lid")[number % 2]
        return wanted, scripted.line.submit(TriggerMessage(id=f"p{number}", recipe=wanted)).recipe

    with ThreadPoolExecutor(8) as callers:
        got = list(callers.map(ask, range(80)))
    assert all(wanted == used for wanted, used in got)


def test_a_full_station_says_so_and_counts_no_part() -> None:
    line = HttpLine(station.CLOCK, Mint(), deadline_ms=1, name="gauge")
    line._intake._capacity = 3
    for number in range(3):
        assert line.submit(TriggerMessage(id=f"p{number}")).reason is Reason.DEADLINE
    with pytest.raises(LinesideError) as caught:
        line.submit(TriggerMessage(id="one-more"))
    assert caught.value.code == "request.too_many"


def test_closing_tells_everybody_who_waits(scripted: Station) -> None:
    scripted.comes_back.clear()
    with ThreadPoolExecutor(3) as callers:
        waiting = [callers.submit(scripted.line.submit, TriggerMessage(id=f"p{number}")) for number in range(3)]
        time.sleep(0.05)
        scripted.line.close()
        told = [one.result(10) for one in waiting]
    scripted.comes_back.set()
    told.append(scripted.line.submit(TriggerMessage(id="late")))
    assert {(one.verdict, one.reason, one.route) for one in told} == {
        (Verdict.NO_VERDICT, Reason.AGENT_DOWN, Route.DIVERT)
    }


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "message.undecodable"),
        (b"[1]", "message.undecodable"),
        (b'{"sequence": "7", "run": "r"}', "message.undecodable"),
        (b'{"sequence": 0, "run": "r"}', "message.undecodable"),
        (b'{"sequence": 7}', "message.invalid_value"),
        (b'{"part": "S-1"}', "message.invalid_value"),
        (b'{"recipe": "lid", "code": "4006"}', "message.invalid_value"),
        (b'{"id": "' + b"a" * 201 + b'"}', "message.undecodable"),
        (b"[" * 60_000, "message.undecodable"),
    ],
)
def test_a_body_that_is_no_trigger_is_refused(
    serve: Callable[[LocalApi], LocalServer], scripted: Station, body: bytes, code: str
) -> None:
    status, problem = post(serve(api_of({"gauge": scripted.line})), "/v1/stations/gauge/triggers", body)
    assert (status // 100, problem["code"]) == (4, code)
    assert scripted.events == []


def test_a_station_without_http_triggers_or_without_existence_is_named(
    serve: Callable[[LocalApi], LocalServer], scripted: Station
) -> None:
    local = serve(api_of({"gauge": scripted.line}))
    status, problem = post(local, "/v1/stations/plc/triggers", {})
    assert (status, problem["code"]) == (409, "resource.conflict")
    status, problem = post(local, "/v1/stations/nowhere/triggers", {})
    assert (status, problem["next_step"]) == (404, "There are: gauge, plc.")


def test_recipes_are_told_and_chosen(serve: Callable[[LocalApi], LocalServer]) -> None:
    desk = Desk()
    local = serve(api_of({}, desk))
    status, _, data = get(local, "/v1/stations/gauge/recipe")
    assert (status, json.loads(data)["recipes"][0]["id"]) == (200, "default")
    assert post(local, "/v1/stations/gauge/recipe", {"recipe": "default"})[0] == 200
    status, problem = post(local, "/v1/stations/gauge/recipe", {"code": "4006381333931"})
    assert (status, problem["code"], problem["detail"]) == (409, "recipe.refused", "There is no such recipe.")
    assert desk.chosen[1] == RecipeRequest(code="4006381333931", source="http")
    assert post(local, "/v1/stations/gauge/recipe", {})[1]["code"] == "message.invalid_value"


def test_pictures_metrics_and_status_are_told(serve: Callable[[LocalApi], LocalServer]) -> None:
    camera = Camera()
    local = serve(api_of({}, camera=camera))
    assert get(local, "/metrics") == (200, "text/plain; version=0.0.4; charset=utf-8", b"lineside_up 1\n")
    status, kind, data = get(local, "/v1/stations/gauge/views/top/snapshot.jpg")
    assert (status, kind, data[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    status, body = post(local, "/v1/stations/gauge/views/top/reference", {})
    assert (status, body["recipe"], body["width_px"], body["height_px"]) == (200, "default", 64, 48)
    assert json.loads(get(local, "/v1/status")[2]) == {"kept": ["gauge/top (48, 64, 3)"]}
    assert get(local, "/v1/stations/gauge/views/side/snapshot.jpg")[0] == 404
    camera.image_bgr = NoFrame(reason="the camera is away")
    status, _, data = get(local, "/v1/stations/gauge/views/top/snapshot.jpg")
    assert (status, json.loads(data)["code"]) == (502, "source.unavailable")
