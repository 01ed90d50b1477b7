"""A part is taken only where its moment is known better than a frame may be off; else a neighbour's would be judged."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.line import handshake
from agent.line.handshake_state import Rules, Seen, State, Step, Told
from agent.line.register_map import PlcWords
from agent.line.trigger import StationState, Trigger

MS = 1_000_000
NOW_UTC = datetime(2026, 1, 1, tzinfo=UTC)
TRUST_MS = 6


def words(sequence: int, age_ms: int) -> PlcWords:
    return PlcWords(run=7, trigger_seq=sequence, trigger_seq_end=sequence, trigger_age_ms=age_ms)


def met() -> State:
    """A station that is ready and has met its PLC at part 10."""
    rules = Rules(name="s", agent_run=1, max_results=8, trust_ns=TRUST_MS * MS, plc_silent_ns=0)
    state = handshake.step(State(rules=rules), Told(state=StationState(ready=True)), 0).state
    return handshake.step(state, Seen(plc=words(10, 0), at_utc=NOW_UTC, uncertain_ns=0), 0).state


def look(
    state: State, sequence: int, *, age_ms: int, at_ms: int, unseen_ms: int = 2, exchange_ms: int = 1, now_ms: int = 0
) -> Step:
    seen = Seen(
        plc=words(sequence, age_ms),
        at_utc=NOW_UTC,
        at_ns=at_ms * MS,
        uncertain_ns=unseen_ms * MS,
        exchange_ns=exchange_ms * MS,
    )
    return handshake.step(state, seen, (now_ms or at_ms) * MS)


def moments_ms(step: Step) -> list[int]:
    return [event.at_ns // MS for event in step.events if isinstance(event, Trigger)]


def test_a_part_that_tells_its_age_came_so_long_before_the_answer() -> None:
    assert moments_ms(look(met(), 11, age_ms=30, at_ms=100, unseen_ms=400)) == [70]


def test_the_moment_is_counted_from_the_answer_not_from_when_somebody_came_to_read_it() -> None:
    assert moments_ms(look(met(), 11, age_ms=30, at_ms=100, now_ms=140)) == [70]


def test_an_age_that_came_slowly_is_asked_for_again() -> None:
    first = look(met(), 11, age_ms=2, at_ms=100, exchange_ms=TRUST_MS + 1)
    assert first.events == ()
    assert first.state.missed == 0
    second = look(first.state, 11, age_ms=12, at_ms=103)
    assert moments_ms(second) == [91]
    assert second.state.missed == 0
    assert look(second.state, 11, age_ms=14, at_ms=105).events == (), "it is taken once"


def test_a_part_overtaken_before_its_age_was_known_is_missed_and_counted() -> None:
    first = look(met(), 11, age_ms=2, at_ms=100, exchange_ms=TRUST_MS + 1)
    second = look(first.state, 12, age_ms=1, at_ms=103)
    assert moments_ms(second) == [102]
    assert second.state.missed == 1


@pytest.mark.parametrize(("unseen_ms", "taken", "missed"), [(TRUST_MS, 1, 0), (TRUST_MS + 1, 0, 1)])
def test_without_an_age_the_time_between_two_looks_decides(unseen_ms: int, taken: int, missed: int) -> None:
    step = look(met(), 11, age_ms=0, at_ms=100, unseen_ms=unseen_ms)
    assert len(moments_ms(step)) == taken
    assert step.state.missed == missed
