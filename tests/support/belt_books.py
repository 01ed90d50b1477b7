"""Holds the belt's own account, the PLC's, and the inspection rows of one belt against each other, part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.simulator import belt, belt_marks
from agent.simulator.belt import Batch, BeltPart, BeltSettings
from agent.simulator.belt_marks import Mark

UNSEEN: Final = ("agent_down", "missed_trigger")
NOTHING: Final = "NO_VERDICT"
ROUTES: Final = {"OK": "accept", "NG": "reject", "UNSURE": "divert"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the PLC knows of one part: the verdict it was given in time ("" where none), and where it sent the part."""

    verdict: str
    route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All accounts of one belt.

    Args:
        passed: parts up to this number have passed; None: all.
        seen: by part number, the cameras that gave its picture, as the belt itself says.
        count_of: by part number, the PLC's count of it.
        told: by the PLC's count.
        rows: inspection records, as the fleet stores them.
        recipe_ids: by number.
    """

    settings: BeltSettings
    seen: Mapping[int, frozenset[str]]
    count_of: Mapping[int, int]
    told: Mapping[int, Told]
    rows: Sequence[Mapping[str, Any]]
    recipe_ids: Mapping[int, str]
    passed: int | None = None


def discrepancies(books: Books) -> list[str]:
    """Return a sentence for each thing that does not agree."""
    last = books.settings.part_count if books.passed is None else books.passed
    planned = [(batch, part) for batch in belt.plan(books.settings) for part in batch.parts if part.number <= last]
    rows = Counter(row["trigger_sequence"] for row in books.rows)
    found = [f"count {count} has {times} rows" for count, times in rows.items() if times > 1]
    found += [f"part {part.number} did not pass" for _, part in planned if part.number not in books.count_of]
    counts = {books.count_of[part.number] for _, part in planned if part.number in books.count_of}
    found += [f"row for count {count}, which no part has" for count in sorted(rows.keys() - counts)]
    found += [f"PLC knows count {count}, which no part has" for count in sorted(books.told.keys() - counts)]
    row_of = {row["trigger_sequence"]: row for row in books.rows}
    for batch, part in planned:
        count = books.count_of.get(part.number)
        if count is None:
            continue
        row, told = row_of.get(count), books.told.get(count)
        if row is None:
            found.append(f"part {part.number} (count {count}) has no row")
        elif told is None:
            found.append(f"part {part.number} (count {count}) is unknown to the PLC")
        else:
            found += [f"part {part.number} (count {count}): {what}" for what in _of_part(books, batch, part, row, told)]
    return found


def summary(books: Books) -> dict[str, Any]:
    """Return what became of the parts, in numbers."""
    return {
        "parts": len(books.count_of),
        "rows": len(books.rows),
        "verdicts": dict(Counter(row["verdict"] for row in books.rows)),
        "without_verdict": dict(Counter(row["reason"] for row in books.rows if row["verdict"] == NOTHING)),
        "told": dict(Counter(told.verdict or "none" for told in books.told.values())),
        "recipes": dict(Counter(row["recipe"] for row in books.rows)),
    }


def _of_part(books: Books, batch: Batch, part: BeltPart, row: Mapping[str, Any], told: Told) -> Iterator[str]:
    verdict = row["verdict"]
    if told.verdict not in ("", NOTHING) and told.verdict != verdict:
        yield f"the PLC was told {told.verdict}, the record says {verdict} ({row['reason']})"
    if told.route != ROUTES.get(told.verdict, "divert"):
        yield f"the PLC was told {told.verdict or 'nothing'}, and it sent the part to {told.route}"
    if row["reason"] in UNSEEN:
        if verdict != NOTHING or row["views"]:
            yield f"nobody saw it, and it has the verdict {verdict} of {len(row['views'])} views"
        return
    if row["recipe"] != books.recipe_ids[batch.recipe]:
        yield f"judged with the recipe {row['recipe']}, it is of {batch.recipe}"
        return
    judged = set()
    for view in row["views"]:
        if view["verdict"] != NOTHING:
            judged.add(view["view"])
            yield from _of_view(books, batch, part, view)
    if verdict == NOTHING:
        if row["reason"] == "none":
            yield "no verdict, and no reason"
        return
    expected = belt.expected(part, batch.recipe_index, judged).value
    if verdict != expected:
        yield f"{verdict} although its views {sorted(judged)} make it {expected}"


def _of_view(books: Books, batch: Batch, part: BeltPart, view: Mapping[str, Any]) -> Iterator[str]:
    name = view["view"]
    mark = belt_marks.read({finding["label"] for finding in view["findings"]})
    wanted = Mark(number=part.number, view=books.settings.views.index(name) + 1)
    if mark != wanted:
        yield f"view {name} judged a picture of {mark}"
    elif name not in books.seen[part.number]:
        yield f"view {name} judged a picture its camera never gave"
    elif view["verdict"] != part.faults[name][batch.recipe_index].value.value:
        yield f"view {name} says {view['verdict']}, it shows {part.faults[name][batch.recipe_index]}"
