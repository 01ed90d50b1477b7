"""The verdict: which finding, by which rule, makes a part NG or UNSURE (pure; the worker owns the deadline).

Within a view NG goes before NO_VERDICT before UNSURE before OK: what is certain is never hidden by what is not. Of
several rules with the deciding verdict, the one that fired on the highest score speaks, then the earlier rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.inspection import rule_firing
from agent.inspection.regions import PictureSize
from agent.inspection.rule_firing import ActiveRule, Fired
from agent.vision.candidates import Unusable
from wire.inspection import Finding, Reason, Verdict
from wire.manifest import Manifest

_ORDER = (Verdict.NG, Verdict.NO_VERDICT, Verdict.UNSURE)
MINIMUM_SCORE = "minimum-score"


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
        finding: the finding it fired on; None where it fired on findings that are not there.
        why: the rule in a sentence, with the numbers it compared.
    """

    verdict: Verdict
    score: float = 0.0
    fired: str = ""
    reason: Reason = Reason.NONE
    finding: Finding | None = None
    why: str = ""


MISSING_VIEW = Judgement(verdict=Verdict.NO_VERDICT, reason=Reason.MISSING_VIEW)


def rules_of(manifest: Manifest, parameters: Mapping[str, float]) -> JudgeRules:
    """Return the rules of a manifest under the thresholds in force (`wire.manifest.parameters_of`)."""
    return JudgeRules(
        rules=tuple(rule_firing.active(rule, manifest.regions, parameters) for rule in manifest.rules),
        minimum_score=None if manifest.minimum_score is None else parameters[manifest.minimum_score],
    )


def judge(findings: tuple[Finding, ...] | Unusable, rules: JudgeRules, size: PictureSize | None = None) -> Judgement:
    """Decide one view; never raises.

    Args:
        size: of the picture; without it a rule that names a region gives NO_VERDICT.
    """
    if isinstance(findings, Unusable):
        return Judgement(verdict=Verdict.NO_VERDICT, reason=Reason.UNUSABLE_OUTPUT, why=findings.reason)
    if not all(_is_finite(finding) for finding in findings):
        return Judgement(
            verdict=Verdict.NO_VERDICT, reason=Reason.UNUSABLE_OUTPUT, why="A finding holds values that are no numbers."
        )
    fired = [firing for rule in rules.rules for firing in rule_firing.fire(rule, findings, size)]
    for verdict in _ORDER:
        deciding = [firing for firing in fired if firing.verdict is verdict]
        if deciding:
            return _judgement(max(deciding, key=lambda firing: firing.score))
    best = max(findings, key=lambda finding: finding.score, default=None)
    score = 0.0 if best is None else best.score
    if rules.minimum_score is not None and score < rules.minimum_score:
        return Judgement(
            verdict=Verdict.UNSURE,
            score=score,
            fired=MINIMUM_SCORE,
            reason=Reason.LOW_SCORE,
            finding=best,
            why=f"The best score, {score:.3g}, is below {rules.minimum_score:g}.",
        )
    return Judgement(verdict=Verdict.OK, score=score)


def join(judgements: Sequence[Judgement | None]) -> Judgement:
    """Decide the part from its views: any NG, otherwise a view without verdict, otherwise any UNSURE, otherwise OK.

    Of several views with the deciding verdict, the one with the highest score speaks.

    Args:
        judgements: one per view; None is a view that was not judged, and no view at all counts as one.
    """
    views = [MISSING_VIEW if judgement is None else judgement for judgement in judgements]
    for verdict in (*_ORDER, Verdict.OK):
        saying = [judgement for judgement in views if judgement.verdict is verdict]
        if saying:
            return max(saying, key=lambda judgement: judgement.score)
    return MISSING_VIEW


def _judgement(fired: Fired) -> Judgement:
    return Judgement(
        verdict=fired.verdict,
        score=fired.score,
        fired=fired.rule,
        reason=fired.reason,
        finding=fired.finding,
        why=fired.why,
    )


def _is_finite(finding: Finding) -> bool:
    box = finding.box
    return math.isfinite(finding.score) and (
        box is None or math.isfinite(box.x1_px + box.y1_px + box.x2_px + box.y2_px)
    )
