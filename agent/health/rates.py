"""Frames per second over the last few seconds, from counts that only grow. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_NS: Final = 10_000_000_000
_SAMPLES_MOST: Final = 64


class FrameRates:
    """Remembers the counts of each view for `WINDOW_NS`. One thread uses it."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str], deque[tuple[int, int, int]]] = {}

    def add(self, station: str, view: str, at_ns: int, frames_in: int, used: int) -> tuple[float, float] | None:
        """Take a view's counts; return frames in and used per second, None before there are two looks apart."""
        samples = self._samples.setdefault((station, view), deque(maxlen=_SAMPLES_MOST))
        samples.append((at_ns, frames_in, used))
        # One sample as old as the window stays, so that the whole window is measured; and one from before the first
        # frame, so that the time a camera took to open is not.
        while len(samples) > 2 and (at_ns - samples[1][0] >= WINDOW_NS or samples[1][1] == 0):
            samples.popleft()
        first_ns, first_in, first_used = samples[0]
        seconds = (at_ns - first_ns) / 1e9
        if seconds <= 0:
            return None
        return (frames_in - first_in) / seconds, (used - first_used) / seconds
