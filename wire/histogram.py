"""Histograms of durations: cheap to add to, mergeable by addition, percentiles within 5 % of the value."""

from __future__ import annotations

import itertools
import math
from typing import Final

# Eight bins for each doubling: a bin is 9 % wide, and its middle at most 4.5 % off.
_BINS_PER_DOUBLING: Final = 8
_SMALLEST_MS: Final = 2.0**-10  # 1 µs
_DOUBLINGS: Final = 27  # up to 131 s
BIN_COUNT: Final = _BINS_PER_DOUBLING * _DOUBLINGS + 2


class Histogram:
    """Counts of durations in fixed logarithmic bins; the first and last take what lies outside."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * BIN_COUNT

    def add(self, value_ms: float) -> None:
        """Count one duration in ms."""
        if value_ms <= _SMALLEST_MS:
            self.counts[0] += 1
            return
        place = int(math.log2(value_ms / _SMALLEST_MS) * _BINS_PER_DOUBLING) + 1
        self.counts[min(place, BIN_COUNT - 1)] += 1

    def merge(self, other: Histogram) -> None:
        """Add another histogram's counts."""
        for place, count in enumerate(other.counts):
            self.counts[place] += count

    @property
    def total(self) -> int:
        return sum(self.counts)

    def quantile(self, fraction: float) -> float | None:
        """Return the value in ms below which `fraction` of all durations lie; None where there are none."""
        total = self.total
        if total == 0:
            return None
        rank = min(total, max(1, math.ceil(fraction * total)))
        place = next(place for place, seen in enumerate(itertools.accumulate(self.counts)) if seen >= rank)
        if place == 0:
            return _SMALLEST_MS
        return float(_SMALLEST_MS * 2 ** ((place - 0.5) / _BINS_PER_DOUBLING))
