"""What one version of a model has done on this device, as counts that can be added up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from wire.histogram import Histogram
from wire.ids import Count, Digest

K = TypeVar("K")

LOT_PARTS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Parts of the production that one version judged, on all stations together.

    Args:
        verdicts: parts by what this model said of them: OK, NG or UNSURE.
        faults: parts without verdict that the version may be blamed for, by reason.
        looks: how many looks at a picture took how long: counts by bin of `wire.histogram`. The model's own work
            (preprocess, run, decode); waiting for a core is not in it.
        lots: groups of `LOT_PARTS` parts with a verdict that came one after the other; `lot_sums` and `lot_squares` are
            the sums of their counts of each verdict, and of those squared. They tell a line whose NG come in heaps.
        rss_mb: resident memory of the agent when this was read, in 2**20 bytes.
        grew_mb: by so much that memory has grown since the version had settled in.
    """

    digest: Digest
    verdicts: dict[str, Count] = field(default_factory=dict)
    faults: dict[str, Count] = field(default_factory=dict)
    looks: dict[int, Count] = field(default_factory=dict)
    lots: Count = 0
    lot_sums: dict[str, Count] = field(default_factory=dict)
    lot_squares: dict[str, Count] = field(default_factory=dict)
    rss_mb: float | None = None
    grew_mb: float = 0.0

    @property
    def parts(self) -> int:
        """Parts judged with it; each has a verdict or a fault."""
        return sum(self.verdicts.values()) + self.fault_count

    @property
    def fault_count(self) -> int:
        """Parts that have no verdict for reasons the version may be blamed for."""
        return sum(self.faults.values())

    @property
    def look_count(self) -> int:
        """Looks that were timed."""
        return sum(self.looks.values())

    @property
    def look_p95_ms(self) -> float | None:
        """What 95 % of the looks take at most, within 5 %; None before the first."""
        return _histogram(self.looks).quantile(0.95)

    def plus(self, later: Figures) -> Figures:
        """Return these and later ones of the same version together.

        Raises:
            ValueError: where they are of another version.
        """
        if later.digest != self.digest:
            raise ValueError(f"figures of {self.digest[:12]} and {later.digest[:12]} cannot be added")
        return Figures(
            digest=self.digest,
            verdicts=_sum(self.verdicts, later.verdicts),
            faults=_sum(self.faults, later.faults),
            looks=_sum(self.looks, later.looks),
            lots=self.lots + later.lots,
            lot_sums=_sum(self.lot_sums, later.lot_sums),
            lot_squares=_sum(self.lot_squares, later.lot_squares),
            rss_mb=later.rss_mb if later.rss_mb is not None else self.rss_mb,
            grew_mb=max(self.grew_mb, later.grew_mb),
        )


def looks_of(durations_ms: Iterable[float]) -> dict[int, int]:
    """Return durations as `Figures.looks`."""
    histogram = Histogram()
    for duration_ms in durations_ms:
        histogram.add(duration_ms)
    return sparse(histogram)


def sparse(histogram: Histogram) -> dict[int, int]:
    """Return a histogram's bins that are not empty."""
    return {place: count for place, count in enumerate(histogram.counts) if count}


def slower_than(looks: dict[int, int], limit_ms: float) -> int:
    """Return how many looks took longer than `limit_ms`; those in its own bin are not among them."""
    (place,) = looks_of([limit_ms])
    return sum(count for other, count in looks.items() if other > place)


def _histogram(looks: dict[int, int]) -> Histogram:
    histogram = Histogram()
    for place, count in looks.items():
        histogram.counts[min(max(place, 0), len(histogram.counts) - 1)] += count
    return histogram


def _sum(one: dict[K, int], other: dict[K, int]) -> dict[K, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in [*one, *other]}
