"""A file played at a camera's pace: frames are due at fixed times and stamped when they are shown."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
import pytest

from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass
from agent.capture.paced import PacedSource

pytestmark = pytest.mark.alone("holds the moments at which frames come against a clock, to hundredths of a second")


class Clip:
    """A few frames, decoded at once."""

    def __init__(self, length: int = 3) -> None:
        self.number = 0
        self.length = length

    def open(self) -> SourceInfo:
        return SourceInfo(camera="c", time_class=TimeClass.RECORDED, live=False)

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        if self.number == self.length:
            return Ended()
        self.number += 1
        image = np.zeros((2, 2, 3), np.uint8)
        now = datetime.now(UTC)
        return Frame(camera="c", number=self.number, exposed_utc=now, exposed_ns=time.monotonic_ns(), image_bgr=image)

    def close(self) -> None:
        pass


def test_frames_come_at_the_pace_and_carry_the_time_they_were_shown() -> None:
    source = PacedSource(Clip(), frames_per_s=20)
    assert source.open().live is True
    shown = []
    while not isinstance(answer := source.read(1.0), Ended):
        assert isinstance(answer, Frame)
        assert abs(time.monotonic_ns() - answer.exposed_ns) < 20e6
        shown.append(answer.exposed_ns)
    gaps_ms = np.diff(shown) / 1e6
    assert gaps_ms == pytest.approx([50, 50], abs=15)


def test_a_frame_that_is_not_due_is_no_frame_yet_and_is_not_lost() -> None:
    source = PacedSource(Clip(), frames_per_s=5)
    source.open()
    first = source.read(1.0)
    assert isinstance(source.read(0.02), NoFrame)
    second = source.read(1.0)
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert (first.number, second.number) == (1, 2)


def test_a_reader_that_falls_behind_is_not_chased_by_a_burst() -> None:
    source = PacedSource(Clip(length=9), frames_per_s=20)
    source.open()
    source.read(1.0)
    time.sleep(0.3)  # six frames late
    started = time.monotonic()
    for _ in range(4):
        source.read(1.0)
    assert time.monotonic() - started > 0.06, "at most the frame that is due and one more may come at once"
