"""Waits between attempts: exponential with full jitter, so that a thousand devices do not come back at once."""

from __future__ import annotations

import random


class Backoff:
    """Gives the next wait: uniform between 0 and min(most, first * 2**failures).

    Args:
        first_s: upper end of the first wait.
        most_s: upper end of any wait.
        rng: a seeded source for tests.
    """

    def __init__(self, first_s: float, most_s: float, rng: random.Random | None = None) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._rng = rng or random.Random()  # noqa: S311 (spreads load, guards nothing)
        self._failures = 0

    def next_s(self) -> float:
        """Return how long to wait before the next attempt."""
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._rng.uniform(0.0, ceiling)

    def reset(self) -> None:
        """Begin anew: something worked."""
        self._failures = 0
