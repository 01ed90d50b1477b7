"""The trigger of clips and picture folders: every frame is a part."""

from __future__ import annotations

from agent.clock import Clock
from agent.line.trigger import Answer, LineEvent, RecipeRequest, StationState, Trigger, TriggerKind
from wire.inspection import Mode
from wire.mint import Mint


class EachFrame:
    """Makes a trigger whenever the station is ready for one; verdicts go nowhere but into the record."""

    def __init__(self, clock: Clock, mint: Mint, mode: Mode) -> None:
        self._clock = clock
        self._mint = mint
        self._mode = mode

    def take(self, timeout_s: float) -> LineEvent | None:  # noqa: ARG002  (the seam's signature)
        """Return a trigger at once."""
        return Trigger(
            id=self._mint.uuid7(),
            run="",
            sequence=None,
            at_ns=self._clock.monotonic_ns(),
            at_utc=self._clock.now_utc(),
            mode=self._mode,
            kind=TriggerKind.NEXT_FRAME,
        )

    def answer(self, answer: Answer) -> None:
        """Nobody waits for it."""

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        """Nobody asked."""

    def set_state(self, state: StationState) -> None:
        """Nobody asks."""

    def close(self) -> None:
        """Nothing is open."""
