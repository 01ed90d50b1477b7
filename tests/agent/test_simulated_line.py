"""The simulated line and the station's side of it, over real sockets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.capture.frame import Frame, NoFrame
from agent.capture.simulated import SimulatedCamera
from agent.clock import SystemClock
from agent.inspection.pairing import Pairing, pair
from agent.line.simulated import SimulatedController
from agent.line.trigger import LinePosition, StationState, Trigger
from agent.simulator import parts, parts_plan
from agent.simulator.line import LineSettings, SimulatedLine
from tests.support.station import answer_to
from wire.errors import LinesideError
from wire.inspection import Verdict


class RunningLine:
    """A line on a thread of this process."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.count_file = folder / "count.jsonl"
        self.line = SimulatedLine(LineSettings(count_file=self.count_file, **settings))
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self.line.serve, args=(self.stop,))
        self._thread.start()

    def end(self) -> None:
        self.stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.count_file.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["event"] == kind]


@pytest.fixture
def start_line(tmp_path: Path) -> Iterator[Callable[..., RunningLine]]:
    running: list[RunningLine] = []

    def start(**settings: Any) -> RunningLine:
        running.append(RunningLine(tmp_path, **settings))
        return running[-1]

    yield start
    for line in running:
        line.end()


def controller_of(running: RunningLine) -> SimulatedController:
    return SimulatedController("127.0.0.1", running.line.port, SystemClock(), "test")


def next_trigger(controller: SimulatedController) -> Trigger:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        event = controller.take(0.2)
        if isinstance(event, Trigger):
            return event
    raise AssertionError("no trigger came")


def test_each_exposure_belongs_to_its_trigger_and_shows_its_part(start_line: Callable[..., RunningLine]) -> None:
    running = start_line(seed=7, parts_per_s=20, defect_rate=0.5)
    controller, camera = controller_of(running), SimulatedCamera("127.0.0.1", running.line.port, "cam")
    camera.open()
    assert isinstance(camera.read(0.2), NoFrame), "the belt must stand until a station is ready"
    controller.set_state(StationState(ready=True))
    for _ in range(5):
        trigger, frame = next_trigger(controller), camera.read(2)
        assert isinstance(frame, Frame)
        assert trigger.sequence is not None
        assert pair(trigger.at_ns, frame.exposed_ns, 50) is Pairing.MATCH
        expected = parts.render(parts_plan.plan_part(7, trigger.sequence, 0.5))
        assert (frame.image_bgr == expected).all()
        controller.answer(answer_to(trigger, Verdict.OK))
    controller.close()
    camera.close()


def test_the_count_file_knows_truth_verdicts_and_missing_answers(start_line: Callable[..., RunningLine]) -> None:
    running = start_line(parts_per_s=20, part_count=6, deadline_ms=1000)
    controller = controller_of(running)
    controller.set_state(StationState(ready=True))
    for _ in range(6):
        trigger = next_trigger(controller)
        if trigger.sequence != 3:
            controller.answer(answer_to(trigger, Verdict.NG))
    running._thread.join(5)
    assert [event["sequence"] for event in running.events("trigger")] == [1, 2, 3, 4, 5, 6]
    assert {event["truth"] for event in running.events("trigger")} <= {"OK", "NG"}
    assert [event["sequence"] for event in running.events("verdict")] == [1, 2, 4, 5, 6]
    assert [event["sequence"] for event in running.events("no_answer")] == [3]
    controller.close()


def test_a_verdict_after_the_deadline_is_counted_as_late(start_line: Callable[..., RunningLine]) -> None:
    running = start_line(parts_per_s=20, part_count=8, deadline_ms=60)
    controller = controller_of(running)
    controller.set_state(StationState(ready=True))
    first = next_trigger(controller)
    for _ in range(4):
        next_trigger(controller)
    controller.answer(answer_to(first, Verdict.OK))
    running._thread.join(5)
    assert [event["sequence"] for event in running.events("late_verdict")] == [1]
    controller.close()


def test_a_station_that_comes_back_learns_what_it_missed(start_line: Callable[..., RunningLine]) -> None:
    running = start_line(parts_per_s=50)
    first = controller_of(running)
    first.set_state(StationState(ready=True))
    next_trigger(first)
    first.close()
    time.sleep(0.1)
    second = controller_of(running)
    position = second.take(2)
    assert isinstance(position, LinePosition)
    assert position.sequence > 1
    trigger = next_trigger(second)
    assert trigger.sequence == position.sequence + 1, "the belt did not stop, and nothing after the position is lost"
    second.close()


def test_a_camera_survives_the_line_being_away(start_line: Callable[..., RunningLine], free_port: int) -> None:
    camera = SimulatedCamera("127.0.0.1", free_port, "cam")
    camera.open()
    assert isinstance(camera.read(0.05), NoFrame)
    running = start_line(port=free_port, parts_per_s=50, wait_for_ready=False)
    until = time.monotonic() + 5
    while not isinstance(camera.read(0.2), Frame):
        assert time.monotonic() < until
    camera.close()
    assert running.events("trigger")


def test_a_line_serves_this_machine_only(tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as caught:
        SimulatedLine(LineSettings(count_file=tmp_path / "count.jsonl", host="0.0.0.0"))
    assert "127.0.0.0/8" in str(caught.value)
