"""Rules as data: one table for each kind, and what no findings whatever may do to a verdict."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.inspection.judge import JudgeRules, judge
from agent.inspection.regions import PictureSize, area_inside, belongs
from agent.inspection.rule_firing import ActiveRule
from wire.inspection import Box, Finding, Reason, Verdict
from wire.manifest import DecoderSpec, Input, Manifest, Region, Rule, Task, Threshold, problems_of
from wire.rules import Belongs, Measure, Otherwise

SIZE = PictureSize(width_px=200, height_px=100)
OK, NG, UNSURE, NONE = Verdict.OK, Verdict.NG, Verdict.UNSURE, Verdict.NO_VERDICT


def box(x1: float, y1: float, x2: float, y2: float) -> Box:
    return Box(x1_px=x1, y1_px=y1, x2_px=x2, y2_px=y2)


def seen(label: str, score: float, where: Box | None = None, **more: float) -> Finding:
    return Finding(label=label, score=score, box=where or box(0, 0, 10, 10), **more)


def rule(name: str = "r", labels: tuple[str, ...] = ("screw",), **more: object) -> ActiveRule:
    return ActiveRule(name=name, labels=frozenset(labels), **more)  # type: ignore[arg-type]


def verdict_of(active: ActiveRule, *findings: Finding) -> tuple[Verdict, Reason]:
    judgement = judge(findings, JudgeRules(rules=(active,)), SIZE)
    assert bool(judgement.why) is (judgement.verdict is not OK)
    assert (judgement.fired == active.name) is (judgement.verdict is not OK)
    return judgement.verdict, judgement.reason


FOUR = rule(count_min=4, count_max=4, min_score=0.6, weak_score=0.3)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.9, 0.9, 0.9, 0.9), (OK, Reason.NONE)),
        ((0.9, 0.9, 0.9, 0.6), (OK, Reason.NONE)),
        ((0.9, 0.9, 0.9, 0.9, 0.29), (OK, Reason.NONE)),
        ((0.9, 0.9, 0.9), (NG, Reason.COUNT_WRONG)),
        ((0.9, 0.9, 0.9, 0.29), (NG, Reason.COUNT_WRONG)),
        ((), (NG, Reason.COUNT_WRONG)),
        ((0.9,) * 5, (NG, Reason.COUNT_WRONG)),
        ((0.9,) * 5 + (0.5,), (NG, Reason.COUNT_WRONG)),
        ((0.9, 0.9, 0.9, 0.5), (UNSURE, Reason.COUNT_UNSURE)),
        ((0.9, 0.9, 0.9, 0.9, 0.5), (UNSURE, Reason.COUNT_UNSURE)),
        ((0.5, 0.5, 0.5, 0.5), (UNSURE, Reason.COUNT_UNSURE)),
        ((0.5, 0.5, 0.5), (NG, Reason.COUNT_WRONG)),
    ],
)
def test_exactly_four_screws(scores: tuple[float, ...], expected: tuple[Verdict, Reason]) -> None:
    assert verdict_of(FOUR, *(seen("screw", score) for score in scores), seen("nut", 0.99)) == expected


@pytest.mark.parametrize(
    ("least", "most", "count", "expected"),
    [(2, None, 2, OK), (2, None, 1, NG), (None, 2, 2, OK), (None, 2, 3, NG), (None, 0, 0, OK), (1.2, 1.8, 1, NG)],
)
def test_at_least_and_at_most(least: float | None, most: float | None, count: int, expected: Verdict) -> None:
    found = [seen("screw", 0.9)] * count
    assert verdict_of(rule(count_min=least, count_max=most), *found)[0] is expected


def test_without_a_weak_score_every_finding_below_the_minimum_is_weak() -> None:
    assert verdict_of(rule(count_min=1, min_score=0.6), seen("screw", 0.01)) == (UNSURE, Reason.COUNT_UNSURE)


def test_one_finding_too_many_is_the_one_that_is_named() -> None:
    findings = tuple(seen("screw", score) for score in (0.95, 0.7, 0.9, 0.8, 0.85))
    judgement = judge(findings, JudgeRules(rules=(FOUR,)), SIZE)
    assert (judgement.score, judgement.finding) == (0.7, findings[1])
    assert judgement.why == "r: 5 screw found, 4 expected."


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(("cap", "seal"), OK), (("cap",), NG), (("cap", "cap"), NG), ((), NG), (("seal", "cap", "cap"), OK)],
)
def test_presence_each_required_label_must_be_there(labels: tuple[str, ...], expected: Verdict) -> None:
    presence = rule(labels=("cap", "seal"), count_min=1, each_label=True)
    assert verdict_of(presence, *(seen(label, 0.9) for label in labels))[0] is expected


def test_a_missing_count_may_ask_for_a_look_only() -> None:
    assert verdict_of(rule(count_min=1, otherwise=Otherwise.UNSURE)) == (UNSURE, Reason.COUNT_WRONG)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.9, 0.9, 0.9), (NG, Reason.RULE_FIRED)),
        ((0.9, 0.9), (UNSURE, Reason.IN_UNSURE_BAND)),
        ((0.9,), (OK, Reason.NONE)),
        ((0.9, 0.4, 0.4), (UNSURE, Reason.COUNT_UNSURE)),
        ((0.9, 0.4), (OK, Reason.NONE)),
    ],
)
def test_a_band_of_counts(scores: tuple[float, ...], expected: tuple[Verdict, Reason]) -> None:
    counted = rule(measure=Measure.COUNT, ng_at=3, unsure_at=2, min_score=0.5)
    assert verdict_of(counted, *(seen("screw", score) for score in scores)) == expected


@pytest.mark.parametrize(
    ("area_px", "expected"),
    [(500.0, (NG, Reason.RULE_FIRED)), (300.0, (UNSURE, Reason.IN_UNSURE_BAND)), (299.0, (OK, Reason.NONE))],
)
def test_a_band_of_areas(area_px: float, expected: tuple[Verdict, Reason]) -> None:
    by_area = rule(measure=Measure.AREA_PX, ng_at=500, unsure_at=300, min_score=0.4)
    assert verdict_of(by_area, seen("screw", 0.5, area_px=area_px)) == expected
    assert verdict_of(by_area, seen("screw", 0.3, area_px=area_px))[0] is OK


def test_the_largest_finding_speaks_for_a_band_of_areas() -> None:
    findings = (seen("screw", 0.9, area_px=10.0), seen("screw", 0.5, area_px=90.0))
    by_area = rule(measure=Measure.AREA_PX, ng_at=5)
    assert judge(findings, JudgeRules(rules=(by_area,)), SIZE).finding is findings[1]


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (seen("screw", 0.9, area_px=50.0), OK),
        (seen("screw", 0.9, area_px=51.0), NG),
        (seen("screw", 0.9, box(0, 0, 10, 5)), OK),
        (seen("screw", 0.9, box(0, 0, 10, 6)), NG),
        (Finding(label="screw", score=0.9), NG),
        (seen("screw", 0.9, area_px=math.nan), NG),
    ],
)
def test_small_findings_do_not_count(finding: Finding, expected: Verdict) -> None:
    assert verdict_of(rule(ng_at=0.5, min_area_px=51), finding)[0] is expected


def test_an_area_in_millimetres_needs_a_calibrated_view() -> None:
    in_mm2 = rule(ng_at=0.5, min_area_mm2=2)
    assert verdict_of(in_mm2, seen("screw", 0.9, area_mm2=2.0))[0] is NG
    assert verdict_of(in_mm2, seen("screw", 0.9, area_mm2=1.9))[0] is OK
    assert verdict_of(in_mm2, seen("screw", 0.9)) == (NONE, Reason.NOT_CALIBRATED)
    assert verdict_of(in_mm2, seen("nut", 0.9))[0] is OK


LEFT = Region(box=(0.0, 0.0, 0.5, 1.0))
L_SHAPE = Region(polygon=((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0)))


@pytest.mark.parametrize(
    ("region", "where", "inside"),
    [
        (LEFT, box(80, 0, 118, 10), True),
        (LEFT, box(80, 0, 122, 10), False),
        (L_SHAPE, box(120, 10, 180, 30), False),
        (L_SHAPE, box(120, 60, 180, 90), True),
        (dataclasses.replace(LEFT, belongs=Belongs.OVERLAP), box(80, 0, 118, 10), True),
        (dataclasses.replace(LEFT, belongs=Belongs.OVERLAP), box(80, 0, 122, 10), False),
        (dataclasses.replace(LEFT, belongs=Belongs.OVERLAP, min_overlap=0.1), box(91, 0, 181, 10), True),
        (dataclasses.replace(LEFT, belongs=Belongs.OVERLAP, min_overlap=1.0), box(90, 0, 101, 10), False),
        (dataclasses.replace(L_SHAPE, belongs=Belongs.OVERLAP, min_overlap=0.76), box(0, 0, 200, 100), False),
        (dataclasses.replace(L_SHAPE, belongs=Belongs.OVERLAP, min_overlap=0.74), None, True),
    ],
)
def test_a_finding_belongs_to_a_region_by_its_centre_or_by_overlap(
    region: Region, where: Box | None, inside: bool
) -> None:
    finding = Finding(label="screw", score=0.9, box=where)
    assert belongs(finding, region, SIZE) is inside
    assert verdict_of(rule(ng_at=0.5, region=region), finding)[0] is (NG if inside else OK)
    assert verdict_of(rule(ng_at=0.5, region=region, outside=True), finding)[0] is (OK if inside else NG)


def test_an_expected_count_holds_for_its_region_only() -> None:
    in_left = rule(count_min=1, region=LEFT)
    assert verdict_of(in_left, seen("screw", 0.9, box(0, 0, 10, 10)))[0] is OK
    assert verdict_of(in_left, seen("screw", 0.9, box(190, 0, 200, 10)))[0] is NG


def test_a_region_needs_the_size_of_the_picture() -> None:
    judgement = judge((seen("screw", 0.9),), JudgeRules(rules=(rule(ng_at=0.5, region=LEFT),)))
    assert (judgement.verdict, judgement.reason) == (NONE, Reason.UNUSABLE_OUTPUT)


CERTAIN = rule("certain", labels=("dent",), ng_at=0.5)
UNCALIBRATED = rule("mm", labels=("hole",), ng_at=0.5, min_area_mm2=1)
BAND = rule("band", labels=("smear",), unsure_at=0.2)


@pytest.mark.parametrize(
    ("labels", "fired"),
    [
        (("dent", "hole", "smear"), "certain"),
        (("hole", "smear"), "mm"),
        (("smear",), "band"),
        ((), "four"),
    ],
)
def test_ng_goes_before_no_verdict_before_unsure(labels: tuple[str, ...], fired: str) -> None:
    four = dataclasses.replace(FOUR, name="four", otherwise=Otherwise.UNSURE)
    findings = tuple(seen(label, 0.3 if label == "smear" else 0.9) for label in labels)
    rules = (BAND, UNCALIBRATED, four, CERTAIN) if labels else (four,)
    assert judge(findings, JudgeRules(rules=rules), SIZE).fired == fired


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_findings_that_hold_no_numbers_give_no_verdict(number: float) -> None:
    for finding in (seen("cat", number), seen("cat", 0.9, box(0, 0, number, 1))):
        judgement = judge((finding,), JudgeRules(rules=(CERTAIN,)), SIZE)
        assert (judgement.verdict, judgement.reason) == (NONE, Reason.UNUSABLE_OUTPUT)


LABELS = st.sampled_from(["screw", "dent", "nut"])
ANY_FLOAT = st.floats(width=32)
EDGES = st.one_of(st.floats(0, 300), ANY_FLOAT)
FINDINGS = st.builds(
    Finding,
    label=LABELS,
    score=st.one_of(st.floats(0, 1), ANY_FLOAT),
    box=st.none() | st.builds(Box, x1_px=EDGES, y1_px=EDGES, x2_px=EDGES, y2_px=EDGES),
    area_px=st.none() | st.floats(0, 1000) | ANY_FLOAT,
    area_mm2=st.none() | st.floats(0, 1000),
)
LIMITS = st.none() | st.floats(0, 10)
FRACTIONS = st.floats(0, 1)
REGIONS = st.builds(
    Region,
    box=st.tuples(FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS),
    belongs=st.sampled_from(Belongs),
    min_overlap=st.floats(0.01, 1),
) | st.builds(
    Region,
    polygon=st.lists(st.tuples(FRACTIONS, FRACTIONS), min_size=3, max_size=6).map(tuple),
    belongs=st.sampled_from(Belongs),
)
RULES = st.builds(
    ActiveRule,
    name=st.sampled_from(["a", "b"]),
    labels=st.frozensets(LABELS, min_size=1),
    ng_at=LIMITS,
    unsure_at=LIMITS,
    measure=st.sampled_from(Measure),
    min_score=LIMITS,
    weak_score=LIMITS,
    min_area_px=LIMITS,
    min_area_mm2=LIMITS,
    count_min=LIMITS,
    count_max=LIMITS,
    each_label=st.booleans(),
    otherwise=st.sampled_from(Otherwise),
    region=st.none() | REGIONS,
    outside=st.booleans(),
)


@settings(max_examples=400, deadline=None)
@given(
    findings=st.lists(FINDINGS, max_size=5).map(tuple),
    rules=st.lists(RULES, max_size=4).map(tuple),
    size=st.none() | st.just(SIZE),
    minimum_score=st.none() | FRACTIONS,
)
def test_no_findings_and_no_rules_raise_and_no_ng_is_hidden(
    findings: tuple[Finding, ...],
    rules: tuple[ActiveRule, ...],
    size: PictureSize | None,
    minimum_score: float | None,
) -> None:
    together = judge(findings, JudgeRules(rules=rules, minimum_score=minimum_score), size)
    alone = [judge(findings, JudgeRules(rules=(rule,)), size) for rule in rules]

    if any(judgement.verdict is NG for judgement in alone):
        assert together.verdict is NG
    elif any(judgement.verdict is NONE for judgement in alone):
        assert together.verdict is NONE
    if together.verdict is NG:
        assert together.fired
        assert together.why
        assert together.finding is None or together.finding in findings
    assert 0.0 <= abs(together.score) < math.inf


@settings(max_examples=200, deadline=None)
@given(st.lists(FRACTIONS, min_size=4, max_size=4), st.lists(FRACTIONS, min_size=4, max_size=4))
def test_the_area_inside_a_box_is_that_of_the_two_boxes_common_part(one: list[float], other: list[float]) -> None:
    (ax1, ax2), (ay1, ay2) = sorted(one[:2]), sorted(one[2:])
    (bx1, bx2), (by1, by2) = sorted(other[:2]), sorted(other[2:])
    common = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    corners = [(ax1, ay1), (ax2, ay1), (ax2, ay2), (ax1, ay2)]
    assert area_inside(corners, box(bx1, by1, bx2, by2)) == pytest.approx(common, abs=1e-12)


def manifest(*rules: Rule, regions: dict[str, Region] | None = None, task: Task = Task.DETECT) -> Manifest:
    return Manifest(
        schema=1,
        name="m",
        release=1,
        task=task,
        input=Input(width_px=8, height_px=8),
        decoder=DecoderSpec(name="fastestdet"),
        labels=("screw", "nut"),
        thresholds={"low": Threshold(default=0.2, min=0.1, max=0.3), "high": Threshold(default=0.8, min=0.5, max=0.9)},
        regions=regions or {},
        rules=rules,
    )


def wire_rule(**more: object) -> Rule:
    return Rule(name="r", labels=("screw",), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "key"),
    [
        (wire_rule(), "name"),
        (wire_rule(ng_at="high", count_min=1.0), "name"),
        (wire_rule(count_min=3.0, count_max=2.0), "count_min"),
        (wire_rule(count_min=1.0, measure=Measure.COUNT), "measure"),
        (wire_rule(ng_at="absent"), "ng_at"),
        (wire_rule(count_max="absent"), "count_max"),
        (wire_rule(count_max=math.inf), "count_max"),
        (wire_rule(count_min=1.0, weak_score="high", min_score="low"), "weak_score"),
        (wire_rule(count_min=1.0, weak_score="low"), "weak_score"),
        (wire_rule(ng_at="high", weak_score="low", min_score="high"), "weak_score"),
        (wire_rule(ng_at="high", each_label=True), "each_label"),
        (wire_rule(ng_at="high", outside=True), "outside"),
        (wire_rule(ng_at="high", region="absent"), "region"),
    ],
)
def test_rules_that_say_nothing_sensible_are_refused(bad: Rule, key: str) -> None:
    assert [place for place, _ in problems_of(manifest(bad))] == [f"rules[0].{key}"]


def test_two_rules_of_one_name_are_refused() -> None:
    assert [place for place, _ in problems_of(manifest(wire_rule(ng_at="low"), wire_rule(ng_at="high")))] == [
        "rules[1].name"
    ]


@pytest.mark.parametrize(
    "region",
    [
        Region(),
        Region(box=(0.0, 0.0, 1.0, 1.0), polygon=L_SHAPE.polygon),
        Region(box=(0.5, 0.0, 0.5, 1.0)),
        Region(box=(0.6, 0.0, 0.5, 1.0)),
        Region(polygon=((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0))),
        Region(polygon=((0.0, 0.0), (1.0, 0.0), (0.5, 0.0))),
        Region(polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0))),
        Region(polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.0), (0.0, 1.0))),
    ],
)
def test_regions_that_are_none_are_refused(region: Region) -> None:
    assert [key for key, _ in problems_of(manifest(regions={"left": region}))] == ["regions.left"]


def test_good_regions_pass_and_a_classifier_has_no_use_for_one() -> None:
    of_region = wire_rule(ng_at="high", region="left")
    for region in (LEFT, L_SHAPE):
        assert problems_of(manifest(of_region, regions={"left": region})) == []
        refused = problems_of(manifest(of_region, regions={"left": region}, task=Task.CLASSIFY))
        assert [key for key, _ in refused] == ["rules[0].region"]
