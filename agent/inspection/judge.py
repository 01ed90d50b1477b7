"""The verdict: which finding, by which rule, makes a part NG or UNSURE (pure; the worker owns the deadline)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.vision.candidates import Unusable
from wire.inspection import Finding, Reason, Verdict
from wire.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRule:
    """A manifest's rule with the thresholds in force: a score at or above them makes the part NG or UNSURE."""

    name: str
    labels: frozenset[str]
    ng_at: float | None
    unsure_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRules:
    """Everything a verdict depends on, besides the findings.

    Args:
        minimum_score: a part whose best finding is below it is UNSURE; None where there is no such rule.
    """

    rules: tuple[ActiveRule, ...] = ()
    minimum_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one view, or all of a part's views together, say.

    Args:
        score: of the finding that decided; where none did, of the strongest finding, 0 where there is none.
        fired: name of the rule that decided, empty where none did.
        finding: the finding it fired on.
    """

    verdict: Verdict
    score: float = 0.0
    fired: str = ""
    reason: Reason = Reason.NONE
    finding: Finding | None = None


MISSING_VIEW = Judgement(verdict=Verdict.NO_VERDICT, reason=Reason.MISSING_VIEW)


def rules_of(manifest: Manifest, parameters: Mapping[str, float]) -> JudgeRules:
    """Return the rules of a manifest under the thresholds in force (`wire.manifest.parameters_of`)."""
    return JudgeRules(
        rules=tuple(
            ActiveRule(
                name=rule.name,
                labels=frozenset(rule.labels),
                ng_at=None if rule.ng_at is None else parameters[rule.ng_at],
                unsure_at=None if rule.unsure_at is None else parameters[rule.unsure_at],
            )
            for rule in manifest.rules
        ),
        minimum_score=None if manifest.minimum_score is None else parameters[manifest.minimum_score],
    )


def judge(findings: tuple[Finding, ...] | Unusable, rules: JudgeRules) -> Judgement:
    """Decide one view: NG before UNSURE, then the highest score, then the earlier rule, then the earlier finding."""
    if isinstance(findings, Unusable):
        return Judgement(verdict=Verdict.NO_VERDICT, reason=Reason.UNUSABLE_OUTPUT)
    for verdict, reason in ((Verdict.NG, Reason.RULE_FIRED), (Verdict.UNSURE, Reason.IN_UNSURE_BAND)):
        fired = [
            (rule, finding)
            for rule in rules.rules
            for finding in findings
            if finding.label in rule.labels and _reaches(finding, rule, verdict)
        ]
        if fired:
            rule, finding = max(fired, key=lambda pair: pair[1].score)
            return Judgement(verdict=verdict, score=finding.score, fired=rule.name, reason=reason, finding=finding)
    best = max(findings, key=lambda finding: finding.score, default=None)
    score = 0.0 if best is None else best.score
    if rules.minimum_score is not None and score < rules.minimum_score:
        return Judgement(
            verdict=Verdict.UNSURE, score=score, fired="minimum-score", reason=Reason.LOW_SCORE, finding=best
        )
    return Judgement(verdict=Verdict.OK, score=score)


def join(judgements: Sequence[Judgement | None]) -> Judgement:
    """Decide the part from its views: any NG, otherwise a view without verdict, otherwise any UNSURE, otherwise OK.

    Of several views with the deciding verdict, the one with the highest score speaks.

    Args:
        judgements: one per view; None is a view that was not judged, and no view at all counts as one.
    """
    views = [MISSING_VIEW if judgement is None else judgement for judgement in judgements]
    for verdict in (Verdict.NG, Verdict.NO_VERDICT, Verdict.UNSURE, Verdict.OK):
        saying = [judgement for judgement in views if judgement.verdict is verdict]
        if saying:
            return max(saying, key=lambda judgement: judgement.score)
    return MISSING_VIEW


def _reaches(finding: Finding, rule: ActiveRule, verdict: Verdict) -> bool:
    threshold = rule.ng_at if verdict is Verdict.NG else rule.unsure_at
    return threshold is not None and finding.score >= threshold
