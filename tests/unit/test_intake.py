"""Triggers that come as messages: each leaves after the recipe it needs, or not at all."""

from __future__ import annotations

import threading
import time

import pytest

from agent.line import intake
from agent.line.intake import Intake
from agent.line.trigger import LinePosition, RecipeRequest, Trigger
from tests.support.station import trigger

LID = RecipeRequest(recipe="lid", source="http")
NUT = RecipeRequest(recipe="nut", source="http")


class Box:
    """An intake, and what it handed back."""

    def __init__(self, capacity: int = 10) -> None:
        self.refused: list[tuple[str, str]] = []
        self.intake = Intake(lambda one, why: self.refused.append((one.id, why)), capacity)
        first = trigger(1)
        self.intake.offer(first)
        assert isinstance(self.intake.take(0), LinePosition)
        assert self.intake.take(0) is first


def test_a_trigger_waits_for_its_recipe_and_those_behind_it_wait_too() -> None:
    box = Box()
    second, third = trigger(2), trigger(3)
    box.intake.offer(second, LID)
    box.intake.offer(third)
    assert box.intake.take(0) == LID
    assert box.intake.take(0) is None, "the recipe is not in force yet"
    box.intake.settle(NUT, "")
    assert box.intake.take(0) is None, "another request's answer is not this one's"
    box.intake.settle(LID, "")
    assert box.intake.take(0) is second
    assert box.intake.take(0) is third


def test_a_trigger_whose_recipe_is_refused_is_handed_back() -> None:
    box = Box()
    third = trigger(3)
    box.intake.offer(trigger(2), LID)
    box.intake.offer(third)
    box.intake.take(0)
    box.intake.settle(LID, "There is no recipe lid.")
    assert box.refused == [("r1-2", "There is no recipe lid.")]
    assert box.intake.take(0) is third


def test_a_station_that_never_answers_does_not_hold_the_line_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "RECIPE_TIMEOUT_S", 0.05)
    box = Box()
    third = trigger(3)
    box.intake.offer(trigger(2), LID)
    box.intake.offer(third)
    box.intake.take(0)
    time.sleep(0.06)
    assert box.intake.take(0.5) is third
    assert [name for name, _ in box.refused] == ["r1-2"]
    box.intake.settle(LID, "")
    assert box.intake.take(0) is None, "a late yes must not bring back what was refused"


def test_a_recipe_alone_holds_back_what_comes_after_it() -> None:
    box = Box()
    second = trigger(2)
    box.intake.offer(None, LID)
    box.intake.offer(second)
    assert box.intake.take(0) == LID
    assert box.intake.take(0) is None
    box.intake.settle(LID, "refused")
    assert box.intake.take(0) is second
    assert box.refused == []


def test_a_full_queue_says_so_and_a_taker_is_woken() -> None:
    box = Box(capacity=2)
    assert [box.intake.offer(trigger(number)) for number in (2, 3, 4)] == [True, True, False]
    box.intake.take(0)
    box.intake.take(0)
    later = trigger(5)
    threading.Timer(0.05, box.intake.offer, args=(later,)).start()
    started = time.monotonic()
    assert box.intake.take(5.0) is later
    assert time.monotonic() - started < 2.0


def test_after_a_new_connection_the_next_counted_trigger_tells_its_position_first() -> None:
    box = Box()
    box.intake.note_connected()
    plain = Trigger(id="x", run="", sequence=None, at_ns=0, at_utc=trigger(1).at_utc)
    box.intake.offer(plain)
    box.intake.offer(trigger(9))
    assert box.intake.take(0) is plain
    assert box.intake.take(0) == LinePosition(run="r1", sequence=8)
    found = box.intake.take(0)
    assert isinstance(found, Trigger)
    assert found.sequence == 9
