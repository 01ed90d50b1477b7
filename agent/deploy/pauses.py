"""Pauses between two tries of a download or of going back: growing, with full jitter, as long as the fleet asks for."""

from __future__ import annotations

import random
from typing import Final

from agent.clock import Clock
from agent.uplink.backoff import Backoff

# A fleet may ask for a longer wait than we would take, but not for ever.
LONGEST_ASKED_S: Final = 3600.0


class Pauses:
    """One series of pauses for each model; a restart of the agent begins them anew.

    Args:
        first_s, most_s: upper ends of the first and of any pause; each is a random share.
    """

    def __init__(self, first_s: float, most_s: float, clock: Clock, rng: random.Random) -> None:
        self._limits_s = (first_s, most_s)
        self._clock = clock
        self._rng = rng
        self._backoffs: dict[str, Backoff] = {}
        self._over_ns: dict[str, int] = {}

    def begin(self, model: str, asked_s: float = 0.0) -> None:
        """Wait before the next try; not less than the fleet asks for."""
        backoff = self._backoffs.setdefault(model, Backoff(*self._limits_s, self._rng))
        wait_s = min(asked_s, LONGEST_ASKED_S) + backoff.next_s()
        self._over_ns[model] = self._clock.monotonic_ns() + int(wait_s * 1e9)

    def lasts(self, model: str) -> bool:
        """Tell whether a pause is not over."""
        return self._clock.monotonic_ns() < self._over_ns.get(model, 0)

    def reset(self, model: str) -> None:
        """Something came: the next pause is a short one again."""
        self._backoffs.pop(model, None)

    def end(self, model: str) -> None:
        """Begin anew without a pause: another deployment is asked for."""
        self.reset(model)
        self._over_ns.pop(model, None)
