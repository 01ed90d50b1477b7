"""The trigger of clips and picture folders: every frame is a part."""

from __future__ import annotations

from agent.clock import Clock
from agent.line.trigger import LinePosition, Trigger
from wire.inspection import Mode, Verdict
from wire.mint import Mint


class EachFrame:
    """Makes a trigger whenever the station is ready for one; verdicts go nowhere but into the record."""

    def __init__(self, clock: Clock, mint: Mint, mode: Mode) -> None:
        self._clock = clock
        self._mint = mint
        self._mode = mode

    def take(self, timeout_s: float) -> Trigger | LinePosition | None:  # noqa: ARG002  (the seam's signature)
        """Return a trigger at once."""
        return Trigger(
            id=self._mint.uuid7(),
            run="",
            sequence=None,
            at_ns=self._clock.monotonic_ns(),
            at_utc=self._clock.now_utc(),
            mode=self._mode,
        )

    def answer(self, trigger: Trigger, verdict: Verdict) -> None:
        """Nobody waits for it."""

    def set_ready(self, *, ready: bool) -> None:
        """Nobody asks."""

    def close(self) -> None:
        """Nothing is open."""
