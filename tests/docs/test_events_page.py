"""The page of events has every event that the agent tells, and none that it never tells."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from agent.health import troubles

REPO = Path(__file__).resolve().parents[2]
EVENT = re.compile(r"[a-z_]+\.[a-z_]+")


def told_in(tree: ast.AST) -> Iterator[str]:
    """Find the names in `tell(NAME, ...)` and `Event(name=NAME)`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        places = node.args[:1] if called in ("tell", "_tell") else []
        places += [one.value for one in node.keywords if called == "Event" and one.arg == "name"]
        for place in places:
            if isinstance(place, ast.Constant) and isinstance(place.value, str) and EVENT.fullmatch(place.value):
                yield place.value


def test_every_event_that_is_told_stands_on_the_page_and_every_one_there_is_told() -> None:
    sources = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((REPO / "agent").rglob("*.py"))]
    told = {name for tree in sources for name in told_in(tree)}
    told |= {name for kind in troubles.Kind for name in (kind.raised, kind.cleared)}
    page = (REPO / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
    shown = set(re.findall(rf"`({EVENT.pattern})`", "\n".join(line for line in page.splitlines() if line[:1] == "|")))
    assert {"deployment.shifted", "agent.killed"} <= told, "the search finds them"
    assert sorted(told ^ shown) == []
