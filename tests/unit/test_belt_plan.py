"""The plan of the simulated belt: seeded, never nearer than the least pitch, and with a truth of its own."""

from __future__ import annotations

import itertools

import pytest

from agent.simulator import belt
from agent.simulator.belt import BeltPart, BeltSettings, Fault, Stretch, Travel
from wire.inspection import Verdict

SETTINGS = BeltSettings(seed=7, part_count=1000, least_pitch_ms=40.0, batch_parts=300)


def test_the_same_seed_gives_the_same_belt_and_another_one_another() -> None:
    first = list(belt.plan(SETTINGS))
    assert first == list(belt.plan(SETTINGS))
    other = list(belt.plan(BeltSettings(seed=8, part_count=1000, least_pitch_ms=40.0, batch_parts=300)))
    assert [part.at_s for part in other[0].parts] != [part.at_s for part in first[0].parts]


def test_parts_are_numbered_through_all_batches_and_recipes_take_turns() -> None:
    batches = list(belt.plan(SETTINGS))
    assert [part.number for batch in batches for part in batch.parts] == list(range(1, 1001))
    assert [batch.recipe for batch in batches] == [1, 2, 1, 2]
    assert [len(batch.parts) for batch in batches] == [300, 300, 300, 100]


def test_touching_parts_are_one_length_apart_and_no_two_parts_are_nearer_in_time() -> None:
    pitches_ms = [
        (later.at_s - earlier.at_s) * 1000
        for batch in belt.plan(SETTINGS)
        for earlier, later in itertools.pairwise(batch.parts)
    ]
    assert min(pitches_ms) == pytest.approx(40.0)
    touching = [part.touching for batch in belt.plan(SETTINGS) for part in batch.parts]
    assert 0.2 < sum(touching) / len(touching) < 0.3


def test_the_belt_stops_and_changes_its_speed() -> None:
    touching_ms = {
        round((later.at_s - earlier.at_s) * 1000, 1)
        for batch in belt.plan(SETTINGS)
        for earlier, later in itertools.pairwise(batch.parts)
        if later.touching
    }
    assert {40.0, 44.4, 57.1, 80.0} <= touching_ms, "each speed shows in the pitch of touching parts"
    longest_s = max(
        later.at_s - earlier.at_s for batch in belt.plan(SETTINGS) for earlier, later in itertools.pairwise(batch.parts)
    )
    assert longest_s > 0.4, "no stop is left in the plan"


def test_time_over_way_follows_the_law_of_even_acceleration() -> None:
    travel = Travel(
        [
            Stretch(length=2.0, from_speed=0.0, to_speed=4.0),  # v^2 = 2as: a = 4, t = v/a = 1
            Stretch(length=8.0, from_speed=4.0, to_speed=4.0),
            Stretch(length=2.0, from_speed=4.0, to_speed=0.0),
            Stretch(length=2.0, from_speed=0.0, to_speed=4.0, pause_s=0.5),
        ]
    )
    assert [travel.time_at(way) for way in (0.5, 2.0, 4.0, 10.0, 12.0)] == pytest.approx([0.5, 1.0, 1.5, 3.0, 4.0])
    assert travel.time_at(12.5) == pytest.approx(5.0), "half a second of standing, half a second of starting"
    assert travel.length == 14.0


@pytest.mark.parametrize(
    ("top", "left", "seen", "verdict"),
    [
        (Fault.NONE, Fault.NONE, {"top", "left"}, Verdict.OK),
        (Fault.WEAK, Fault.NONE, {"top", "left"}, Verdict.UNSURE),
        (Fault.WEAK, Fault.CLEAR, {"top", "left"}, Verdict.NG),
        (Fault.NONE, Fault.NONE, {"top"}, Verdict.NO_VERDICT),
        (Fault.WEAK, Fault.NONE, {"top"}, Verdict.NO_VERDICT),
        (Fault.CLEAR, Fault.NONE, {"top"}, Verdict.NG),
        (Fault.NONE, Fault.CLEAR, {"top"}, Verdict.NO_VERDICT),
    ],
)
def test_what_is_expected_of_a_part_is_how_views_are_joined(
    top: Fault, left: Fault, seen: set[str], verdict: Verdict
) -> None:
    part = BeltPart(number=1, at_s=0.0, touching=False, faults={"top": (Fault.CLEAR, top), "left": (Fault.CLEAR, left)})
    assert belt.expected(part, 1, seen) is verdict
