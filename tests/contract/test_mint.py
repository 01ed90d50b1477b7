"""Ids keep their order whatever the clock does, and never repeat."""

from __future__ import annotations

import re
import threading
import time

import pytest

from wire import ids, mint


class Clock:
    """A wall clock that a test turns by hand."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hand = Clock(1_763_713_800_000)
    monkeypatch.setattr(mint, "clock_ms", hand)
    return hand


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front(clock: Clock) -> None:
    made = mint.Mint().uuid7()
    assert re.fullmatch(ids.UUID_PATTERN, made)
    assert (made[14], made[19] in "89ab") == ("7", True)
    assert mint.time_ms_of(made) == clock.now_ms


def test_ids_keep_their_order_when_the_clock_jumps_back(clock: Clock) -> None:
    minting = mint.Mint()
    made = [minting.uuid7()]
    for jump in (5, -3_600_000, 0, 10, -1, 3_600_001):
        clock.now_ms += jump
        made.append(minting.uuid7())
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_more_ids_in_one_millisecond_than_the_counter_holds_borrow_from_the_next(clock: Clock) -> None:
    minting = mint.Mint()
    made = [minting.uuid7() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert minting.high_water_ms <= clock.now_ms + 4


def test_a_restart_with_a_clock_that_fell_back_continues_after_the_high_water_mark(clock: Clock) -> None:
    before = mint.Mint()
    last = before.uuid7()
    clock.now_ms -= 86_400_000
    after = mint.Mint(high_water_ms=before.high_water_ms + 1)
    assert after.uuid7() > last
    assert after.high_water_ms >= before.high_water_ms


class Hesitant(mint.Mint):
    """Lets other threads in between reading and writing the counter, where nothing keeps them out."""

    @property
    def _counter(self) -> int:
        value: int = self.__dict__["counter"]
        time.sleep(0)
        return value

    @_counter.setter
    def _counter(self, value: int) -> None:
        self.__dict__["counter"] = value


def test_threads_never_get_the_same_id_and_each_sees_its_own_in_order(clock: Clock) -> None:
    made = minted_by_threads()
    assert all(mine == sorted(mine) for mine in made)
    times_and_counters = {one[:18] for mine in made for one in mine}  # without the random part
    assert len(times_and_counters) == 8000


def minted_by_threads() -> list[list[str]]:
    minting = Hesitant()
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda mine: mine.extend(minting.uuid7() for _ in range(2000)), args=(mine,))
        for mine in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


def test_secrets_are_long_different_and_say_what_they_are_for() -> None:
    assert mint.secret("claim").startswith("claim_")
    assert len(mint.secret("claim")) >= 6 + 43
    assert mint.secret("claim") != mint.secret("claim")
    assert re.fullmatch(r"[0-9a-f]{16}", mint.epoch_id())
    assert re.fullmatch(r"[0-9a-f]{32}", mint.salt())
