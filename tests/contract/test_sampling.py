"""The sampling draw: golden numbers both sides share for ever, evenness, and the floor."""

from __future__ import annotations

import math
import random

import pytest

from wire import sampling

SALT = "00112233445566778899aabbccddeeff"
# Any implementation, in any language, must get these.
GOLDEN = [
    (SALT, "01932f5e-7a10-7abc-8def-0123456789ab", 0.6010212119909217),
    ("0000000000000000", "01932f5e-7a10-7abc-8def-0123456789ab", 0.19847481011676027),
    (SALT, "01932f5e-7a11-7abc-9def-0123456789ab", 0.30947143129258115),
    ("0000000000000000", "01932f5e-7a11-7abc-9def-0123456789ab", 0.43132631795400544),
    (SALT, "00000000-0000-7000-8000-000000000000", 0.004992535214435767),
    ("0000000000000000", "00000000-0000-7000-8000-000000000000", 0.9558693875048003),
]
Z_99 = 2.5758293035489


def ids(count: int) -> list[str]:
    seeded = random.Random(20261121)
    return [f"01932f5e-{seeded.getrandbits(16):04x}-7abc-8def-{seeded.getrandbits(48):012x}" for _ in range(count)]


def within_99_percent(hits: int, trials: int, rate: float) -> bool:
    """Tell whether a count lies in the central 99 % of a binomial distribution (normal approximation)."""
    return abs(hits - trials * rate) <= Z_99 * math.sqrt(trials * rate * (1 - rate)) + 0.5


@pytest.mark.parametrize(("salt", "inspection", "u"), GOLDEN)
def test_the_draw_of_an_inspection_never_changes(salt: str, inspection: str, u: float) -> None:
    assert sampling.uniform(salt, inspection) == u


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.5])
def test_the_share_of_kept_pictures_is_the_inclusion_probability(rate: float) -> None:
    plan = sampling.SamplingPlan(revision=1, salt=SALT, floor_rate=rate)
    kept = sum(sampling.draw(plan, inspection).kept for inspection in ids(20_000))
    assert within_99_percent(kept, 20_000, rate)


def test_draws_fill_every_tenth_of_the_interval_alike() -> None:
    tenths = [0] * 10
    for inspection in ids(20_000):
        tenths[int(sampling.uniform(SALT, inspection) * 10)] += 1
    chi_squared = sum((count - 2000) ** 2 / 2000 for count in tenths)
    assert chi_squared < 21.67  # 99 % of the chi-squared distribution with 9 degrees of freedom


def test_two_salts_draw_independently() -> None:
    both = sum(
        sampling.uniform(SALT, inspection) < 0.3 and sampling.uniform("0" * 16, inspection) < 0.3
        for inspection in ids(20_000)
    )
    assert within_99_percent(both, 20_000, 0.09)


def test_no_part_falls_below_the_floor_and_the_gate_sample_is_part_of_what_is_kept() -> None:
    plan = sampling.SamplingPlan(revision=4, salt=SALT, floor_rate=0.02, gate_rate=0.1)
    for inspection in ids(2000):
        draw = sampling.draw(plan, inspection)
        assert draw.pi >= plan.floor_rate
        assert draw.plan_revision == 4
        assert draw.kept == (draw.u < draw.pi)
        assert draw.kept or draw.u >= plan.gate_rate


@pytest.mark.parametrize(("floor", "gate", "pi"), [(0.02, 0.0, 0.02), (0.02, 0.01, 0.02), (0.02, 0.1, 0.1)])
def test_the_inclusion_probability_is_the_greatest_of_the_rates(floor: float, gate: float, pi: float) -> None:
    plan = sampling.SamplingPlan(revision=1, salt=SALT, floor_rate=floor, gate_rate=gate)
    assert sampling.draw(plan, GOLDEN[0][1]).pi == pi


def test_a_rate_of_one_keeps_everything() -> None:
    plan = sampling.SamplingPlan(revision=1, salt=SALT, floor_rate=1.0)
    assert all(sampling.draw(plan, inspection).kept for inspection in ids(1000))
