"""The recipes shown on their page are accepted, and the events' page names all that the agent tells."""

from __future__ import annotations

import re
from pathlib import Path

from agent.health.troubles import Kind
from fleet.deployments.document import RecipesFile
from wire import recipes
from wire.desired import Recipe
from wire.strict_toml import read

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_file_of_recipes_on_the_page_is_a_good_one(tmp_path: Path) -> None:
    (block,) = re.findall(
        r"^```toml\n(.*?)^```", (DOCS / "how-to" / "recipes.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "recipes.toml").write_text(block)
    (station,) = read(tmp_path / "recipes.toml").value_of(RecipesFile).stations
    assert [recipe.id for recipe in station.recipes] == ["piston-a", "piston-b"]
    made = [
        Recipe(id=one.id, revision=1, views=one.views, number=one.number, codes=one.codes) for one in station.recipes
    ]
    assert recipes.clashes(made) == []


def test_the_events_page_names_both_ends_of_every_trouble() -> None:
    page = (DOCS / "reference" / "events.md").read_text()
    for kind in Kind:
        assert f"| `{kind.raised}` | `{kind.cleared}` | {kind.severity.value} |" in page
