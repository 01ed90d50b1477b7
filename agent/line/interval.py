"""The trigger of a station that looks by the clock: every so often the next fresh frame is a part."""

from __future__ import annotations

import threading

from agent.clock import Clock
from agent.line.trigger import Answer, LineEvent, RecipeRequest, StationState, Trigger, TriggerKind
from wire.inspection import Mode
from wire.mint import Mint


class Interval:
    """Makes a trigger every `interval_s` while the station is ready; a station that is late skips the ones between."""

    def __init__(self, interval_s: float, mode: Mode, clock: Clock, mint: Mint) -> None:
        self._interval_ns = int(interval_s * 1e9)
        self._mode = mode
        self._clock = clock
        self._mint = mint
        self._due_ns = clock.monotonic_ns()
        self._ready = False
        self._closed = threading.Event()

    def take(self, timeout_s: float) -> LineEvent | None:
        """Wait for the next moment; None when it is not within the time, or there is nobody to look."""
        left_s = (self._due_ns - self._clock.monotonic_ns()) / 1e9
        if not self._ready or left_s > timeout_s:
            self._clock.wait(self._closed, timeout_s)
            return None
        if left_s > 0 and self._clock.wait(self._closed, left_s):
            return None
        if self._closed.is_set():
            return None
        now_ns = self._clock.monotonic_ns()
        self._due_ns += self._interval_ns * max(1, 1 + (now_ns - self._due_ns) // self._interval_ns)
        return Trigger(
            id=self._mint.uuid7(),
            run="",
            sequence=None,
            at_ns=now_ns,
            at_utc=self._clock.now_utc(),
            mode=self._mode,
            kind=TriggerKind.FRESH_FRAME,
        )

    def answer(self, answer: Answer) -> None:
        """Nobody waits for it."""

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        """Nobody asked."""

    def set_state(self, state: StationState) -> None:
        """Look only while there is something to look with."""
        self._ready = state.ready

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
