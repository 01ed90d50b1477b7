"""Where two models agree on the same pictures, by verdict and finding by finding (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wire.inspection import Box, Finding, Verdict

SAME_PLACE_IOU: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """Two models' findings of one picture.

    Args:
        same: pairs of one label in one place.
        relabelled: pairs in one place whose labels differ.
        only_a, only_b: what the other model did not find.
    """

    same: tuple[tuple[Finding, Finding], ...]
    relabelled: tuple[tuple[Finding, Finding], ...]
    only_a: tuple[Finding, ...]
    only_b: tuple[Finding, ...]

    @property
    def agrees(self) -> bool:
        return not (self.relabelled or self.only_a or self.only_b)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What is known after some pictures."""

    pictures: int = 0
    verdicts: Counter[tuple[Verdict, Verdict]] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)
    only_a: Counter[str] = field(default_factory=Counter)
    only_b: Counter[str] = field(default_factory=Counter)
    relabelled: Counter[tuple[str, str]] = field(default_factory=Counter)
    agreeing: int = 0
    shifts: list[float] = field(default_factory=list)

    def add(self, verdict_a: Verdict, verdict_b: Verdict, matched: Matched) -> bool:
        """Count one picture; return whether the models agree on it."""
        self.pictures += 1
        self.verdicts[(verdict_a, verdict_b)] += 1
        self.same.update(one.label for one, _ in matched.same)
        self.only_a.update(finding.label for finding in matched.only_a)
        self.only_b.update(finding.label for finding in matched.only_b)
        self.relabelled.update((one.label, other.label) for one, other in matched.relabelled)
        self.shifts.extend(other.score - one.score for one, other in matched.same)
        agrees = verdict_a is verdict_b and matched.agrees
        self.agreeing += agrees
        return agrees

    def summary(self) -> dict[str, Any]:
        """Return the result as plain values, shares from 0 to 1; None where there is nothing to take a share of."""
        same_verdict = sum(count for (one, other), count in self.verdicts.items() if one is other)
        found = self.same.total() + self.only_a.total() + self.only_b.total() + self.relabelled.total()
        labels = sorted(
            {*self.same, *self.only_a, *self.only_b, *(label for pair in self.relabelled for label in pair)}
        )
        return {
            "pictures": self.pictures,
            "verdict_agreement": _share(same_verdict, self.pictures),
            "picture_agreement": _share(self.agreeing, self.pictures),
            "finding_agreement": _share(self.same.total(), found),
            "verdicts": [
                {"a": one, "b": other, "pictures": count} for (one, other), count in sorted(self.verdicts.items())
            ],
            "labels": [
                {
                    "label": label,
                    "both": self.same[label],
                    "only_a": self.only_a[label],
                    "only_b": self.only_b[label],
                }
                for label in labels
            ],
            "relabelled": [
                {"a": one, "b": other, "findings": count} for (one, other), count in sorted(self.relabelled.items())
            ],
            "score_shift": _shift(self.shifts),
        }


def match(a: Sequence[Finding], b: Sequence[Finding], *, least_iou: float = SAME_PLACE_IOU) -> Matched:
    """Pair the findings of two models: first those of one label, then those in one place; the nearest boxes first.

    Findings without a box are in one place with each other, and with no box.
    """
    left_a, left_b = list(range(len(a))), list(range(len(b)))
    same = _pairs(a, b, left_a, left_b, least_iou, same_label=True)
    relabelled = _pairs(a, b, left_a, left_b, least_iou, same_label=False)
    return Matched(
        same=tuple(same),
        relabelled=tuple(relabelled),
        only_a=tuple(a[index] for index in left_a),
        only_b=tuple(b[index] for index in left_b),
    )


def overlap(one: Box | None, other: Box | None) -> float:
    """Return intersection over union of two boxes."""
    if one is None or other is None:
        return 1.0 if one is other else 0.0
    width = min(one.x2_px, other.x2_px) - max(one.x1_px, other.x1_px)
    height = min(one.y2_px, other.y2_px) - max(one.y1_px, other.y1_px)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / (_area(one) + _area(other) - common)


def _pairs(
    a: Sequence[Finding],
    b: Sequence[Finding],
    left_a: list[int],
    left_b: list[int],
    least_iou: float,
    *,
    same_label: bool,
) -> list[tuple[Finding, Finding]]:
    """Take pairs out of what is left."""
    near = [
        (overlap(a[one].box, b[other].box), one, other)
        for one in left_a
        for other in left_b
        if (a[one].label == b[other].label) is same_label
    ]
    found = []
    for share, one, other in sorted(near, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if share >= least_iou and one in left_a and other in left_b:
            left_a.remove(one)
            left_b.remove(other)
            found.append((a[one], b[other]))
    return found


def _area(box: Box) -> float:
    return (box.x2_px - box.x1_px) * (box.y2_px - box.y1_px)


def _share(count: int, total: int) -> float | None:
    return round(count / total, 6) if total else None


def _shift(shifts: Sequence[float]) -> dict[str, float] | None:
    """Score of B minus score of A, over findings that both have."""
    if not shifts:
        return None
    sizes = sorted(abs(shift) for shift in shifts)
    return {
        "mean": round(sum(shifts) / len(shifts), 6),
        "median_size": round(sizes[len(sizes) // 2], 6),
        "p95_size": round(sizes[int(0.95 * (len(sizes) - 1))], 6),
        "largest_size": round(sizes[-1], 6),
    }
