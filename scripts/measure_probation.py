"""Measures probation: false alarms of its look at the mix of verdicts, parts until a shift is noticed, cost per part.

`python scripts/measure_probation.py` prints the tables of docs/explanation/probation.md; seeded, about four minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.deploy import evidence, figures, probation
from agent.inspection import records
from agent.inspection.setup import StationSetup, ViewSetup
from agent.inspection.version_watch import VersionWatch
from wire.desired import Recipe, ViewRecipe
from wire.inspection import Inspection, Reason, TimeSource, Timings, Verdict
from wire.sampling import Draw, SamplingPlan

Shares = NDArray[np.float64]  # (parts, 3): of OK, NG and UNSURE, for each part to come
Line = Callable[[np.random.Generator, int], Shares]
ODDS: Final = 1000.0
BEFORE_PARTS: Final = 1500
PROBATION_PARTS: Final = 600  # ten minutes of one part a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What many probations came to: how many noticed a shift, and after how many parts."""

    runs: int
    noticed_after: tuple[int, ...]

    @property
    def share(self) -> float:
        return len(self.noticed_after) / self.runs

    def parts(self, quantile: float) -> str:
        """Return the parts after which this share of all runs had noticed; a dash where fewer did."""
        rank = math.ceil(quantile * self.runs)
        return str(sorted(self.noticed_after)[rank - 1]) if rank <= len(self.noticed_after) else "-"


def steady(ng: float, unsure: float) -> Line:
    """Every part stands for itself."""
    return lambda _rng, parts: _shares(ng, unsure, np.ones((parts, 2)))


def in_lots(ng: float, unsure: float, spread: float) -> Line:
    """Each lot has its own shares of NG and UNSURE: log-normal, with this standard deviation of the logarithm."""

    def draw(rng: np.random.Generator, parts: int) -> Shares:
        factors = rng.lognormal(-spread * spread / 2, spread, (math.ceil(parts / figures.LOT_PARTS), 2))
        return _shares(ng, unsure, np.repeat(factors, figures.LOT_PARTS, axis=0)[:parts])

    return draw


def wandering(ng: float, unsure: float, step: float) -> Line:
    """The shares of NG and UNSURE walk at random from lot to lot; the standard deviation of one step's logarithm."""

    def draw(rng: np.random.Generator, parts: int) -> Shares:
        steps = rng.normal(0.0, step, (math.ceil(parts / figures.LOT_PARTS), 2))
        return _shares(ng, unsure, np.repeat(np.exp(np.cumsum(steps, axis=0)), figures.LOT_PARTS, axis=0)[:parts])

    return draw


def _shares(ng: float, unsure: float, factors: Shares) -> Shares:
    others = np.array([ng, unsure]) * factors
    others /= np.maximum(1.0, others.sum(axis=1, keepdims=True))
    return np.column_stack([1.0 - others.sum(axis=1), others])


def watch(
    before: Line, now: Line | None, *, runs: int, seed: int, parts: int = PROBATION_PARTS, every: int = 1
) -> Outcome:
    """Judge again and again whether the mix has shifted, in as many probations as there are runs.

    Args:
        now: None where the same line goes on as it was.
        parts: watched in each run.
        every: so many parts are between two looks.
    """
    known = BEFORE_PARTS
    rng = np.random.default_rng(seed)
    noticed = []
    for _ in range(runs):
        shares = before(rng, known + parts if now is None else known)
        baseline = _figures(_verdicts(rng, shares[:known]))
        seen = np.cumsum(_verdicts(rng, shares[known:] if now is None else now(rng, parts)), axis=0)
        after = _noticed_after(baseline, seen, every)
        if after is not None:
            noticed.append(after)
    return Outcome(runs=runs, noticed_after=tuple(noticed))


def _verdicts(rng: np.random.Generator, shares: Shares) -> NDArray[np.int64]:
    place = (rng.random(len(shares))[:, None] >= np.cumsum(shares, axis=1)[:, :2]).sum(axis=1)
    found: NDArray[np.int64] = np.eye(3, dtype=np.int64)[place]
    return found


def _figures(verdicts: NDArray[np.int64]) -> figures.Figures:
    whole = len(verdicts) // figures.LOT_PARTS
    lots = verdicts[: whole * figures.LOT_PARTS].reshape(whole, figures.LOT_PARTS, 3).sum(axis=1)
    return figures.Figures(
        digest="a" * 64,
        verdicts=_named(verdicts.sum(axis=0)),
        lots=whole,
        lot_sums=_named(lots.sum(axis=0)),
        lot_squares=_named((lots * lots).sum(axis=0)),
    )


def _named(counts: NDArray[np.int64]) -> dict[str, int]:
    return {verdict: int(count) for verdict, count in zip(evidence.MIX, counts, strict=True)}


def _noticed_after(baseline: figures.Figures, seen: NDArray[np.int64], every: int) -> int | None:
    limits = probation.ProbationLimits(shift_odds=ODDS)
    for parts in range(probation.LEAST_MIX_PARTS, len(seen) + 1, every):
        now = figures.Figures(digest="b" * 64, verdicts=_named(seen[parts - 1]))
        if probation.shift_of(now, baseline, limits):
            return parts
    return None


def false_alarms(runs: int) -> None:
    """Print how often a person is asked although the version is as good as the former one."""
    print("NG, UNSURE before | each part for itself | lots +-50 % | lots +-95 % | wanders 10 % a lot | 20 % a lot")
    for ng, unsure in ((0.002, 0.001), (0.01, 0.005), (0.02, 0.01), (0.05, 0.02), (0.1, 0.05), (0.4, 0.1)):
        found = [watch(steady(ng, unsure), None, runs=runs, seed=1, every=5)]
        found += [watch(in_lots(ng, unsure, spread), None, runs=runs, seed=2, every=5) for spread in (0.47, 0.8)]
        found += [watch(wandering(ng, unsure, step), None, runs=runs, seed=3, every=5) for step in (0.1, 0.2)]
        print(f"{ng:.1%}, {unsure:.1%} | " + " | ".join(f"{one.share:.2%}" for one in found), flush=True)


def parts_needed(runs: int) -> None:
    """Print after how many parts a shift is noticed."""
    print("NG, UNSURE before | shift | noticed in 1000 parts | half of all runs after | nine of ten after")
    for ng, unsure in ((0.01, 0.0), (0.02, 0.0), (0.05, 0.0), (0.1, 0.0)):
        shifts = {
            "always OK": (steady(0.0, 0.0), 4000),
            "OK and NG swapped": (steady(1.0 - ng, 0.0), 100),
            "half into UNSURE": (steady(ng / 2, 0.5), 100),
            "a tenth into UNSURE": (steady(ng * 0.9, 0.1), 1000),
            "5 times the NG": (steady(5 * ng, 0.0), 1000),
            "3 times the NG": (steady(3 * ng, 0.0), 1000),
            "twice the NG": (steady(2 * ng, 0.0), 1000),
            "half the NG": (steady(ng / 2, 0.0), 1000),
        }
        for name, (line, parts) in shifts.items():
            found = watch(steady(ng, unsure), line, runs=runs, seed=4, parts=parts)
            share = sum(after <= 1000 for after in found.noticed_after) / runs
            print(f"{ng:.0%} | {name} | {share:.0%} | {found.parts(0.5)} | {found.parts(0.9)}", flush=True)


def cost(views: int) -> float:
    """Return what counting one part takes, in µs."""
    names = [f"view-{number}" for number in range(views)]
    setup = StationSetup(
        recipe=Recipe(id="default", revision=0, views={name: ViewRecipe(model="parts") for name in names}),
        sampling=SamplingPlan(revision=0, salt="00" * 16),
        views=tuple(ViewSetup(view=name, model="parts") for name in names),
    )
    times = Timings(preprocess=1.0, run=5.0, decode=0.2)
    seen = tuple(
        dataclasses.replace(
            records.view_without_verdict(view, Reason.NONE), verdict=Verdict.OK, model_digest="a" * 64, timings_ms=times
        )
        for view in setup.views
    )
    now = datetime.now(UTC)
    part = Inspection(
        id="01932f5e-7a10-7abc-8def-0123456789ab",
        device="press-1",
        station="gauge",
        recipe="default",
        recipe_revision=0,
        trigger_id="one",
        triggered_at=now,
        judged_at=now,
        time_source=TimeSource.FREE_RUNNING,
        verdict=Verdict.OK,
        views=seen,
        sampling=Draw(plan_revision=0, stratum="floor", pi=0.1, u=0.5, kept=False),
    )
    watched, count, best = VersionWatch(), 20_000, math.inf
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(count):
            watched.note(setup, part)
        best = min(best, (time.perf_counter() - started) / count)
    return best * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500, help="probations for each false-alarm rate")
    args = parser.parse_args(arguments)
    false_alarms(args.runs)
    parts_needed(max(20, args.runs // 5))
    print("cost | " + " | ".join(f"{views} views {cost(views):.1f} us a part" for views in (1, 2, 4)))


if __name__ == "__main__":
    main()
