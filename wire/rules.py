"""Rules as data: what among a view's findings makes a part NG or UNSURE, and where in the picture it must lie."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

import msgspec

from wire.ids import Fraction, Name
from wire.inspection import LabelText, Verdict

ThresholdName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,62}$(?!\n)")]
RegionName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,62}$(?!\n)")]
Number: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0)] | ThresholdName  # a constant, or a threshold's name
Corner: TypeAlias = tuple[Fraction, Fraction]
MAX_CORNERS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A number a recipe may change, within bounds."""

    default: float
    min: float
    max: float


class Measure(enum.StrEnum):
    """What a rule compares with `ng_at` and `unsure_at`."""

    SCORE = "score"
    AREA_PX = "area_px"
    AREA_MM2 = "area_mm2"
    COUNT = "count"


class Belongs(enum.StrEnum):
    """What makes a finding one of a region: the centre of its box, or the share of its box that lies inside."""

    CENTRE = "centre"
    OVERLAP = "overlap"


class Otherwise(enum.StrEnum):
    """What a part becomes whose count is not the expected one."""

    NG = "NG"
    UNSURE = "UNSURE"

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of the picture, in fractions of its width and height; x to the right, y down.

    Args:
        box: x1, y1, x2, y2.
        polygon: its corners in order, either way round, without the first one again at the end.
        min_overlap: with `belongs = "overlap"`, the share of the finding's box that must lie inside.
    """

    box: tuple[Fraction, Fraction, Fraction, Fraction] | None = None
    polygon: Annotated[tuple[Corner, ...], msgspec.Meta(min_length=3, max_length=MAX_CORNERS)] | None = None
    belongs: Belongs = Belongs.CENTRE
    min_overlap: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.5

    @property
    def corners(self) -> tuple[Corner, ...]:
        """The region as a polygon."""
        if self.box is None:
            return self.polygon or ()
        x1, y1, x2, y2 = self.box
        return ((x1, y1), (x2, y1), (x2, y2), (x1, y2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When the findings with one of `labels` make a part NG or UNSURE: by a band, or by an expected count.

    A band has `ng_at` or `unsure_at`: reaching them makes the part NG or UNSURE. An expected count has `count_min` or
    `count_max`: missing them makes the part NG (or UNSURE, see `otherwise`).

    Args:
        ng_at: name of the threshold from which the measure makes the part NG; absent: never.
        unsure_at: name of the threshold from which it makes the part UNSURE; absent: no such band.
        measure: what is compared with them: of each finding its score or area, or of all the findings their count.
        min_score, min_area_px, min_area_mm2: findings below do not count for this rule. For a count, findings below
            `min_score` are weak: where they would change the answer, the part is UNSURE.
        weak_score: findings below do not even count as weak; absent: all are.
        count_min, count_max: how many there must be, at least and at most.
        each_label: the count is expected of each label, not of all together.
        otherwise: what a part becomes whose count is not the expected one.
        region: name of the region the findings must belong to; absent: anywhere.
        outside: they must not belong to it.
    """

    name: Name
    labels: Annotated[tuple[LabelText, ...], msgspec.Meta(min_length=1)]
    ng_at: ThresholdName | None = None
    unsure_at: ThresholdName | None = None
    measure: Measure = Measure.SCORE
    min_score: Number | None = None
    weak_score: Number | None = None
    min_area_px: Number | None = None
    min_area_mm2: Number | None = None
    count_min: Number | None = None
    count_max: Number | None = None
    each_label: bool = False
    otherwise: Otherwise = Otherwise.NG
    region: RegionName | None = None
    outside: bool = False

    @property
    def expects_count(self) -> bool:
        return self.count_min is not None or self.count_max is not None

    @property
    def counts(self) -> bool:
        return self.expects_count or self.measure is Measure.COUNT


def value_of(number: Number | None, parameters: Mapping[str, float]) -> float | None:
    """Return a rule's number under the thresholds in force."""
    return parameters[number] if isinstance(number, str) else number


def problems_of_rules(
    rules: Sequence[Rule], regions: Mapping[str, Region], thresholds: Mapping[str, Threshold]
) -> list[tuple[str, str]]:
    """Return what is wrong with rules, regions and thresholds beyond their types, as (key, sentence)."""
    found: list[tuple[str, str]] = []
    for name, threshold in thresholds.items():
        if not all(math.isfinite(number) for number in (threshold.min, threshold.default, threshold.max)):
            found.append((f"thresholds.{name}", "holds what is not a finite number."))
        elif not threshold.min <= threshold.default <= threshold.max:
            found.append((f"thresholds.{name}.default", f"is outside {threshold.min} to {threshold.max}."))
    for name, region in regions.items():
        found.extend((f"regions.{name}", sentence) for sentence in _region_problems(region))
    names = [rule.name for rule in rules]
    for index, rule in enumerate(rules):
        if rule.name in names[:index]:
            found.append((f"rules[{index}].name", f"{rule.name!r} names another rule too."))
        found.extend((f"rules[{index}].{key}", sentence) for key, sentence in _rule_problems(rule, regions, thresholds))
    return found


def _rule_problems(
    rule: Rule, regions: Mapping[str, Region], thresholds: Mapping[str, Threshold]
) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    is_band = rule.ng_at is not None or rule.unsure_at is not None
    if not is_band and not rule.expects_count:
        found.append(("name", "needs `ng_at` or `unsure_at`, or `count_min` or `count_max`."))
    if is_band and rule.expects_count:
        found.append(("name", "has both a band (`ng_at`, `unsure_at`) and an expected count; make two rules of it."))
    if rule.expects_count and rule.measure is not Measure.SCORE:
        found.append(("measure", "is for rules with `ng_at` or `unsure_at`; an expected count counts."))
    for key in (
        "ng_at",
        "unsure_at",
        "min_score",
        "weak_score",
        "min_area_px",
        "min_area_mm2",
        "count_min",
        "count_max",
    ):
        number = getattr(rule, key)
        if isinstance(number, str) and number not in thresholds:
            found.append((key, f"names the threshold {number!r}, which [thresholds] lacks."))
        elif isinstance(number, float) and not math.isfinite(number):
            found.append((key, "is not a finite number."))
    defaults = {name: threshold.default for name, threshold in thresholds.items()}
    if found:
        return found
    for low, high in (("count_min", "count_max"), ("weak_score", "min_score")):
        least, most = (value_of(getattr(rule, key), defaults) for key in (low, high))
        if least is not None and most is not None and least > most:
            found.append((low, f"is {least:g}, more than {high} = {most:g}."))
    if rule.weak_score is not None and (rule.min_score is None or not rule.counts):
        found.append(("weak_score", "is for rules that count, with `min_score`."))
    if rule.each_label and not rule.counts:
        found.append(("each_label", "is for rules that count."))
    if rule.region is None and rule.outside:
        found.append(("outside", "needs `region`."))
    if rule.region is not None and rule.region not in regions:
        found.append(("region", f"names the region {rule.region!r}, which [regions] lacks."))
    return found


def _region_problems(region: Region) -> list[str]:
    if (region.box is None) == (region.polygon is None):
        return ["give either `box` or `polygon`."]
    corners = region.corners
    if region.box is not None and not (region.box[0] < region.box[2] and region.box[1] < region.box[3]):
        return ["`box` is x1, y1, x2, y2 with x1 < x2 and y1 < y2."]
    if _crosses_itself(corners):
        return ["`polygon` touches or crosses itself."]
    return []


def _crosses_itself(corners: Sequence[Corner]) -> bool:
    if len(set(corners)) < len(corners):
        return True
    count = len(corners)
    sides = [(corner, corners[(index + 1) % count]) for index, corner in enumerate(corners)]
    for index, side in enumerate(sides):
        if _folds_back(side[0], side[1], sides[(index + 1) % count][1]):
            return True
        # The sides next to this one share a corner with it.
        apart = sides[index + 2 : count - 1 if index == 0 else count]
        if any(_meet(side, other) for other in apart):
            return True
    return False


def _folds_back(before: Corner, tip: Corner, after: Corner) -> bool:
    """Tell whether the side after a corner lies on the side before it."""
    along = (before[0] - tip[0]) * (after[0] - tip[0]) + (before[1] - tip[1]) * (after[1] - tip[1])
    return _turn(before, tip, after) == 0.0 and along > 0.0


def _meet(one: tuple[Corner, Corner], other: tuple[Corner, Corner]) -> bool:
    """Tell whether two sides have a point in common."""
    (a, b), (c, d) = one, other
    turns = (_turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b))
    if turns[0] * turns[1] < 0 and turns[2] * turns[3] < 0:
        return True
    ends = ((turns[0], c, one), (turns[1], d, one), (turns[2], a, other), (turns[3], b, other))
    return any(turn == 0.0 and _within(point, side) for turn, point, side in ends)


def _turn(a: Corner, b: Corner, c: Corner) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _within(point: Corner, side: tuple[Corner, Corner]) -> bool:
    (x1, y1), (x2, y2) = side
    return min(x1, x2) <= point[0] <= max(x1, x2) and min(y1, y2) <= point[1] <= max(y1, y2)
