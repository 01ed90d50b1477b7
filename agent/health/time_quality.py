"""What the wall clock is worth: asked of the kernel, and checked against the time the device has already seen."""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agent.clock import NOT_BEFORE, Clock
from agent.inspection.records import TimeQuality
from wire.inspection import TimeSource

_BACKWARDS_TOLERANCE_MS: Final = 60_000
_STA_PLL: Final = 0x0001
_STA_UNSYNC: Final = 0x0040
_STA_NANO: Final = 0x2000
# struct timex on 64-bit Linux: modes at 0, offset (µs, or ns with STA_NANO) at 8, maxerror (µs) at 24, status at 40
# (adjtimex(2)).
_TIMEX_BYTES: Final = 208
_FRESH_NS: Final = 1_000_000_000
_OFFSET_AT: Final = 8
_MAXERROR_AT: Final = 24
_STATUS_AT: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timex:
    """What the kernel says of its clock; `offset` in µs, or ns where `status` holds STA_NANO."""

    offset: int
    max_error_us: int
    status: int


class WallClock:
    """Assesses the wall clock at most once a second, since every record asks."""

    def __init__(self, clock: Clock, high_water_ms: Callable[[], int]) -> None:
        self._clock = clock
        self._high_water_ms = high_water_ms
        self._quality = TimeQuality(source=TimeSource.SUSPECT)
        self._asked_ns: int | None = None

    def quality(self) -> TimeQuality:
        """Return what the wall clock was worth within the last second."""
        now_ns = self._clock.monotonic_ns()
        if self._asked_ns is None or now_ns - self._asked_ns > _FRESH_NS:
            self._asked_ns = now_ns
            self._quality = assess(self._clock.now_utc(), self._high_water_ms())
        return self._quality

    def is_right(self) -> bool:
        """Tell whether the time of the day can be told by it: not while it is suspect.

        One that lies behind what was seen is right where a time service keeps it: what was seen was wrong then.
        """
        now = self._clock.now_utc()
        if assess(now, self._high_water_ms()).source is not TimeSource.SUSPECT:
            return True
        return now >= NOT_BEFORE and _kernel_quality().source is TimeSource.SYNCHRONISED


def assess(now: datetime, high_water_ms: int) -> TimeQuality:
    """Judge the wall clock.

    Args:
        now: what it says.
        high_water_ms: the latest time this device has ever made an id with, in ms since 1970.

    Returns:
        `suspect` where it lies before this release or before what was seen; else what the kernel says of its source.
    """
    if now < NOT_BEFORE or now.timestamp() * 1000 < high_water_ms - _BACKWARDS_TOLERANCE_MS:
        return TimeQuality(source=TimeSource.SUSPECT)
    return _kernel_quality()


def clock_offset_ms() -> float | None:
    """Return how far the wall clock still is from its time service's, in ms, positive where it is behind.

    None where nobody sets the clock, and where whoever does keeps it to himself: only ntpd and systemd-timesyncd let
    the kernel steer (STA_PLL), chrony steers by itself.
    """
    state = _ask_kernel()
    if state is None or state.status & _STA_UNSYNC or not state.status & _STA_PLL:
        return None
    return state.offset / (1e6 if state.status & _STA_NANO else 1e3)


def _kernel_quality() -> TimeQuality:
    state = _ask_kernel()
    if state is None or state.status & _STA_UNSYNC:
        return TimeQuality(source=TimeSource.FREE_RUNNING)
    return TimeQuality(source=TimeSource.SYNCHRONISED, uncertainty_ms=state.max_error_us / 1000)


def _ask_kernel() -> _Timex | None:
    if not sys.platform.startswith("linux") or struct.calcsize("P") != 8:
        return None
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None).adjtimex(buffer) < 0:
        return None
    (offset,) = struct.unpack_from("@l", buffer, _OFFSET_AT)
    (max_error_us,) = struct.unpack_from("@l", buffer, _MAXERROR_AT)
    (status,) = struct.unpack_from("@i", buffer, _STATUS_AT)
    return _Timex(offset=offset, max_error_us=max_error_us, status=status)
