"""The cores are shared by the earliest deadline: a busy station delays the others, and starves none."""

from __future__ import annotations

import threading
import time

import pytest

from agent.clock import FakeClock, SystemClock
from agent.inspection.turns import Turns

CLOCK = SystemClock()


def in_ms(milliseconds: float) -> int:
    return CLOCK.monotonic_ns() + int(milliseconds * 1e6)


def wait_until_queued(turns: Turns, count: int) -> None:
    until = time.monotonic() + 3
    while len(turns._queue) < count and time.monotonic() < until:
        time.sleep(0.001)
    assert len(turns._queue) == count


def test_the_part_that_is_due_first_goes_first_whoever_came_first() -> None:
    turns = Turns(1, CLOCK)
    served: list[str] = []

    def look(name: str, due_ns: int) -> None:
        with turns.turn(due_ns) as granted:
            assert granted
            served.append(name)

    with turns.turn(in_ms(5000)):
        threads = []
        for count, (name, due_ms) in enumerate([("late", 9000), ("soon", 3000), ("sooner", 2000)], start=1):
            threads.append(threading.Thread(target=look, args=(name, in_ms(due_ms))))
            threads[-1].start()
            wait_until_queued(turns, count)
    for thread in threads:
        thread.join(5)
    assert served == ["sooner", "soon", "late"]


def test_at_most_so_many_looks_run_at_once() -> None:
    turns = Turns(2, CLOCK)
    lock = threading.Lock()
    running = most = done = 0

    def look() -> None:
        nonlocal running, most, done
        for _ in range(20):
            with turns.turn(in_ms(10_000)) as granted:
                assert granted
                with lock:
                    running += 1
                    most = max(most, running)
                time.sleep(0.001)
                with lock:
                    running -= 1
                    done += 1

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (most, done) == (2, 120)


def test_a_station_that_is_always_busy_does_not_starve_one_with_a_far_deadline() -> None:
    turns = Turns(1, CLOCK)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            with turns.turn(in_ms(200)):
                time.sleep(0.005)

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with turns.turn(in_ms(600)) as granted:  # due before those that come later than in 400 ms
            assert granted
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)


def test_whoever_is_not_served_by_the_deadline_leaves_and_takes_nobodys_turn() -> None:
    turns = Turns(1, CLOCK)
    with turns.turn(in_ms(5000)) as first, turns.turn(in_ms(20)) as late:
        assert (first, late) == (True, False)
    with turns.turn(in_ms(-1)) as too_late:
        assert not too_late
    assert turns.refused_count == 2
    with turns.turn(in_ms(1000)) as free_again:
        assert free_again


def test_a_look_that_raises_gives_its_turn_back() -> None:
    turns = Turns(1, CLOCK)

    def fail() -> None:
        with turns.turn(in_ms(1000)) as granted:
            assert granted
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fail()


def test_a_place_is_lent_only_after_it_was_idle_and_only_once() -> None:
    clock = FakeClock()
    turns = Turns(1, clock)
    with turns.turn(clock.monotonic_ns() + 10**9):
        assert not turns.borrow(lambda: None), "the only place is taken"
    assert not turns.borrow(lambda: None), "a look has just ended: the next may come at once"
    clock.advance(0.006)
    assert turns.borrow(lambda: None)
    assert not turns.borrow(lambda: None)
    turns.end_borrowing()
    assert turns.borrow(lambda: None)


def test_a_look_takes_the_last_place_from_the_borrower_and_does_not_wait_for_it() -> None:
    clock = FakeClock()
    turns = Turns(2, clock)
    clock.advance(1)
    revoked: list[str] = []
    assert turns.borrow(lambda: revoked.append("now"))
    with turns.turn(clock.monotonic_ns() + 10**9) as first:
        assert first
        assert not revoked, "one place is still free"
        with turns.turn(clock.monotonic_ns() + 10**9) as second:
            assert second
            assert revoked == ["now"]
        turns.end_borrowing()
        assert not turns.borrow(lambda: None)
        clock.advance(0.006)
        assert turns.borrow(lambda: revoked.append("again"))
    turns.end_borrowing()
    with turns.turn(clock.monotonic_ns() + 10**9), turns.turn(clock.monotonic_ns() + 10**9):
        assert revoked == ["now"], "who has returned the place is not asked for it"


def test_no_place_is_lent_while_somebody_carries_parts_as_fast_as_they_can_be_read() -> None:
    clock = FakeClock()
    turns = Turns(2, clock)
    with turns.at_full_speed(), turns.at_full_speed():
        for _ in range(50):
            with turns.turn(clock.monotonic_ns() + 10**9):
                clock.advance(0.005)
            clock.advance(0.03)  # it waits for its decoder, not for a part
            assert not turns.borrow(lambda: None)
    clock.advance(0.02)
    with turns.at_full_speed():
        assert not turns.borrow(lambda: None)
    assert turns.borrow(lambda: None)


def test_no_place_is_lent_beside_a_thread_that_never_pauses() -> None:
    clock = FakeClock()
    turns = Turns(2, clock)

    def look(pause_s: float) -> None:
        with turns.turn(clock.monotonic_ns() + 10**9):
            clock.advance(0.03)
        clock.advance(pause_s)

    for _ in range(50):
        look(0.008)
    assert not turns.borrow(lambda: None), "it has not paused for over a second: so long it waits for a decoder"
    with turns.turn(clock.monotonic_ns() + 10**9):
        assert not turns.borrow(lambda: None)
    for _ in range(50):
        look(0.02)
    assert turns.borrow(lambda: None)
    turns.end_borrowing()
    with turns.turn(clock.monotonic_ns() + 10**9):
        assert turns.borrow(lambda: None), "a line with pauses keeps one core only"
        turns.end_borrowing()
    for _ in range(50):
        look(0.002)
    clock.advance(0.01)
    assert turns.borrow(lambda: None), "it has stopped"
