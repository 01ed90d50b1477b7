"""The books of a belt are compared part by part: each way in which they could disagree is found."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from agent.simulator import belt, belt_marks
from agent.simulator.belt import BeltPart, BeltSettings
from tests.support import belt_books
from tests.support.belt_books import Books, Told

SETTINGS = BeltSettings(seed=3, part_count=60, batch_parts=30)
LOST = range(10, 20)
ROUTES = {"OK": "accept", "NG": "reject"}
Row = dict[str, Any]


def labels_of(number: int, view: int) -> list[str]:
    found = [f"{'n' if number >> bit & 1 else 'c'}{bit}" for bit in range(belt_marks.NUMBER_BITS)]
    return found + [f"v{bit}" for bit in range(belt_marks.VIEW_BITS) if view >> bit & 1]


def honest_row(part: BeltPart, recipe_index: int, seen: frozenset[str]) -> Row:
    views = [
        {
            "view": view,
            "verdict": part.faults[view][recipe_index].value.value if view in seen else "NO_VERDICT",
            "findings": [{"label": label} for label in labels_of(part.number, index)] if view in seen else [],
        }
        for index, view in enumerate(SETTINGS.views, 1)
    ]
    verdict = belt.expected(part, recipe_index, seen).value
    return {
        "trigger_sequence": part.number,
        "recipe": f"r{SETTINGS.recipes[recipe_index]}",
        "verdict": verdict,
        "reason": "missing_view" if verdict == "NO_VERDICT" else "none",
        "views": views,
    }


def honest() -> Books:
    """A belt without an error: one camera is lost for a while, and nobody saw the last part."""
    rows: list[Row] = []
    seen: dict[int, frozenset[str]] = {}
    for batch in belt.plan(SETTINGS):
        for part in batch.parts:
            seen[part.number] = frozenset({"top", "right"} if part.number in LOST else SETTINGS.views)
            rows.append(honest_row(part, batch.recipe_index, seen[part.number]))
    rows[-1] |= {"verdict": "NO_VERDICT", "reason": "agent_down", "views": []}
    told = {
        row["trigger_sequence"]: Told(verdict=row["verdict"], route=ROUTES.get(row["verdict"], "divert"))
        for row in rows
    }
    told[60] = Told(verdict="", route="divert")
    return Books(
        settings=SETTINGS,
        seen=seen,
        count_of={number: number for number in seen},
        told=told,
        rows=rows,
        recipe_ids={1: "r1", 2: "r2"},
    )


def test_honest_books_agree() -> None:
    books = honest()
    assert belt_books.discrepancies(books) == []
    figures = belt_books.summary(books)
    assert (figures["parts"], figures["rows"], figures["told"]["none"]) == (60, 60, 1)
    assert figures["without_verdict"]["agent_down"] == 1
    assert figures["without_verdict"]["missing_view"] > 0


def swap_records(rows: list[Row]) -> None:
    rows[3]["views"], rows[4]["views"] = rows[4]["views"], rows[3]["views"]


def swap_views(rows: list[Row]) -> None:
    one, other, _ = rows[3]["views"]
    one["findings"], other["findings"] = other["findings"], one["findings"]


def late_frame(rows: list[Row]) -> None:
    rows[5]["views"][1]["findings"] = rows[4]["views"][1]["findings"]


def torn_picture(rows: list[Row]) -> None:
    rows[5]["views"][1]["findings"] = rows[5]["views"][1]["findings"][1:]


def wrong_recipe(rows: list[Row]) -> None:
    rows[31]["recipe"] = "r1"


def lost_row(rows: list[Row]) -> None:
    del rows[7]


def second_row(rows: list[Row]) -> None:
    rows.append(copy.deepcopy(rows[7]))


def invented_row(rows: list[Row]) -> None:
    rows.append(rows[7] | {"trigger_sequence": 61})


def other_verdict(rows: list[Row]) -> None:
    rows[7]["verdict"] = "NG" if rows[7]["verdict"] != "NG" else "OK"


def picture_of_a_lost_camera(rows: list[Row]) -> None:
    rows[12]["views"][1] |= {"verdict": "OK", "findings": [{"label": label} for label in labels_of(13, 2)]}


def verdict_of_nobody(rows: list[Row]) -> None:
    rows[-1]["verdict"] = "OK"


def verdict_without_a_view(rows: list[Row]) -> None:
    """The rest of the record is right, but a view that says nothing was passed over when the views were joined."""
    row = next(row for row in rows if row["verdict"] == "OK")
    row["views"][0] |= {"verdict": "NO_VERDICT", "findings": []}


@pytest.mark.parametrize(
    "spoil",
    [
        swap_records,
        swap_views,
        late_frame,
        torn_picture,
        wrong_recipe,
        lost_row,
        second_row,
        invented_row,
        other_verdict,
        picture_of_a_lost_camera,
        verdict_of_nobody,
        verdict_without_a_view,
    ],
)
def test_a_spoilt_record_is_found(spoil: Callable[[list[Row]], None]) -> None:
    books = honest()
    rows = copy.deepcopy(list(books.rows))
    spoil(rows)  # type: ignore[arg-type]
    assert belt_books.discrepancies(dataclasses.replace(books, rows=rows))


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (60, Told(verdict="", route="accept")),
        (61, Told(verdict="OK", route="accept")),
        (1, None),
        (2, Told(verdict="NG", route="accept")),
    ],
)
def test_a_plc_that_knows_something_else_is_found(count: int, told: Told | None) -> None:
    books = honest()
    others = {number: one for number, one in books.told.items() if number != count}
    changed = others if told is None else {**others, count: told}
    assert belt_books.discrepancies(dataclasses.replace(books, told=changed))


def test_a_verdict_that_reached_the_plc_for_another_part_is_found() -> None:
    books = honest()
    verdicts = {number: told.verdict for number, told in books.told.items()}
    shifted = {
        number: Told(verdict=verdicts[number - 1], route=ROUTES.get(verdicts[number - 1], "divert"))
        for number in range(2, 60)
    }
    found = belt_books.discrepancies(dataclasses.replace(books, told={**books.told, **shifted}))
    assert len(found) > 10
