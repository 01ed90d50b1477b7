"""A candidate: a version that is loaded beside the active one, and judges with the same recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from agent.capture.calibration import Calibration
from agent.inspection import judge
from agent.inspection.judge import JudgeRules
from agent.vision.pipeline import Pipeline
from agent.vision.runtime import Session
from wire.desired import Recipe
from wire.errors import LinesideError
from wire.manifest import parameters_of
from wire.package import Package

CalibrationOf = Callable[[str, str], Calibration | None]
_RECIPES_MOST: Final = 64
_REST_AFTER: Final = 3
_FIRST_REST_NS: Final = 500_000_000
_LONGEST_REST_NS: Final = 60_000_000_000


class CandidateSession(Session, Protocol):
    """A session whose runs can be ended from another thread; `agent.vision.runtime.OnnxSession` in the product."""

    def interrupt(self) -> None: ...
    def resume(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Eye:
    """How a candidate judges one view."""

    pipeline: Pipeline
    rules: JudgeRules


class Candidate:
    """One version; it looks on one thread only.

    Args:
        rate: share of parts it is meant to see.
        calibration_of: millimetres of a station's view, None where it is not calibrated.
    """

    def __init__(self, package: Package, session: CandidateSession, rate: float, calibration_of: CalibrationOf) -> None:
        self.model = package.manifest.name
        self.rate = rate
        self.session = session
        self.stopped = False
        self.revoked = False
        self.failures_in_row = 0
        self._package = package
        self._calibration_of = calibration_of
        self._eyes: dict[tuple[str, str], tuple[Recipe, dict[str, Eye] | str]] = {}
        self._first: Pipeline | None = None
        self._unable_in_row = 0
        self._rests_until_ns = 0

    @property
    def digest(self) -> str:
        """The version, as its session knows it."""
        return self.session.digest

    # Recipes

    def refuses(self, station: str, recipe: Recipe) -> bool:
        """Tell whether a recipe is known not to fit. Any thread may ask."""
        known = self._eyes.get((station, recipe.id))
        return known is not None and isinstance(known[1], str) and _is_same(known[0], recipe)

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why recipes do not fit, in sentences. Any thread may ask."""
        found = [(station, recipe.id, eyes) for (station, _), (recipe, eyes) in dict(self._eyes).items()]
        return tuple(f"{station}, recipe {name}: {eyes}" for station, name, eyes in found if isinstance(eyes, str))

    def eyes(self, station: str, recipe: Recipe) -> Mapping[str, Eye] | None:
        """Return how the views that name the model are judged with a recipe; None where it does not fit."""
        known = self._eyes.get((station, recipe.id))
        if known is None or not _is_same(known[0], recipe):
            try:
                made: dict[str, Eye] | str = self._made(station, recipe)
            except LinesideError as error:
                made = error.message
            known = (recipe, made)
            self._eyes[station, recipe.id] = known
            if len(self._eyes) > _RECIPES_MOST:
                del self._eyes[next(iter(self._eyes))]
        return known[1] if isinstance(known[1], dict) else None

    def _made(self, station: str, recipe: Recipe) -> dict[str, Eye]:
        manifest = self._package.manifest
        eyes: dict[str, Eye] = {}
        for view, wanted in recipe.views.items():
            if wanted.model != self.model:
                continue
            parameters, refused = parameters_of(manifest, wanted.parameters)
            if refused:
                raise LinesideError("deployment.out_of_bounds", f"View {view}: {' '.join(refused)}")
            calibration = self._calibration_of(station, view)
            pipeline = Pipeline(self.session, self._package, parameters, calibration=calibration)
            self._first = self._first or pipeline
            pipeline.share_memory_with(self._first)
            eyes[view] = Eye(pipeline=pipeline, rules=judge.rules_of(manifest, parameters))
        return eyes

    # Yielding

    def revoke(self) -> None:
        """Have the look that goes on end as soon as the runtime can. Any thread may call it."""
        self.revoked = True
        self.session.interrupt()

    def begin(self) -> None:
        """Look again."""
        self.revoked = False
        self.session.resume()

    def rests(self, now_ns: int) -> bool:
        """Tell whether it rests: it was in the way, or would have been, too often in a row."""
        return now_ns < self._rests_until_ns

    def note_look(self) -> None:
        """It could look at a part to the end."""
        self._unable_in_row = 0

    def note_unable(self, now_ns: int) -> None:
        """It could not: the active version wanted the core. From the third time in a row on it rests, ever longer."""
        self._unable_in_row += 1
        if self._unable_in_row >= _REST_AFTER:
            rest_ns = _FIRST_REST_NS << min(self._unable_in_row - _REST_AFTER, 10)
            self._rests_until_ns = now_ns + min(rest_ns, _LONGEST_REST_NS)


def _is_same(one: Recipe, other: Recipe) -> bool:
    return one is other or one == other
