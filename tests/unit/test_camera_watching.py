"""When a camera's process is given up, when a frame arrived, and whether a picture still changes: decided by values."""

from __future__ import annotations

import random

import numpy as np
import pytest

from agent.capture import supervision
from agent.capture.arrival import ArrivalClock
from agent.capture.changes import ChangeWatch
from agent.capture.decoder_log import said_in
from agent.capture.supervision import Limits, Phase

S = 1_000_000_000
LIMITS = Limits(open_s=5, read_s=3, unchanged_s=10, steady=True)
WAITING = Limits(open_s=5, read_s=3, unchanged_s=10, steady=False)


@pytest.mark.parametrize(
    ("phase", "limits", "seen", "now_s", "expected"),
    [
        (Phase.STARTING, LIMITS, {}, 29, ""),
        (Phase.STARTING, LIMITS, {}, 31, "did not start"),
        (Phase.OPENING, LIMITS, {}, 6.9, ""),
        (Phase.OPENING, LIMITS, {}, 7.1, "hangs while it is opened"),
        (Phase.RUNNING, LIMITS, {"word_ns": 90 * S, "frame_ns": 90 * S}, 91, ""),
        (Phase.RUNNING, LIMITS, {"word_ns": 90 * S, "frame_ns": 84 * S}, 90, "no frame"),
        (Phase.RUNNING, LIMITS, {"word_ns": 84 * S, "frame_ns": 84 * S}, 90, "process hangs"),
        (Phase.RUNNING, WAITING, {"word_ns": 90 * S, "frame_ns": 1 * S}, 91, ""),
        (Phase.RUNNING, WAITING, {"word_ns": 84 * S, "frame_ns": 1 * S}, 90, "process hangs"),
        (
            Phase.RUNNING,
            LIMITS,
            {"word_ns": 90 * S, "frame_ns": 90 * S, "shown_ns": 90 * S, "changed_ns": 79 * S},
            90,
            "changed",
        ),
        (
            Phase.RUNNING,
            LIMITS,
            {"word_ns": 90 * S, "frame_ns": 90 * S, "shown_ns": 80 * S, "changed_ns": 79 * S},
            90,
            "",
        ),
    ],
)
def test_a_process_is_given_up_for_what_it_did_not_do(
    phase: Phase, limits: Limits, seen: dict[str, int], now_s: float, expected: str
) -> None:
    signs = supervision.signs_of_birth(0)
    supervision.enter(signs, phase, 0)
    for name, value in seen.items():
        setattr(signs, name, value)

    found = supervision.fault(signs, limits, int(now_s * S))

    assert (expected in found) if expected else found == ""


def test_nobody_who_turned_the_watch_off_is_told_of_a_still_picture() -> None:
    signs = supervision.signs_of_birth(0)
    supervision.enter(signs, Phase.RUNNING, 0)
    signs.word_ns = signs.frame_ns = signs.shown_ns = 1000 * S

    assert supervision.fault(signs, Limits(open_s=5, read_s=3, unchanged_s=0, steady=True), 1000 * S) == ""


def arrivals(clock: ArrivalClock, frames: list[tuple[float, float]]) -> list[tuple[float, bool]]:
    """Stamp frames given as (arrival s, stream time s)."""
    found = [clock.stamp(round(arrived * S), stream * 1000) for arrived, stream in frames]
    return [(arrival.at_ns / S, arrival.stale) for arrival in found]


def test_what_gathered_before_the_stream_was_opened_is_stale_until_frames_come_at_their_own_pace() -> None:
    backlog = [(10 + 0.002 * number, 0.1 * number) for number in range(20)]
    live = [(10.1 + 0.1 * number, 2.0 + 0.1 * number) for number in range(5)]

    found = arrivals(ArrivalClock(), backlog + live)

    assert [stale for _, stale in found] == [True] * 20 + [False] * 5


def test_a_frame_that_was_held_up_is_stamped_as_if_it_had_not_been() -> None:
    clock = ArrivalClock()
    steady = [(10 + 0.1 * number, 0.1 * number) for number in range(30)]
    arrivals(clock, steady)

    # Nothing comes for 0.8 s, then what was held up comes at once.
    burst = arrivals(clock, [(13.8, 3.0), (13.8, 3.1), (13.8, 3.2), (13.81, 3.8)])

    assert [at for at, _ in burst] == pytest.approx([13.0, 13.1, 13.2, 13.8])


def test_a_stamp_is_never_later_than_the_arrival_and_follows_a_clock_that_drifts() -> None:
    chance = random.Random(3)
    clock = ArrivalClock()
    late: list[float] = []
    for number in range(20_000):  # 33 minutes at 10 fps, the camera's clock 200 ppm slow, up to 50 ms of jitter
        true_s = 100 + number * 0.1
        arrived_s = true_s + chance.random() * 0.05
        stamp = clock.stamp(round(arrived_s * S), true_s * (1 - 200e-6) * 1000)
        assert stamp.at_ns <= round(arrived_s * S) + 1000
        if number > 10:
            late.append(arrived_s - stamp.at_ns / S)

    assert max(late) < 0.06


def test_a_stream_without_times_or_with_a_new_beginning_is_taken_as_it_arrives() -> None:
    clock = ArrivalClock()
    assert arrivals(clock, [(1.0, 0.0), (1.1, 0.0), (1.2, 0.0)])[1:] == [(1.1, False), (1.2, False)]

    clock = ArrivalClock()
    found = arrivals(clock, [(1.0, 500.0), (1.1, 500.1), (1.2, 500.2), (1.3, 0.0), (1.4, 0.1), (1.5, 0.2)])
    assert found[3:] == [(1.3, False), (1.4, False), (1.5, False)]


def test_a_single_bit_anywhere_is_a_change() -> None:
    watch = ChangeWatch()
    chance = np.random.default_rng(5)
    picture = chance.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    assert watch.changed(picture)
    watch.changed(picture)
    assert not watch.changed(picture)
    assert not watch.changed(picture.copy())

    for _ in range(50):
        row, column, colour = (int(chance.integers(0, size)) for size in picture.shape)
        picture[row, column, colour] ^= 1 << int(chance.integers(0, 8))
        # A change outside the sample is known at once here, because the picture before it was held against its own.
        changed = watch.changed(picture)
        watch.changed(picture)
        watch.changed(picture)
        assert changed, (row, column)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"[OPENCV:FFMPEG:48] nal_unit_type: 1(Coded slice), nal_ref_idc: 2\n", (False, False)),
        (b"[OPENCV:FFMPEG:48] Format yuv420p chosen by get_format().\n", (True, False)),
        (b"[OPENCV:FFMPEG:40] Reinit context to 160x128, pix_fmt: yuv420p\n", (True, False)),
        (b"[OPENCV:FFMPEG:16] error while decoding MB 3 4, bytestream -5\n", (False, True)),
        (b"[OPENCV:FFMPEG:48] nothing is corrupt here\n[OPENCV:FFMPEG:24] deprecated pixel format\n", (False, False)),
    ],
)
def test_the_decoders_log_tells_damage_and_another_format(lines: bytes, expected: tuple[bool, bool]) -> None:
    said = said_in(lines)

    assert (said.was_set_up, said.complained) == expected
