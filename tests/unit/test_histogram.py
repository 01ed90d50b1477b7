"""Histograms of durations: percentiles within 5 %, merging is addition."""

from __future__ import annotations

import math
import random

import pytest

from wire.histogram import BIN_COUNT, Histogram


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.95, 0.99])
def test_a_quantile_is_within_five_percent_of_the_exact_one(fraction: float) -> None:
    rng = random.Random(7)
    values = sorted(rng.lognormvariate(2.0, 1.0) for _ in range(5000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = values[math.ceil(fraction * len(values)) - 1]
    assert histogram.quantile(fraction) == pytest.approx(exact, rel=0.05)


def test_merging_is_addition() -> None:
    first, second, both = Histogram(), Histogram(), Histogram()
    for value in (0.1, 3.0, 700.0):
        first.add(value)
        both.add(value)
    for value in (0.2, 3.0):
        second.add(value)
        both.add(value)
    first.merge(second)
    assert first.counts == both.counts
    assert first.total == 5


def test_what_lies_outside_is_counted_at_the_ends() -> None:
    histogram = Histogram()
    for value in (0.0, -1.0, 1e12):
        histogram.add(value)
    assert (histogram.counts[0], histogram.counts[BIN_COUNT - 1]) == (2, 1)
    assert Histogram().quantile(0.5) is None
