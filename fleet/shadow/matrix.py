"""How two versions compare: counts of pairs of verdicts, and their shares. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Pairs of one kind, and the times of the first and the last of them."""

    active_verdict: str
    verdict: str
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of the matrix: what the active version said, what the candidate said, how often.

    Args:
        rate: share of all parts compared.
    """

    active_verdict: str
    verdict: str
    count: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The confusion matrix of the candidate against one active version; cells that never occurred are left out.

    Args:
        disagreement_rate: share of the parts compared; None where there are none: no evidence is not agreement.
    """

    compared: int
    disagreed: int
    disagreement_rate: float | None
    first_at: datetime | None
    last_at: datetime | None
    cells: tuple[Cell, ...]


def of(counted: Iterable[Counted]) -> Matrix:
    """Return the matrix of some counts; counts of the same cell are added up."""
    sums: dict[tuple[str, str], int] = {}
    first_at: datetime | None = None
    last_at: datetime | None = None
    for one in counted:
        key = (one.active_verdict, one.verdict)
        sums[key] = sums.get(key, 0) + one.count
        first_at = one.first_at if first_at is None else min(first_at, one.first_at)
        last_at = one.last_at if last_at is None else max(last_at, one.last_at)
    compared = sum(sums.values())
    disagreed = sum(count for (active, other), count in sums.items() if active != other)
    return Matrix(
        compared=compared,
        disagreed=disagreed,
        disagreement_rate=disagreed / compared if compared else None,
        first_at=first_at,
        last_at=last_at,
        cells=tuple(
            Cell(active_verdict=active, verdict=other, count=count, rate=count / compared)
            for (active, other), count in sorted(sums.items())
        ),
    )
