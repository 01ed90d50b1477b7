"""What a station judges with, as one frozen value: it is replaced whole, between two parts."""

from __future__ import annotations

from dataclasses import dataclass

from agent.inspection.judge import JudgeRules
from agent.vision.pipeline import Pipeline
from wire.desired import Recipe
from wire.sampling import SamplingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSetup:
    """One view's model, ready to run; `pipeline` is None until a version of the model is active."""

    view: str
    model: str
    pipeline: Pipeline | None = None
    rules: JudgeRules | None = None
    deployment_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StationSetup:
    """All a station needs to judge the next part."""

    recipe: Recipe
    sampling: SamplingPlan
    views: tuple[ViewSetup, ...]

    @property
    def ready(self) -> bool:
        """Whether every view has a model."""
        return all(view.pipeline is not None for view in self.views)
