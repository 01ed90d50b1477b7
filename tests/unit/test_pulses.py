"""Timed reject pulses: when they are due, what calls them off, and what is too late."""

from __future__ import annotations

import random

from agent.line.gpio_chip import Edge
from agent.line.gpio_line import PartCounter
from agent.line.pulses import Pulses

MS = 1_000_000


def pulses(capacity: int = 10) -> Pulses:
    return Pulses(delay_ms=100, capacity=capacity, late_ms=5)


def test_a_pulse_begins_when_its_part_is_at_the_ejector() -> None:
    some = pulses()
    assert some.decide("a", 0, 20 * MS, wanted=True)
    assert some.next_ns() == 100 * MS
    assert some.take(99 * MS) == ([], [])
    due, late = some.take(100 * MS)
    assert ([pulse.trigger_id for pulse in due], late) == (["a"], [])
    assert some.next_ns() is None


def test_a_part_without_a_verdict_is_rejected_and_one_that_may_pass_is_not() -> None:
    some = pulses()
    for name in ("a", "b", "c"):
        assert some.expect(name, 0)
    some.decide("a", 0, 20 * MS, wanted=False)
    some.decide("b", 0, 20 * MS, wanted=True)
    due, _ = some.take(100 * MS)
    assert [pulse.trigger_id for pulse in due] == ["b", "c"]


def test_a_part_gets_one_pulse_however_often_it_is_told() -> None:
    some = pulses()
    some.expect("a", 0)
    some.expect("a", 0)
    some.decide("a", 0, 1, wanted=True)
    assert len(some.take(100 * MS)[0]) == 1
    some.expect("a", 0)
    assert some.decide("a", 0, 1, wanted=True)
    assert some.take(200 * MS) == ([], [])


def test_a_pulse_that_would_hit_another_part_is_not_given() -> None:
    some = pulses()
    some.expect("a", 0)
    due, late = some.take(106 * MS)
    assert (due, [pulse.trigger_id for pulse in late]) == ([], ["a"])
    assert not some.decide("b", 0, 106 * MS, wanted=True)
    assert some.decide("c", 0, 106 * MS, wanted=False), "a part that may pass is never too late"


def test_there_is_room_for_so_many_and_no_more() -> None:
    some = pulses(capacity=2)
    assert some.expect("a", 0)
    assert some.expect("b", 0)
    assert not some.expect("c", 0)
    some.decide("a", 0, 1, wanted=False)
    assert some.expect("c", 0), "a pulse that was called off makes room"


def test_what_is_remembered_is_bounded() -> None:
    some = pulses(capacity=50)
    for number in range(20_000):
        some.expect(f"p{number}", number * MS)
        some.decide(f"p{number}", number * MS, number * MS, wanted=number % 2 == 0)
        some.take(number * MS)
    assert len(some._known) <= 4096 + 50
    assert len(some._called_off) <= 4096 + 50
    assert len(some) <= 50


def test_every_rejected_part_of_a_random_line_gets_its_pulse_on_time() -> None:
    rng = random.Random(7)
    some = pulses(capacity=200)
    now_ns = 0
    triggered: list[tuple[str, int]] = []
    wanted: set[str] = set()
    pulsed: set[str] = set()
    for number in range(2000):
        now_ns += rng.randint(1, 20) * MS
        name = f"p{number}"
        triggered.append((name, now_ns))
        some.expect(name, now_ns)
        while triggered and now_ns - triggered[0][1] > rng.randint(0, 90) * MS:
            decided, at_ns = triggered.pop(0)
            reject = rng.random() < 0.3
            wanted |= {decided} if reject else set()
            some.decide(decided, at_ns, now_ns, wanted=reject)
        while (due_ns := some.next_ns()) is not None and due_ns <= now_ns:
            due, late = some.take(due_ns)
            assert not late
            pulsed |= {pulse.trigger_id for pulse in due}
    undecided = {name for name, _ in triggered}
    assert pulsed <= wanted, "every part was decided before its pulse was due"
    assert wanted - pulsed <= {f"p{number}" for number in range(1900, 2000)} - undecided, "the last are still to come"
    assert len(pulsed) > 400


def test_bounces_are_one_part_and_lost_edges_are_parts() -> None:
    counter = PartCounter(debounce_ms=5)

    def see(at_ms: float, number: int) -> int | None:
        return counter.see(Edge(at_ns=int(at_ms * MS), number=number))

    assert see(0, 1) == 1
    assert [see(2, 2), see(6, 3), see(9, 4)] == [None, None, None], "each bounce makes the wait begin anew"
    assert see(15, 5) == 2
    assert see(50, 9) == 6, "three edges were lost, and each may have been a part"
    assert see(52, 10) is None


def test_the_first_edge_is_a_part_and_lost_ones_before_it_too() -> None:
    counter = PartCounter(debounce_ms=0)
    assert counter.see(Edge(at_ns=0, number=3)) == 3
    assert counter.see(Edge(at_ns=0, number=4)) == 4
