"""How strongly counts speak for a change: odds that may be looked at after every part (pure).

Each function returns the logarithm of a likelihood ratio whose mean is 1 where nothing has changed. By Ville's
inequality it then reaches 1000 at any time in at most one run of a thousand, however often it is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

MIX: Final = ("OK", "NG", "UNSURE")
_JEFFREYS: Final = 0.5
# A version that says one thing of every part is looked for by name: a tenth of the odds for each of the three.
_STUCK: Final = 0.1
_LEAST_LOTS: Final = 10
_LEAST_COUNTED: Final = 5


def log_mix_odds(
    seen: Sequence[float], before: Sequence[float], *, weight_max: float, dispersion: float = 1.0
) -> float:
    """Return the log odds that verdicts come from another mix than before, against the same mix.

    "The same" is the Dirichlet-multinomial prediction from `before`; "another" is a mixture of one that knows nothing
    (Jeffreys' prior) and of one stuck verdict each.

    Args:
        seen: parts of each verdict with the new version.
        before: the same of the former one.
        weight_max: `before` counts as this many parts at most. It says how well a mix is known that drifts by itself:
            with 500, a share of 2 % may as well be 1 or 3 % today.
        dispersion: of the line (`dispersion_of`): so many parts of it say as much as one of a line without heaps.
    """
    seen = [count / dispersion for count in seen]
    total = sum(seen)
    if total == 0:
        return 0.0
    known = sum(before) / dispersion
    scale = min(1.0, weight_max / known) / dispersion if known else 0.0
    same = _log_dirichlet(seen, [_JEFFREYS + scale * count for count in before])
    other = [math.log(1.0 - _STUCK * len(seen)) + _log_dirichlet(seen, [_JEFFREYS] * len(seen))]
    if max(seen) == total:
        other.append(math.log(_STUCK))
    most = max(other)
    return most + math.log(sum(math.exp(one - most) for one in other)) - same


def dispersion_of(lots: int, lot_parts: int, total: int, squares: int) -> float:
    """Return how much more a count varies from lot to lot than it would if each part stood for itself; at least 1.

    Args:
        lots: of `lot_parts` parts each.
        total: counted in all of them, and `squares` the sum of each lot's count squared.
    """
    if lots < _LEAST_LOTS or not _LEAST_COUNTED <= total < lots * lot_parts:
        return 1.0
    share = total / (lots * lot_parts)
    variance = (squares - total * total / lots) / (lots - 1)
    return max(1.0, variance / (lot_parts * share * (1 - share)))


def log_share_odds(hits: int, total: int, share: float) -> float:
    """Return the log odds that a share lies elsewhere than at `share`; see `docs/explanation/probation.md`.

    The mixture of accuracy's absolute gate, B(1 + hits, 1 + misses) / (share^hits (1 - share)^misses). Where the share
    found is not above `share`, the answer is 0: less is no fault.
    """
    if total == 0 or hits <= share * total:
        return 0.0
    misses = total - hits
    other = math.lgamma(1 + hits) + math.lgamma(1 + misses) - math.lgamma(2 + total)
    return other - hits * math.log(share) - misses * math.log1p(-share)


def _log_dirichlet(counts: Sequence[float], prior: Sequence[float]) -> float:
    """Return the log probability of a sequence with these counts under a Dirichlet-multinomial."""
    total = math.lgamma(sum(prior)) - math.lgamma(sum(prior) + sum(counts))
    return total + sum(math.lgamma(a + n) - math.lgamma(a) for a, n in zip(prior, counts, strict=True))
