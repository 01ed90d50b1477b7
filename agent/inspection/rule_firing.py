"""What one rule says about a view's findings: the verdicts it asks for, each with the finding and a sentence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.inspection import regions
from agent.inspection.regions import PictureSize
from wire import rules as wire_rules
from wire.inspection import Finding, Reason, Verdict
from wire.rules import Measure, Otherwise, Region, Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRule:
    """A manifest's rule (`wire.rules.Rule`) with the thresholds in force and its region at hand."""

    name: str
    labels: frozenset[str]
    ng_at: float | None = None
    unsure_at: float | None = None
    measure: Measure = Measure.SCORE
    min_score: float | None = None
    weak_score: float | None = None
    min_area_px: float | None = None
    min_area_mm2: float | None = None
    count_min: float | None = None
    count_max: float | None = None
    each_label: bool = False
    otherwise: Otherwise = Otherwise.NG
    region: Region | None = None
    outside: bool = False

    @property
    def expects_count(self) -> bool:
        return self.count_min is not None or self.count_max is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """One verdict a rule asks for; `score` is the finding's, 0 where there is none."""

    verdict: Verdict
    reason: Reason
    rule: str
    why: str
    finding: Finding | None = None

    @property
    def score(self) -> float:
        return 0.0 if self.finding is None else self.finding.score


def active(rule: Rule, by_name: Mapping[str, Region], parameters: Mapping[str, float]) -> ActiveRule:
    """Return a rule with the thresholds in force."""
    return ActiveRule(
        name=rule.name,
        labels=frozenset(rule.labels),
        ng_at=wire_rules.value_of(rule.ng_at, parameters),
        unsure_at=wire_rules.value_of(rule.unsure_at, parameters),
        measure=rule.measure,
        min_score=wire_rules.value_of(rule.min_score, parameters),
        weak_score=wire_rules.value_of(rule.weak_score, parameters),
        min_area_px=wire_rules.value_of(rule.min_area_px, parameters),
        min_area_mm2=wire_rules.value_of(rule.min_area_mm2, parameters),
        count_min=wire_rules.value_of(rule.count_min, parameters),
        count_max=wire_rules.value_of(rule.count_max, parameters),
        each_label=rule.each_label,
        otherwise=rule.otherwise,
        region=None if rule.region is None else by_name[rule.region],
        outside=rule.outside,
    )


def fire(rule: ActiveRule, findings: Sequence[Finding], size: PictureSize | None) -> list[Fired]:
    """Return what a rule asks for; nothing where it is content.

    Args:
        findings: of the view, with finite scores and boxes.
        size: of the picture; a rule with a region has no answer without it.
    """
    concerned = [finding for finding in findings if finding.label in rule.labels]
    if rule.region is not None:
        if size is None:
            return [_unanswered(rule, Reason.UNUSABLE_OUTPUT, "the size of the picture is not known")]
        region = rule.region
        concerned = [found for found in concerned if regions.belongs(found, region, size) is not rule.outside]
    asks_mm2 = rule.min_area_mm2 is not None or rule.measure is Measure.AREA_MM2
    if asks_mm2 and any(finding.area_mm2 is None for finding in concerned):
        return [_unanswered(rule, Reason.NOT_CALIBRATED, "a finding has no area in square millimetres")]
    asks_px = rule.min_area_px is not None or rule.measure is Measure.AREA_PX
    if asks_px and any(area_px_of(finding, size) is None for finding in concerned):
        return [_unanswered(rule, Reason.UNUSABLE_OUTPUT, "a finding has no area")]
    concerned = [finding for finding in concerned if _is_large(finding, rule, size)]
    if not (rule.expects_count or rule.measure is Measure.COUNT):
        return _by_band(rule, concerned, size)
    count = _by_expected_count if rule.expects_count else _by_counted_band
    if not rule.each_label:
        return count(rule, " or ".join(sorted(rule.labels)), concerned)
    each = ([found for found in concerned if found.label == label] for label in sorted(rule.labels))
    return list(
        itertools.chain.from_iterable(
            count(rule, label, of_label) for label, of_label in zip(sorted(rule.labels), each, strict=True)
        )
    )


def area_px_of(finding: Finding, size: PictureSize | None) -> float | None:
    """Return a finding's area, that of its box where it says none, that of the picture where it has no box."""
    if finding.area_px is not None:
        return finding.area_px
    box = finding.box
    if box is not None:
        return (box.x2_px - box.x1_px) * (box.y2_px - box.y1_px)
    return None if size is None else float(size.width_px * size.height_px)


def _is_large(finding: Finding, rule: ActiveRule, size: PictureSize | None) -> bool:
    return _reaches(area_px_of(finding, size), rule.min_area_px) and _reaches(finding.area_mm2, rule.min_area_mm2)


def _reaches(value: float | None, least: float | None) -> bool:
    """A value that is no number reaches every limit: it must not hide a defect."""
    return least is None or value is None or math.isnan(value) or value >= least


def _by_band(rule: ActiveRule, concerned: Sequence[Finding], size: PictureSize | None) -> list[Fired]:
    measures: dict[Measure, Callable[[Finding], float | None]] = {
        Measure.SCORE: lambda finding: finding.score,
        Measure.AREA_PX: lambda finding: area_px_of(finding, size),
        Measure.AREA_MM2: lambda finding: finding.area_mm2,
    }
    measured = [
        (math.inf if value is None or math.isnan(value) else value, finding)
        for finding in concerned
        if _reaches(finding.score, rule.min_score)
        for value in (measures[rule.measure](finding),)
    ]
    if not measured:
        return []
    value, finding = max(measured, key=lambda pair: pair[0])
    for verdict, limit in ((Verdict.NG, rule.ng_at), (Verdict.UNSURE, rule.unsure_at)):
        if limit is not None and value >= limit:
            unit = {Measure.SCORE: "score", Measure.AREA_PX: "area in px", Measure.AREA_MM2: "area in mm2"}[
                rule.measure
            ]
            why = f"{rule.name}: {finding.label}: {unit} {value:.4g} is not below {limit:g}."
            return [_band(rule, verdict, finding, why)]
    return []


def _by_counted_band(rule: ActiveRule, what: str, concerned: Sequence[Finding]) -> list[Fired]:
    strong, weak = _split(rule, concerned)
    ranked = strong + weak
    for verdict, limit in ((Verdict.NG, rule.ng_at), (Verdict.UNSURE, rule.unsure_at)):
        if limit is not None and len(strong) >= limit:
            why = f"{rule.name}: {len(strong)} {what}; that is not below {limit:g}."
            return [_band(rule, verdict, _at(ranked, math.ceil(limit) - 1), why)]
    if rule.ng_at is not None and len(ranked) >= rule.ng_at:
        why = f"{rule.name}: {len(strong)} {what} and {len(weak)} weak ones; together that is not below {rule.ng_at:g}."
        return [_unsure_of_count(rule, _at(ranked, math.ceil(rule.ng_at) - 1), why)]
    return []


def _by_expected_count(rule: ActiveRule, what: str, concerned: Sequence[Finding]) -> list[Fired]:
    """The true count lies between the strong findings alone and all of them; if that decides, it is decided."""
    strong, weak = _split(rule, concerned)
    least = 0.0 if rule.count_min is None else rule.count_min
    most = math.inf if rule.count_max is None else rule.count_max
    ranked = strong + weak
    found = f"{len(strong)} {what}" + (f" and {len(weak)} weak ones" if weak else "")
    why = f"{rule.name}: {found} found, {_expected(rule)} expected."
    if len(ranked) < least:
        return [_count_wrong(rule, None, why)]
    if len(strong) > most:
        return [_count_wrong(rule, _at(strong, math.floor(most)), why)]
    if least <= len(strong) and len(ranked) <= most:
        return []
    if not any(least <= count <= most for count in range(len(strong), len(ranked) + 1)):
        return [_count_wrong(rule, None, why)]  # no whole number is allowed
    return [_unsure_of_count(rule, weak[0], why)]


def _split(rule: ActiveRule, concerned: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Return the findings that count and the weak ones, each with the highest score first."""
    ranked = sorted(concerned, key=lambda finding: -finding.score)
    strong = [finding for finding in ranked if _reaches(finding.score, rule.min_score)]
    return strong, [finding for finding in ranked[len(strong) :] if _reaches(finding.score, rule.weak_score)]


def _expected(rule: ActiveRule) -> str:
    if rule.count_min == rule.count_max:
        return f"{rule.count_min:g}"
    if rule.count_max is None:
        return f"at least {rule.count_min:g}"
    if rule.count_min is None:
        return f"at most {rule.count_max:g}"
    return f"{rule.count_min:g} to {rule.count_max:g}"


def _at(ranked: Sequence[Finding], index: int) -> Finding | None:
    return ranked[min(max(index, 0), len(ranked) - 1)] if ranked else None


def _band(rule: ActiveRule, verdict: Verdict, finding: Finding | None, why: str) -> Fired:
    reason = Reason.RULE_FIRED if verdict is Verdict.NG else Reason.IN_UNSURE_BAND
    return Fired(verdict=verdict, reason=reason, rule=rule.name, why=why, finding=finding)


def _count_wrong(rule: ActiveRule, finding: Finding | None, why: str) -> Fired:
    return Fired(verdict=rule.otherwise.verdict, reason=Reason.COUNT_WRONG, rule=rule.name, why=why, finding=finding)


def _unsure_of_count(rule: ActiveRule, finding: Finding | None, why: str) -> Fired:
    return Fired(verdict=Verdict.UNSURE, reason=Reason.COUNT_UNSURE, rule=rule.name, why=why, finding=finding)


def _unanswered(rule: ActiveRule, reason: Reason, why: str) -> Fired:
    return Fired(verdict=Verdict.NO_VERDICT, reason=reason, rule=rule.name, why=f"{rule.name}: {why}.")
