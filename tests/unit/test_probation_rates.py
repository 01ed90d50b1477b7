"""The figures of docs/explanation/probation.md, simulated again on fewer runs; seeded, so that they fail or never fail.

A claim is rejected only where a binomial test at 99 % rejects it.
"""

from __future__ import annotations

import math

import pytest

from scripts import measure_probation as measured


def at_least(hits: int, runs: int, chance: float) -> float:
    """Return the probability of so many hits or more."""
    return sum(math.comb(runs, k) * chance**k * (1 - chance) ** (runs - k) for k in range(hits, runs + 1))


@pytest.mark.parametrize("ng", [0.002, 0.02, 0.1, 0.4])
def test_hardly_anybody_is_asked_where_nothing_has_changed(ng: float) -> None:
    found = measured.watch(measured.steady(ng, ng / 4), None, runs=100, seed=11, every=5)
    assert at_least(len(found.noticed_after), found.runs, 0.001) > 0.01


@pytest.mark.parametrize(("ng", "claimed"), [(0.02, 0.001), (0.1, 0.008)])
def test_a_line_whose_ng_come_in_heaps_raises_few_alarms(ng: float, claimed: float) -> None:
    found = measured.watch(measured.in_lots(ng, ng / 2, 0.8), None, runs=100, seed=12, every=5)
    assert at_least(len(found.noticed_after), found.runs, claimed) > 0.01


@pytest.mark.parametrize(("ng", "parts"), [(0.02, 1003), (0.05, 283), (0.1, 124)])
def test_always_ok_is_noticed_after_so_many_parts_in_nine_of_ten_runs(ng: float, parts: int) -> None:
    runs = 40
    found = measured.watch(measured.steady(ng, 0.0), measured.steady(0.0, 0.0), runs=runs, seed=13, parts=parts)
    assert at_least(runs - len(found.noticed_after), runs, 0.1) > 0.01


def test_exchanged_verdicts_and_parts_pushed_into_unsure_are_noticed_at_once() -> None:
    for line in (measured.steady(0.98, 0.0), measured.steady(0.01, 0.5)):
        found = measured.watch(measured.steady(0.02, 0.0), line, runs=40, seed=14, parts=20)
        assert len(found.noticed_after) == 40
        assert sorted(found.noticed_after)[20] == 10
