"""What a station judges with, as one frozen value: it is replaced whole, between two parts."""

from __future__ import annotations

from dataclasses import dataclass

from agent.inspection.judge import JudgeRules
from agent.vision.pipeline import Pipeline
from wire.desired import Recipe
from wire.sampling import SamplingPlan


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
