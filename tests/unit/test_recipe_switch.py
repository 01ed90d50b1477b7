"""A recipe changes between two parts: each part is judged, recorded and routed by the recipe it was triggered under."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pytest

from agent.capture.demand import ViewDemand
from agent.capture.frame import Frame, TimeClass, Vital
from agent.inspection.catalogue import Catalogue, Refused
from agent.inspection.setup import StationSetup
from agent.inspection.worker import StationWorker
from agent.line.trigger import Answer, LineEvent, OutputCounts, RecipeRequest, StationState, Trigger
from agent.threads import Worker
from agent.vision.pipeline import Look
from tests.support.station import (
    FakePipeline,
    MemoryOutbox,
    ScriptedLine,
    frame_of,
    setup_of,
    trigger,
    worker_of,
)
from wire.desired import CameraSettings, Recipe, ViewRecipe
from wire.errors import LinesideError
from wire.inspection import Reason, Route, Verdict

DIGESTS = {"default": "a" * 64, "nut": "b" * 64, "bolt": "c" * 64}


def recipe_setup(name: str, number: int, *codes: str, pipeline: FakePipeline | None = None) -> StationSetup:
    setup = setup_of("top", pipeline=pipeline or FakePipeline(digest=DIGESTS[name]))
    recipe = dataclasses.replace(setup.recipe, id=name, revision=number, number=number, codes=codes)
    return dataclasses.replace(setup, recipe=recipe)


def catalogue(active: str = "default", **changes: Any) -> Catalogue:
    setups = {
        "default": recipe_setup("default", 1),
        "nut": recipe_setup("nut", 2, "nut-*", "4006381333931"),
        "bolt": recipe_setup("bolt", 3, "bolt-*"),
    }
    return Catalogue(setups=setups | changes.pop("setups", {}), active=active, **changes)


@contextmanager
def running(worker: StationWorker, threads: int = 1) -> Iterator[None]:
    runners = [Worker(f"station-test-{number}", partial(worker.run, number=number)) for number in range(threads)]
    for runner in runners:
        runner.start()
    try:
        yield
    finally:
        ended = [runner.join(3) for runner in runners]
        assert all(ended)


def wait_for(done: Any, timeout_s: float = 5.0) -> None:
    until = time.monotonic() + timeout_s
    while not done() and time.monotonic() < until:
        time.sleep(0.002)
    assert done(), "it did not come in time"


def prepared(
    *events: LineEvent, frames: list[Frame], outbox: MemoryOutbox | None = None, deadline_ms: float = 2000.0
) -> tuple[StationWorker, ScriptedLine, MemoryOutbox]:
    line, outbox = ScriptedLine(), outbox or MemoryOutbox()
    worker = worker_of(line, {"top": frames}, outbox=outbox, setup=recipe_setup("default", 1), deadline_ms=deadline_ms)
    with running(worker):
        worker.replace_catalogue(catalogue())
    line.events.extend(events)
    return worker, line, outbox


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (RecipeRequest(number=2, source="plc"), "nut"),
        (RecipeRequest(code="nut-17", source="mqtt"), "nut"),
        (RecipeRequest(code="4006381333931", source="mqtt"), "nut"),
        (RecipeRequest(recipe="bolt", source="person"), "bolt"),
        (RecipeRequest(recipe="default", source="person"), "default"),
    ],
)
def test_a_recipe_is_found_by_number_code_or_id(request_: RecipeRequest, expected: str) -> None:
    assert catalogue().choose(request_).recipe == expected


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (RecipeRequest(number=9, source="plc"), "the number 9"),
        (RecipeRequest(code="4006", source="mqtt"), "a code for '4006'"),
        (RecipeRequest(recipe="screw", source="person"), "the id screw"),
        (RecipeRequest(number=4, source="plc"), "scratch-ng = 2 is outside"),
        (RecipeRequest(number=5, source="plc"), "the view top has no model (demo-parts is not loaded)"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_with_the_reason(request_: RecipeRequest, words: str) -> None:
    bold = Recipe(id="bold", revision=1, number=4, views={"top": ViewRecipe(model="demo-parts")})
    unloaded = setup_of("top", ready=False)
    unloaded = dataclasses.replace(unloaded, recipe=dataclasses.replace(unloaded.recipe, id="empty", number=5))
    full = catalogue(
        setups={"empty": unloaded}, refused={"bold": Refused(recipe=bold, why="scratch-ng = 2 is outside 0 to 1.")}
    )
    choice = full.choose(request_)
    assert choice.recipe == ""
    assert words in choice.refusal


def test_the_line_switches_between_two_parts_and_each_record_names_its_own_recipe() -> None:
    first, second = trigger(1), trigger(2)
    asked = RecipeRequest(number=2, source="plc")
    frames = [frame_of(event, score_percent=10) for event in (first, second)]
    worker, line, outbox = prepared(first, asked, second, frames=frames)
    with running(worker):
        wait_for(lambda: len(outbox.inspections) == 2)
    assert [(one.recipe, one.recipe_revision) for one in outbox.inspections] == [("default", 1), ("nut", 2)]
    assert [one.views[0].model_digest for one in outbox.inspections] == [DIGESTS["default"], DIGESTS["nut"]]
    assert line.recipes_answered == [(asked, "")]
    assert (line.state.recipe, line.state.recipe_number) == ("nut", 2)


def test_a_refused_request_leaves_the_old_recipe_in_force_and_tells_why() -> None:
    event = trigger(1)
    asked = RecipeRequest(number=9, source="plc")
    worker, line, outbox = prepared(asked, event, frames=[frame_of(event, score_percent=10)])
    with running(worker):
        wait_for(lambda: len(outbox.inspections) == 1)
    assert outbox.inspections[0].recipe == "default"
    ((_, refusal),) = line.recipes_answered
    assert "No recipe of this station has the number 9" in refusal
    assert line.state.ready


class OrderedLine(ScriptedLine):
    """Notes the states and answers in the order they were told."""

    def set_state(self, state: StationState) -> None:
        if state != self.state:
            self.log.append(f"ready {state.recipe}" if state.ready else f"not ready {state.recipe}")
        super().set_state(state)

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        self.log.append("recipe answered")
        super().answer_recipe(request, refusal)


def test_the_station_is_not_ready_from_the_request_to_its_acknowledgement() -> None:
    line = OrderedLine()
    worker = worker_of(line, {"top": []}, setup=recipe_setup("default", 1))
    with running(worker):
        worker.replace_catalogue(catalogue())
        wait_for(lambda: line.log == ["ready default"])
        line.events.append(RecipeRequest(number=2, source="plc"))
        wait_for(lambda: line.log[-1] == "ready nut")
    assert line.log == ["ready default", "not ready default", "recipe answered", "ready nut"]


class SlowPipeline(FakePipeline):
    def look(self, image_bgr: Any) -> Look:
        time.sleep(0.15)
        return super().look(image_bgr)


def test_a_part_in_work_on_another_thread_keeps_its_recipe_and_is_waited_for() -> None:
    event = trigger(1)
    line, outbox = ScriptedLine(), MemoryOutbox()
    slow = recipe_setup("default", 1, pipeline=SlowPipeline(digest=DIGESTS["default"]))
    worker = worker_of(line, {"top": [frame_of(event, score_percent=40)]}, outbox=outbox, setup=slow, deadline_ms=3000)
    with running(worker, threads=2):
        nut = recipe_setup("nut", 2)
        nut = dataclasses.replace(nut, recipe=dataclasses.replace(nut.recipe, unsure=Route.REJECT))
        worker.replace_catalogue(Catalogue(setups={"default": slow, "nut": nut}, active="default"))
        line.events.append(event)
        line.events.append(RecipeRequest(number=2, source="plc"))
        wait_for(lambda: bool(line.recipes_answered))
        recorded = [one.recipe for one in outbox.inspections]
    assert recorded == ["default"], "the switch must wait for the part that was taken before"
    assert outbox.inspections[0].route is Route.DIVERT, "routed by the recipe it was judged with"


def test_a_part_triggered_before_a_person_asked_is_judged_with_the_recipe_of_then() -> None:
    class HeldLine(ScriptedLine):
        """Its queue is opened by the test."""

        def __init__(self) -> None:
            super().__init__()
            self.open = threading.Event()

        def take(self, timeout_s: float) -> LineEvent | None:
            return super().take(timeout_s) if self.open.wait(timeout_s) else None

    line, outbox = HeldLine(), MemoryOutbox()
    before = trigger(1)
    frames = [frame_of(before, score_percent=10)]
    worker = worker_of(line, {"top": frames}, outbox=outbox, setup=recipe_setup("default", 1), deadline_ms=5000)
    with running(worker):
        worker.replace_catalogue(catalogue())
        line.events.append(before)  # triggered, and still on its way to us
        assert worker.request_recipe(RecipeRequest(recipe="nut", source="person"), 5.0) == ""
        assert worker.setup.recipe.id == "nut"
        line.open.set()
        wait_for(lambda: len(outbox.inspections) == 1)
        after = trigger(2)
        worker._finder._feeds["top"]._source._frames.append(frame_of(after, score_percent=10))  # type: ignore[attr-defined]
        line.events.append(after)
        wait_for(lambda: len(outbox.inspections) == 2)
    assert [one.recipe for one in outbox.inspections] == ["default", "nut"]


def test_many_switches_under_load_never_mix_recipe_and_model() -> None:
    """Persons and the line ask at once, several threads judge: the model that judged is the recipe's."""
    outbox = MemoryOutbox()

    class Endless(ScriptedLine):
        def __init__(self) -> None:
            super().__init__()
            self.count = self.parts = 0

        def take(self, timeout_s: float) -> LineEvent | None:
            self.count += 1
            if self.count % 7 == 0:
                return RecipeRequest(number=1 + self.count % 3, source="plc")
            self.parts += 1
            event = trigger(self.parts)
            source = cast("Any", worker._finder._feeds["top"]._source)
            source._frames.append(frame_of(event, score_percent=10))
            return event

    worker = worker_of(Endless(), {"top": []}, outbox=outbox, setup=recipe_setup("default", 1), deadline_ms=5000)
    worker._line, idle = ScriptedLine(), worker._line
    with running(worker, threads=2):
        worker.replace_catalogue(catalogue())
        worker._line = idle
        for number in range(12):
            worker.request_recipe(RecipeRequest(number=1 + number % 3, source="person"))
        wait_for(lambda: len(outbox.inspections) >= 100)
        worker._line = ScriptedLine()
    seen = {(one.recipe, one.views[0].model_digest) for one in outbox.inspections}
    assert seen == set(DIGESTS.items())
    assert worker.tally.received == worker.tally.answered


def test_the_recipe_in_force_survives_a_restart_and_nothing_else_judges_meanwhile() -> None:
    outbox = MemoryOutbox()
    worker, _, _ = prepared(frames=[], outbox=outbox)
    with running(worker):
        assert worker.request_recipe(RecipeRequest(recipe="nut", source="person")) == ""
    assert outbox.meta["recipe.gauge"] == "nut"

    event, later = trigger(1), trigger(2)
    line = ScriptedLine(event)
    frames = [frame_of(one, score_percent=10) for one in (event, later)]
    again = worker_of(line, {"top": frames}, outbox=outbox, setup=recipe_setup("default", 1), deadline_ms=5000)
    assert again.state().not_ready == "Recipe nut is in force, and the device does not know it (yet)."
    with running(again):
        wait_for(lambda: len(outbox.inspections) == 1)
        again.replace_catalogue(catalogue())
        assert again.state().ready
        line.events.append(later)
        wait_for(lambda: len(outbox.inspections) == 2)
    assert [(one.recipe, one.reason) for one in outbox.inspections] == [
        ("nut", Reason.NO_MODEL),
        ("nut", Reason.NONE),
    ]


def test_a_choice_that_cannot_be_kept_is_refused() -> None:
    class Full(MemoryOutbox):
        def meta_set(self, key: str, value: str) -> None:
            raise LinesideError("storage.full", "No room.")

    worker, _, _ = prepared(frames=[], outbox=Full())
    with running(worker):
        refusal = worker.request_recipe(RecipeRequest(recipe="nut", source="person"))
    assert "cannot be kept" in refusal
    assert worker.setup.recipe.id == "default"


def test_a_recipe_that_was_removed_judges_on_until_another_is_chosen_and_never_again() -> None:
    worker, _, _ = prepared(frames=[])
    with running(worker):
        assert worker.request_recipe(RecipeRequest(recipe="nut", source="person")) == ""
        worker.replace_catalogue(Catalogue(setups={"default": recipe_setup("default", 1)}, active="default"))
        assert worker.state() == StationState(ready=True, recipe="nut", recipe_number=2)
        (listed,) = [row for row in worker.recipes() if row.id == "nut"]
        assert listed.active
        assert "removed" in listed.refusal
        assert worker.request_recipe(RecipeRequest(recipe="default", source="person")) == ""
        assert "No recipe" in worker.request_recipe(RecipeRequest(recipe="nut", source="person"))
    assert [row.id for row in worker.recipes()] == ["default"]


def test_what_a_plc_still_asks_for_is_taken_as_soon_as_the_recipe_is_there() -> None:
    asked = RecipeRequest(number=2, source="plc")
    line = ScriptedLine(asked)
    worker = worker_of(line, {"top": []}, setup=recipe_setup("default", 1))
    with running(worker):
        wait_for(lambda: len(line.recipes_answered) == 1)
        worker.replace_catalogue(catalogue())
        wait_for(lambda: len(line.recipes_answered) == 2)
    assert line.recipes_answered[1] == (asked, "")
    assert worker.setup.recipe.id == "nut"


def test_a_person_whose_station_hangs_is_told_and_the_wish_is_withdrawn() -> None:
    worker = worker_of(ScriptedLine(), {"top": []}, setup=recipe_setup("default", 1))  # never started
    assert "did not come between two parts" in worker.request_recipe(RecipeRequest(recipe="nut", source="person"), 0.05)
    with running(worker):
        worker.replace_catalogue(catalogue())
    assert worker.setup.recipe.id == "default"


def test_each_camera_is_told_what_the_recipe_asks_of_it_once() -> None:
    worker, _, _ = prepared(frames=[])
    told: list[ViewDemand] = []
    worker._finder._feeds["top"].demand = told.append  # type: ignore[method-assign]
    locked = recipe_setup("nut", 2)
    views = {"top": ViewRecipe(model="demo-parts", camera=CameraSettings(exposure_us=500.0))}
    locked = dataclasses.replace(locked, recipe=dataclasses.replace(locked.recipe, views=views))
    with running(worker):
        worker.replace_catalogue(catalogue(setups={"nut": locked}))
        worker.request_recipe(RecipeRequest(recipe="nut", source="person"))
        worker.replace_catalogue(catalogue(setups={"nut": locked}))
    assert told == [ViewDemand(recipe="nut", camera=CameraSettings(exposure_us=500.0))]


class ListedOutput:
    """Remembers what it was told."""

    name = "list"

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.states: list[StationState] = []

    def answer(self, answer: Answer) -> None:
        self.answers.append(answer)

    def set_state(self, state: StationState) -> None:
        self.states.append(state)

    def counts(self) -> OutputCounts:
        return OutputCounts(sent=len(self.answers), dropped=0, failed=0)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("score_percent", "unsure", "route"),
    [
        (10, Route.DIVERT, Route.ACCEPT),
        (40, Route.DIVERT, Route.DIVERT),
        (40, Route.ACCEPT, Route.ACCEPT),
        (90, Route.ACCEPT, Route.REJECT),
    ],
)
def test_the_route_is_the_recipes_and_stands_alike_in_record_answer_and_outputs(
    score_percent: int, unsure: Route, route: Route
) -> None:
    event = trigger(1)
    setup = setup_of("top")
    setup = dataclasses.replace(setup, recipe=dataclasses.replace(setup.recipe, unsure=unsure))
    outbox, output = MemoryOutbox(), ListedOutput()
    worker = worker_of(
        ScriptedLine(), {"top": [frame_of(event, score_percent=score_percent)]}, outbox=outbox, setup=setup
    )
    worker._outputs = (output,)
    worker.inspect(event)
    assert outbox.inspections[0].route is route
    assert [(one.route, one.recipe, one.inspection_id) for one in output.answers] == [
        (route, "default", outbox.inspections[0].id)
    ]


def test_a_part_that_cannot_be_recorded_is_diverted_at_every_output() -> None:
    event = trigger(1)
    outbox, output = MemoryOutbox(), ListedOutput()
    outbox.fails = True
    worker = worker_of(ScriptedLine(), {"top": [frame_of(event, score_percent=10)]}, outbox=outbox)
    worker._outputs = (output,)
    worker.inspect(event)
    (answer,) = output.answers
    assert (answer.verdict, answer.reason, answer.route, answer.inspection_id) == (
        Verdict.NO_VERDICT,
        Reason.NOT_RECORDED,
        Route.DIVERT,
        "",
    )


def test_a_bad_picture_has_no_verdict_and_no_model_is_asked() -> None:
    class Never(FakePipeline):
        def look(self, image_bgr: Any) -> Look:
            raise AssertionError("the model was asked")

    event = trigger(1)
    frame = dataclasses.replace(frame_of(event, score_percent=90), vitals=(Vital.BLURRED, Vital.BLACK))
    outbox = MemoryOutbox()
    worker = worker_of(ScriptedLine(), {"top": [frame]}, outbox=outbox, setup=setup_of("top", pipeline=Never()))
    worker.inspect(event)
    (inspection,) = outbox.inspections
    assert (inspection.verdict, inspection.reason) == (Verdict.NO_VERDICT, Reason.FRAME_BLACK)
    assert inspection.views[0].frame_number == 1
    assert worker.tally.without_verdict == {"frame_black": 1}


def test_a_stream_without_exposure_times_is_not_ready_for_part_triggers_unless_the_part_stands_still() -> None:
    event = trigger(1)
    outbox = MemoryOutbox()
    worker = worker_of(ScriptedLine(), {"top": []}, outbox=outbox)
    arrival_only = {"top": TimeClass.ARRIVAL_ONLY}
    worker._finder._time_classes = arrival_only
    worker._timeless = ("top",)
    assert worker.state().ready is False
    assert "declares no standstill" in worker.state().not_ready
    worker.inspect(event)
    assert outbox.inspections[0].reason is Reason.TIME_CLASS
    standing = setup_of("top")
    standing = dataclasses.replace(standing, recipe=dataclasses.replace(standing.recipe, standstill=True))
    with running(worker):
        worker.replace_setup(standing)
    assert worker.state().ready


def test_health_can_tell_each_views_steps_and_each_reason() -> None:
    events: list[Trigger] = [trigger(1), trigger(2, age_ms=900)]
    frames = {view: [frame_of(event, score_percent=10) for event in events] for view in ("top", "side")}
    worker = worker_of(ScriptedLine(), frames)
    for event in events:
        worker.inspect(event)
    assert worker.tally.deadline_misses == 1
    assert worker.tally.received == worker.tally.answered == 2
    assert worker.tally.step_percentiles_ms("top").keys() == worker.tally.step_percentiles_ms().keys()
    assert {"run", "turn"} <= worker.tally.step_percentiles_ms("side").keys()
    assert worker.tally.step_percentiles_ms("nowhere") == {}
