"""Which revision of each recipe judged with a version before: going back to the version takes it up again."""

from __future__ import annotations

from typing import Final

from agent.inspection.catalogue import Catalogue
from wire.desired import Recipe

_VERSIONS_MAX: Final = 3


class Judged:
    """Of one station, while the agent runs; used by the deploy thread only."""

    def __init__(self) -> None:
        self._recipes: dict[str, dict[str, dict[str, Recipe]]] = {}  # by model, digest and id

    def note(self, catalogue: Catalogue, model: str, digest: str) -> None:
        """Keep which revisions judge with a version that is about to be taken out."""
        versions = self._recipes.setdefault(model, {})
        versions.pop(digest, None)
        versions[digest] = {
            name: setup.recipe
            for name, setup in catalogue.setups.items()
            if setup.ready and any(view.digest == digest for view in setup.views)
        }
        for oldest in list(versions)[:-_VERSIONS_MAX]:
            del versions[oldest]

    def revision(self, recipe: str, model: str, digest: str) -> Recipe | None:
        """Return the newest revision that judged with a version; None where none did, or it is long ago."""
        return self._recipes.get(model, {}).get(digest, {}).get(recipe)
