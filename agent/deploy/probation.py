"""Probation: what a version's first parts say about it (pure).

Operational faults make it go back by itself; another mix of verdicts cannot tell a bad version from bad parts, so a
person is asked. Each sentence gives the numbers it rests on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

from agent.deploy import evidence
from agent.deploy.figures import LOT_PARTS, Figures, slower_than
from wire.deployment import ProbationReport

WEIGHT_MAX: Final = 500.0
LEAST_MIX_PARTS: Final = 10
LEAST_FAULTS: Final = 5
LEAST_LOOKS: Final = 50
LEAST_LATE_LOOKS: Final = 20
SLOWER_FLOOR_MS: Final = 5.0
_SLOW_SHARE: Final = 0.05
_TOLD_IN_PARTS: Final = 10
_FAULT_ODDS: Final = 1000.0
_FORMER_FAULTS_FACTOR: Final = 2.0
_SLOWER_FACTOR: Final = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbationLimits:
    """What a version must show, and what it must not; see `agent.deploy.settings.ProbationSettings`.

    Args:
        watch_s: for which it must have been watched before it may pass.
        most_s: after which it is over where too few parts came.
    """

    parts: int = 100
    watch_s: float = 600.0
    most_s: float = 691_200.0
    latency_factor: float = 3.0
    no_verdict_share: float = 0.05
    shift_odds: float = 1000.0
    memory_growth_mb: float = 128.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Nothing is decided yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """It has judged parts for long enough, and nothing was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faulty:
    """It must not stay; `code` is a key of the error register."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shifted:
    """Its verdicts have another mix than the former version's; `text` gives the numbers."""

    text: str


Finding: TypeAlias = Watching | Passed | Faulty | Shifted


def judge(
    seen: Figures,
    baseline: Figures | None,
    limits: ProbationLimits,
    *,
    watched_s: float,
    confirmed: bool,
    memory_limit_mb: float,
) -> Finding:
    """Decide what follows from what a version has done so far. The first that applies:

    1. parts without verdict, slow looks or growing memory: Faulty;
    2. another mix of verdicts, and nobody has confirmed it: Shifted;
    3. enough parts and enough time: Passed;
    4. the time is over: Faulty with `deployment.unproven`, since missing evidence is never success;
    5. Watching.

    Args:
        seen: what it did since it came into use.
        baseline: what the former version did before that; None where there was none.
        watched_s: for how long it was watched while the agent ran, holds aside.
        confirmed: a person has said that its verdicts are right.
        memory_limit_mb: of the manifest.
    """
    fault = _no_verdicts(seen, baseline, limits) or _slow(seen, baseline, limits)
    fault = fault or _grown(seen, baseline, limits, memory_limit_mb)
    if fault is not None:
        return fault
    shift = "" if confirmed else shift_of(seen, baseline, limits)
    if shift:
        return Shifted(text=shift)
    if seen.parts >= limits.parts and watched_s >= limits.watch_s:
        return Passed()
    if watched_s >= limits.most_s:
        return Faulty(
            code="deployment.unproven",
            reason=f"It judged {seen.parts} parts in {limits.most_s / 3600:g} h; {limits.parts} are needed.",
        )
    return Watching()


def report(seen: Figures, baseline: Figures | None, limits: ProbationLimits) -> ProbationReport:
    """Return what the fleet is told of a probation."""
    return ProbationReport(
        parts=seen.parts,
        faults=seen.fault_count,
        parts_needed=limits.parts,
        look_p95_ms=seen.look_p95_ms,
        former_look_p95_ms=baseline.look_p95_ms if baseline is not None else None,
        shift=shift_of(seen, baseline, limits),
    )


def is_worth_telling(told: ProbationReport | None, now: ProbationReport) -> bool:
    """Tell whether a probation has come a tenth of its parts further than was told, or has them all.

    So it is told of ten times at most, however long it lasts.
    """
    before = told.parts if told is not None else 0
    return before < now.parts_needed and (
        now.parts >= now.parts_needed or (now.parts - before) * _TOLD_IN_PARTS >= now.parts_needed
    )


def shift_of(seen: Figures, baseline: Figures | None, limits: ProbationLimits) -> str:
    """Say how the mix of verdicts differs from the former version's; empty where it does not."""
    if baseline is None:
        return ""
    now = [seen.verdicts.get(verdict, 0) for verdict in evidence.MIX]
    before = [baseline.verdicts.get(verdict, 0) for verdict in evidence.MIX]
    if sum(now) < LEAST_MIX_PARTS or sum(before) < LEAST_MIX_PARTS:
        return ""
    odds = evidence.log_mix_odds(now, before, weight_max=WEIGHT_MAX, dispersion=_dispersion_of(baseline))
    if odds < math.log(limits.shift_odds):
        return ""
    # A change of OK is one of NG or of UNSURE, and those are what a person asks for.
    place = max((1, 2), key=lambda one: _deviance(now[one], sum(now), before[one], sum(before)))
    return (
        f"{evidence.MIX[place]} {now[place]} of {sum(now)} parts ({now[place] / sum(now):.1%}), "
        f"{before[place]} of {sum(before)} ({before[place] / sum(before):.1%}) before."
    )


def _dispersion_of(figures: Figures) -> float:
    return max(
        evidence.dispersion_of(
            figures.lots, LOT_PARTS, figures.lot_sums.get(verdict, 0), figures.lot_squares.get(verdict, 0)
        )
        for verdict in evidence.MIX
    )


def _deviance(hits: int, total: int, hits_before: int, total_before: int) -> float:
    """Return how far two shares lie apart, in the deviations to be expected."""
    share = (hits + hits_before + 0.5) / (total + total_before + 1.0)
    spread = math.sqrt(share * (1 - share) * (1 / total + 1 / total_before))
    return abs(hits / total - hits_before / total_before) / spread


def _no_verdicts(seen: Figures, baseline: Figures | None, limits: ProbationLimits) -> Faulty | None:
    former = baseline.fault_count / baseline.parts if baseline is not None and baseline.parts else 0.0
    allowed = max(limits.no_verdict_share, _FORMER_FAULTS_FACTOR * former)
    faults = seen.fault_count - (0 if _may_be_late(seen, baseline) else seen.faults.get("deadline", 0))
    if faults < LEAST_FAULTS or allowed >= 1.0:
        return None
    if evidence.log_share_odds(faults, seen.parts, allowed) < math.log(_FAULT_ODDS):
        return None
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(seen.faults.items()) if count)
    before = (
        f"{baseline.fault_count} of {baseline.parts} before" if baseline is not None else "no former version to compare"
    )
    return Faulty(
        code="deployment.no_verdicts",
        reason=f"No verdict for {seen.fault_count} of {seen.parts} parts ({reasons}), {before}.",
    )


def _may_be_late(seen: Figures, baseline: Figures | None) -> bool:
    """Tell whether deadlines may be missed because of the version: its looks take longer than the former one's.

    Where they do not, it is the disk, the frames or another station that is late; going back would not help.
    """
    before_ms = baseline.look_p95_ms if baseline is not None and baseline.look_count >= LEAST_LATE_LOOKS else None
    now_ms = seen.look_p95_ms if seen.look_count >= LEAST_LATE_LOOKS else None
    return before_ms is None or now_ms is None or now_ms > _SLOWER_FACTOR * before_ms


def _slow(seen: Figures, baseline: Figures | None, limits: ProbationLimits) -> Faulty | None:
    former_ms = baseline.look_p95_ms if baseline is not None else None
    if baseline is None or former_ms is None or min(seen.look_count, baseline.look_count) < LEAST_LOOKS:
        return None
    limit_ms = max(former_ms * limits.latency_factor, former_ms + SLOWER_FLOOR_MS)
    slow = slower_than(seen.looks, limit_ms)
    if evidence.log_share_odds(slow, seen.look_count, _SLOW_SHARE) < math.log(_FAULT_ODDS):
        return None
    return Faulty(
        code="deployment.too_slow",
        reason=(
            f"{slow} of {seen.look_count} looks took longer than {limit_ms:.1f} ms (95 % within "
            f"{seen.look_p95_ms:.1f} ms, {former_ms:.1f} ms before)."
        ),
    )


def _grown(seen: Figures, baseline: Figures | None, limits: ProbationLimits, memory_limit_mb: float) -> Faulty | None:
    if seen.grew_mb > limits.memory_growth_mb:
        return Faulty(
            code="deployment.grew",
            reason=f"The agent's memory grew by {seen.grew_mb:.0f} MB in {seen.parts} parts; "
            f"{limits.memory_growth_mb:g} MB are allowed.",
        )
    before_mb = baseline.rss_mb if baseline is not None else None
    allowed_mb = memory_limit_mb + limits.memory_growth_mb
    if before_mb is None or seen.rss_mb is None or seen.rss_mb - before_mb <= allowed_mb:
        return None
    return Faulty(
        code="deployment.grew",
        reason=f"The agent uses {seen.rss_mb:.0f} MB, {before_mb:.0f} MB before; {allowed_mb:g} MB more are allowed.",
    )
