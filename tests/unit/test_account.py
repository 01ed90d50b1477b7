"""The account of triggers: every part that passed unseen is told from the line's own sequence."""

from __future__ import annotations

import pytest

from agent.inspection.account import Missed, is_repeat, missed_before
from agent.inspection.pairing import Pairing, pair


@pytest.mark.parametrize(
    ("last_seen", "run", "sequence", "first", "last"),
    [
        (("a", 4), "a", 5, 5, 4),  # the next one: nothing missed
        (("a", 4), "a", 8, 5, 7),  # three passed
        (("a", 4), "b", 1, 1, 0),  # the controller started anew and nothing has passed
        (("a", 4), "b", 3, 1, 2),  # it started anew and two passed
        (("a", 0), "a", 1, 1, 0),  # the first part of a line we met before its belt moved
    ],
)
def test_what_passed_between_two_triggers(
    last_seen: tuple[str, int], run: str, sequence: int, first: int, last: int
) -> None:
    missed = missed_before(last_seen, run, sequence)
    assert missed == Missed(run=run, first=first, last=last)
    assert len(missed) == max(0, last - first + 1)


@pytest.mark.parametrize(
    ("run", "sequence", "expected"), [("a", 4, True), ("a", 3, True), ("a", 5, False), ("b", 4, False)]
)
def test_a_trigger_on_record_is_a_repeat(run: str, sequence: int, *, expected: bool) -> None:
    assert is_repeat(("a", 4), run, sequence) is expected


@pytest.mark.parametrize(
    ("apart_ms", "expected"),
    [(-51, Pairing.EARLIER), (-50, Pairing.MATCH), (0, Pairing.MATCH), (50, Pairing.MATCH), (51, Pairing.LATER)],
)
def test_a_frame_belongs_to_a_trigger_by_time_alone(apart_ms: int, expected: Pairing) -> None:
    assert pair(10**12, 10**12 + apart_ms * 1_000_000, 50) is expected
