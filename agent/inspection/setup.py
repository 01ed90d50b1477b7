"""What a station judges with, as one frozen value: it is replaced whole, between two parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.inspection.judge import JudgeRules
from agent.settings import StationSettings
from agent.vision.pipeline import Pipeline
from wire.desired import Recipe, ViewRecipe
from wire.inspection import Route
from wire.sampling import SamplingPlan

DEFAULT_RECIPE: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSetup:
    """One view's model, ready to run.

    Args:
        pipelines: one for each thread of the station, all on the same session; empty until a version is active.
    """

    view: str
    model: str
    pipelines: tuple[Pipeline, ...] = ()
    rules: JudgeRules | None = None
    deployment_id: str | None = None

    @property
    def digest(self) -> str | None:
        """The version being inferred with, as the session knows it; None where none is."""
        return self.pipelines[0].digest if self.pipelines else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StationSetup:
    """All a station needs to judge the next part."""

    recipe: Recipe
    sampling: SamplingPlan
    views: tuple[ViewSetup, ...]

    @property
    def ready(self) -> bool:
        """Whether every view has a model."""
        return all(view.pipelines for view in self.views)


def own_setup(station: StationSettings, salt: str) -> StationSetup:
    """Return what the device's own file says of a station: the recipe `default`, no view of which has a model yet.

    Args:
        salt: of the device's own sampling plan.
    """
    recipes = {
        view.id: ViewRecipe(model=view.model, parameters=view.parameters, camera=view.settings)
        for view in station.views
    }
    return StationSetup(
        recipe=Recipe(
            id=DEFAULT_RECIPE,
            revision=0,
            views=recipes,
            unsure=Route(station.unsure),
            standstill=station.standstill,
        ),
        sampling=SamplingPlan(revision=0, salt=salt, floor_rate=station.floor_rate),
        views=tuple(ViewSetup(view=view.id, model=view.model) for view in station.views),
    )
