"""The times that the page on shadows gives are those of the code."""

from __future__ import annotations

from pathlib import Path

from agent.inspection.turns import IDLE_NS, PAUSE_NS, PAUSE_WITHIN_NS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "shadow.md"


def test_the_page_says_how_long_a_core_is_idle_and_what_a_pause_is() -> None:
    words = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"a core that has been idle for {IDLE_NS / 1e6:g} ms" in words
    assert PAUSE_WITHIN_NS == 1_000_000_000
    assert f"has not paused for {PAUSE_NS / 1e6:g} ms within the last second" in words
