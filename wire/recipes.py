"""Which recipe a number or a code asks for, and which recipes may not stand beside each other. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

from wire.desired import Recipe

ANY_END: Final = "*"


def matches(code: str, text: str) -> bool:
    """Tell whether a recipe's code stands for a text that was read; `4006*` stands for all that begin with 4006."""
    return text.startswith(code[:-1]) if code.endswith(ANY_END) else text == code


def overlap(code: str, other: str) -> bool:
    """Tell whether some text is meant by both codes."""
    if not code.endswith(ANY_END):
        return matches(other, code)
    return other.startswith(code[:-1]) or (other.endswith(ANY_END) and code.startswith(other[:-1]))


def clashes(recipes: Sequence[Recipe]) -> list[str]:
    """Return a sentence for each pair of one station's recipes that one number or one code would ask for."""
    found = []
    for one, other in itertools.combinations(recipes, 2):
        if one.number is not None and one.number == other.number:
            found.append(f"The recipes {one.id} and {other.id} both have the number {one.number}.")
        shared = _shared(one.codes, other.codes)
        if shared is not None:
            found.append(f"The code {shared[0]!r} of the recipe {one.id} overlaps {shared[1]!r} of {other.id}.")
    return found


def _shared(codes: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    return next((pair for pair in itertools.product(codes, others) if overlap(*pair)), None)
