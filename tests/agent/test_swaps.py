"""Two real versions take turns at a running station: each trigger has one verdict, each record names who judged it.

`run.py soak swaps` does the same 200 times, and holds times and memory to their limits as well.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from scripts import soak_swaps, swap_stand
from scripts.swap_stand import Books, SwapStand
from wire.messages import Lane

SWAPS = 20


@pytest.mark.parametrize("rate", [40.0, None], ids=["paced", "full speed"])
def test_no_part_is_lost_or_judged_by_a_version_that_it_does_not_name(tmp_path: Path, rate: float | None) -> None:
    packages, pictures = soak_swaps.made(tmp_path / "models")
    stand = SwapStand(_folder(tmp_path), packages, pictures, rate=rate, threads=2 if rate is None else 1)
    stand.start()
    try:
        swap_stand.swap_in_turn(stand, SWAPS, parts_between=6)
        stand.await_parts(1)
        stand.line.running.clear()
        stand.await_answers()
        assert stand.outbox.stats().unsettled_by_lane[Lane.INSPECTIONS] == len(stand.line.triggered_ns)
    finally:
        stand.stop()
    accounts = stand.accounts(SWAPS)
    assert accounts["faults"] == []
    assert accounts["triggers"] > SWAPS * 6
    assert len(accounts["judged_by"]) == 2


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "device"
    folder.mkdir()
    return folder


def test_the_books_notice_a_record_that_names_the_other_version(tmp_path: Path) -> None:
    packages, pictures = soak_swaps.made(tmp_path / "models")
    stand = SwapStand(_folder(tmp_path), packages, pictures, rate=None)
    stand.start()
    stand.await_parts(3)
    other = packages[1].digest

    note = Books._note

    def renamed(books: Books, inspection: object) -> None:
        views = tuple(
            dataclasses.replace(view, model_digest=other)
            for view in inspection.views  # type: ignore[attr-defined]
        )
        note(books, dataclasses.replace(inspection, views=views))  # type: ignore[type-var]

    stand.books._note = renamed.__get__(stand.books)  # type: ignore[method-assign]
    until = time.monotonic() + 10
    while not stand.books.wrong and time.monotonic() < until:
        time.sleep(0.01)
    stand.stop()
    assert f"names {other[:12]}, and its answer is that of ['{packages[0].digest}']" in stand.books.wrong[0]
