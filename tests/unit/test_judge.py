"""The verdict tables: which finding decides, and what several views say together."""

from __future__ import annotations

import pytest

from agent.inspection.judge import MISSING_VIEW, ActiveRule, Judgement, JudgeRules, join, judge, rules_of
from agent.vision.candidates import Unusable
from wire.inspection import Finding, Reason, Verdict
from wire.manifest import DecoderSpec, Input, Manifest, Rule, Task, Threshold, parameters_of

SCRATCH = ActiveRule(name="scratch", labels=frozenset({"scratch"}), ng_at=0.8, unsure_at=0.5)
DENT = ActiveRule(name="dent", labels=frozenset({"dent", "bump"}), ng_at=0.6, unsure_at=None)
WATCH = ActiveRule(name="watch", labels=frozenset({"smear"}), ng_at=None, unsure_at=0.4)
RULES = JudgeRules(rules=(SCRATCH, DENT, WATCH))


def findings(*pairs: tuple[str, float]) -> tuple[Finding, ...]:
    return tuple(Finding(label=label, score=score) for label, score in pairs)


@pytest.mark.parametrize(
    ("seen", "verdict", "fired", "score", "reason"),
    [
        ((), Verdict.OK, "", 0.0, Reason.NONE),
        ((("scratch", 0.49),), Verdict.OK, "", 0.49, Reason.NONE),
        ((("scratch", 0.5),), Verdict.UNSURE, "scratch", 0.5, Reason.IN_UNSURE_BAND),
        ((("scratch", 0.79),), Verdict.UNSURE, "scratch", 0.79, Reason.IN_UNSURE_BAND),
        ((("scratch", 0.8),), Verdict.NG, "scratch", 0.8, Reason.RULE_FIRED),
        ((("bump", 0.6),), Verdict.NG, "dent", 0.6, Reason.RULE_FIRED),
        ((("dent", 0.59),), Verdict.OK, "", 0.59, Reason.NONE),
        ((("smear", 1.0),), Verdict.UNSURE, "watch", 1.0, Reason.IN_UNSURE_BAND),
        ((("smear", 0.95), ("dent", 0.6)), Verdict.NG, "dent", 0.6, Reason.RULE_FIRED),
        ((("dent", 0.7), ("scratch", 0.9)), Verdict.NG, "scratch", 0.9, Reason.RULE_FIRED),
        ((("dent", 0.9), ("scratch", 0.9)), Verdict.NG, "scratch", 0.9, Reason.RULE_FIRED),
        ((("cat", 0.99),), Verdict.OK, "", 0.99, Reason.NONE),
    ],
)
def test_the_rule_that_fired_and_its_finding_are_named(
    seen: tuple[tuple[str, float], ...], verdict: Verdict, fired: str, score: float, reason: Reason
) -> None:
    judgement = judge(findings(*seen), RULES)

    assert (judgement.verdict, judgement.fired, judgement.score, judgement.reason) == (verdict, fired, score, reason)
    assert (judgement.finding is not None) == bool(fired)
    if judgement.finding is not None:
        assert judgement.finding.score == score


@pytest.mark.parametrize(
    ("seen", "verdict", "reason"),
    [
        ((("good", 0.7),), Verdict.OK, Reason.NONE),
        ((("good", 0.69),), Verdict.UNSURE, Reason.LOW_SCORE),
        ((), Verdict.UNSURE, Reason.LOW_SCORE),
        ((("dent", 0.65),), Verdict.NG, Reason.RULE_FIRED),
    ],
)
def test_a_classifier_that_is_not_sure_says_so(
    seen: tuple[tuple[str, float], ...], verdict: Verdict, reason: Reason
) -> None:
    judgement = judge(findings(*seen), JudgeRules(rules=(DENT,), minimum_score=0.7))

    assert (judgement.verdict, judgement.reason) == (verdict, reason)


def test_an_unusable_output_gives_no_verdict() -> None:
    judgement = judge(Unusable(reason="not a number"), RULES)

    assert (judgement.verdict, judgement.reason) == (Verdict.NO_VERDICT, Reason.UNUSABLE_OUTPUT)


def test_rules_take_the_thresholds_in_force() -> None:
    manifest = Manifest(
        schema=1,
        name="m",
        release=1,
        task=Task.DETECT,
        input=Input(width_px=8, height_px=8),
        decoder=DecoderSpec(name="fastestdet"),
        labels=("scratch",),
        thresholds={"ng": Threshold(default=0.8, min=0.5, max=0.9), "sure": Threshold(default=0.2, min=0.1, max=0.3)},
        minimum_score="sure",
        rules=(Rule(name="r", labels=("scratch",), ng_at="ng"),),
    )

    rules = rules_of(manifest, parameters_of(manifest, {"ng": 0.6})[0])

    assert rules.minimum_score == 0.2
    assert rules.rules == (ActiveRule(name="r", labels=frozenset({"scratch"}), ng_at=0.6, unsure_at=None),)


OK, NG, UNSURE = (Judgement(verdict=verdict, score=0.5) for verdict in (Verdict.OK, Verdict.NG, Verdict.UNSURE))


@pytest.mark.parametrize(
    ("views", "verdict"),
    [
        ((), Verdict.NO_VERDICT),
        ((OK,), Verdict.OK),
        ((OK, UNSURE), Verdict.UNSURE),
        ((OK, MISSING_VIEW), Verdict.NO_VERDICT),
        ((OK, None), Verdict.NO_VERDICT),
        ((None, NG), Verdict.NG),
        ((UNSURE, MISSING_VIEW), Verdict.NO_VERDICT),
        ((UNSURE, MISSING_VIEW, NG, OK), Verdict.NG),
    ],
)
def test_views_join_to_one_verdict(views: tuple[Judgement | None, ...], verdict: Verdict) -> None:
    assert join(views).verdict is verdict
    assert join(tuple(reversed(views))).verdict is verdict


def test_the_view_with_the_highest_score_speaks_for_the_part() -> None:
    weak = Judgement(verdict=Verdict.NG, score=0.6, fired="dent")
    strong = Judgement(verdict=Verdict.NG, score=0.9, fired="scratch")

    assert join((weak, strong)) is join((strong, weak)) is strong
