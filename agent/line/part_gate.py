"""The trigger of a free-running belt without a photo-eye: the parts are found in one view's own frames."""

from __future__ import annotations

import logging
from typing import Final

from agent.capture.feed import Feed, Lease
from agent.capture.frame import Ended, Frame, NoFrame, Vital
from agent.clock import Clock
from agent.line import gate, strip
from agent.line.gate import Gate
from agent.line.settings import PartGateSettings
from agent.line.strip import EmptyBelt
from agent.line.trigger import Answer, Line, LineCount, LineEvent, RecipeRequest, StationState, Trigger
from wire.inspection import Mode
from wire.mint import Mint

log = logging.getLogger(__name__)

# On such pictures no belt can be seen.
_BLIND: Final = frozenset({Vital.CORRUPT, Vital.BLACK, Vital.SATURATED, Vital.WRONG_SIZE})
_MOST_PENDING: Final = 8


class PartGate:
    """Looks at every frame of its view, on the station's own thread; the one that shows a part at the line is given
    back to the feed, so that the station takes it as that part's frame. All others are counted as not triggered.

    The view's policy must be `every`, and its queue long enough for the time a part is judged in, or the station have a
    second thread: frames that are replaced or overflow are parts that pass unseen.

    Args:
        feed: of the view `settings.view`; nobody else takes from it but the station, after this line's trigger.
        counter: a line that counts the parts, to hold this gate's count against. Of its events only its counts and
            requests for recipes are passed on; verdicts do not go there.
    """

    def __init__(
        self,
        feed: Feed,
        settings: PartGateSettings,
        clock: Clock,
        mint: Mint,
        *,
        counter: Line | None = None,
        mode: Mode = Mode.PRODUCTION,
    ) -> None:
        self._feed = feed
        self._settings = settings
        self._clock = clock
        self._counter = counter
        self._mode = mode
        self._run = mint.uuid7()
        self._belt = EmptyBelt(settings)
        self._gate = Gate()
        self._told = 0
        self._learning_told = False

    @property
    def passed(self) -> int:
        """Parts whose front has reached the line since the start."""
        return self._gate.passed

    def take(self, timeout_s: float) -> LineEvent | None:
        """Return the next part at the line, or what the counter says; None when none came in time."""
        event = self._counter.take(0.0) if self._counter is not None else None
        if isinstance(event, LineCount | RecipeRequest):
            return event
        until_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            left_s = (until_ns - self._clock.monotonic_ns()) / 1e9
            taken = self._feed.take(max(0.0, left_s))
            if isinstance(taken, Ended):
                return self._trigger(None)  # the station learns of the end when it asks for the frame
            if isinstance(taken, NoFrame):
                return None
            self._look(taken.frame)
            if self._told < self._gate.passed:
                self._told = max(self._told + 1, self._gate.passed - _MOST_PENDING)
                return self._trigger(taken)
            taken.not_used()
            if left_s <= 0:
                return None

    def answer(self, answer: Answer) -> None:
        """Nobody waits for it; outputs carry verdicts."""

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        """Tell the counter's line, where the request came from."""
        if self._counter is not None:
            self._counter.answer_recipe(request, refusal)

    def set_state(self, state: StationState) -> None:
        """Tell the counter's line."""
        if self._counter is not None:
            self._counter.set_state(state)

    def close(self) -> None:
        """Leave the counter's line."""
        if self._counter is not None:
            self._counter.close()

    def _look(self, frame: Frame) -> None:
        """Take one frame in. Two parts at the line in one frame are told with it and the next."""
        if _BLIND.intersection(frame.vitals):
            return
        seen = strip.strip_of(frame.image_bgr, self._settings)
        runs = self._belt.runs(seen, self._gate.speed_px)
        self._tell_learning()
        if runs is None:
            self._gate = Gate(passed=self._gate.passed, lengths_px=self._gate.lengths_px)
            return
        line = gate.Line(
            at_px=self._settings.position * seen.length_px,
            length_px=seen.length_px,
            min_pitch_px=self._settings.min_pitch_px,
            column_px=seen.column_px,
        )
        self._gate = gate.step(self._gate, runs, line)

    def _trigger(self, lease: Lease | None) -> Trigger:
        """Give the frame back, and say that it shows a part; without a frame, that there are no more."""
        if lease is not None:
            self._feed.give_back(lease)
        return Trigger(
            id=f"{self._run}-{self._told}",
            run=self._run if lease is not None else "",
            sequence=self._told if lease is not None else None,
            at_ns=lease.frame.exposed_ns if lease is not None else self._clock.monotonic_ns(),
            at_utc=lease.frame.exposed_utc if lease is not None else self._clock.now_utc(),
            mode=self._mode,
            seen_by=self._settings.view,
        )

    def _tell_learning(self) -> None:
        if self._belt.is_learning is not self._learning_told:
            self._learning_told = self._belt.is_learning
            if self._learning_told:
                log.info("The part gate learns the empty belt.", extra={"event": "gate.learning"})
            else:
                log.info("The part gate knows the empty belt.", extra={"event": "gate.learned"})
