"""Which recipe a number or a code asks for: both sides refuse recipes that one of them could not tell apart."""

from __future__ import annotations

import itertools

import pytest

from wire import recipes
from wire.desired import Recipe, ViewRecipe


def recipe(name: str, *codes: str, number: int | None = None) -> Recipe:
    return Recipe(id=name, revision=1, views={"top": ViewRecipe(model="parts")}, number=number, codes=codes)


@pytest.mark.parametrize(
    ("code", "text", "matched"),
    [
        ("4006", "4006", True),
        ("4006", "40061", False),
        ("4006*", "40061", True),
        ("4006*", "4006", True),
        ("4006*", "400", False),
        ("*", "anything", True),
        ("4*06", "4*06", True),  # a star stands for something at the end only
        ("4*06", "4206", False),
    ],
)
def test_a_code_stands_for_itself_or_for_all_that_begin_so(code: str, text: str, *, matched: bool) -> None:
    assert recipes.matches(code, text) is matched


def test_two_codes_overlap_exactly_when_some_text_is_meant_by_both() -> None:
    texts = ["".join(word) for length in range(4) for word in itertools.product("ab", repeat=length)]
    codes = [*(text for text in texts if text), *(f"{text}*" for text in texts)]
    for one, other in itertools.product(codes, codes):
        shared = any(recipes.matches(one, text) and recipes.matches(other, text) for text in texts)
        assert recipes.overlap(one, other) is shared, (one, other)


def test_recipes_that_cannot_be_told_apart_are_named_with_what_they_share() -> None:
    found = recipes.clashes(
        [recipe("a", "40*", number=1), recipe("b", "x", "4006", number=2), recipe("c", "y", number=1)]
    )
    assert found == [
        "The code '40*' of the recipe a overlaps '4006' of b.",
        "The recipes a and c both have the number 1.",
    ]


def test_recipes_without_numbers_do_not_clash() -> None:
    assert recipes.clashes([recipe("a", "1"), recipe("b", "2"), recipe("c")]) == []
