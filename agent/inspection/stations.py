"""All stations of the device and the sessions they share: applies models and recipes between two parts."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from agent.inspection import judge
from agent.inspection.setup import StationSetup, ViewSetup
from agent.inspection.worker import StationWorker
from agent.vision import runtime
from agent.vision.pipeline import Pipeline
from wire.desired import Desired, Recipe, ViewRecipe
from wire.errors import LinesideError
from wire.manifest import parameters_of
from wire.package import Package

T = TypeVar("T")
log = logging.getLogger(__name__)

_BUILD_NICENESS: Final = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    package: Package
    session: runtime.Session


class Stations:
    """Called by the deploy thread only; the stations' own threads take what is applied between two parts."""

    def __init__(
        self,
        workers: Mapping[str, StationWorker],
        options: runtime.RuntimeOptions,
        deployment_of: Callable[[str, str], str | None],
    ) -> None:
        self._workers = workers
        self._options = options
        self._deployment_of = deployment_of
        self._loaded: dict[str, _Loaded] = {}

    def activate(self, package: Package) -> str:
        """Build the session of a version beside the one in use, swap in every view, and close the old one.

        Returns:
            The digest read from the session that now infers.

        Raises:
            LinesideError: `deployment.out_of_bounds` where a recipe in force does not fit the new manifest,
                `deployment.activation_failed`, or what loading raises; the old version goes on in each case.
        """
        name = package.manifest.name
        session = _at_low_priority(lambda: runtime.load(package, self._options))
        old = self._loaded.get(name)
        loaded = _Loaded(package=package, session=session)
        done: list[tuple[StationWorker, StationSetup]] = []
        try:
            setups = {
                station: self._with_model(worker.setup, loaded, worker.thread_count)
                for station, worker in self._workers.items()
                if any(view.model == name for view in worker.setup.views)
            }
            for station, setup in setups.items():
                worker = self._workers[station]
                former = worker.setup
                worker.replace_setup(setup)
                done.append((worker, former))
        except LinesideError:
            for worker, former in done:
                worker.replace_setup(former)
            session.close()
            raise
        self._loaded[name] = loaded
        if old is not None:
            old.session.close()
        runtime.trim()  # what optimising the graph took, and what the old session held
        log.info("Model %s runs version %s.", name, session.digest[:12], extra={"event": "model.activated"})
        return session.digest

    def inferring(self, model: str) -> str | None:
        """Return the digest of the session that every view of this model infers with; None where they differ."""
        digests = {
            view.digest for worker in self._workers.values() for view in worker.setup.views if view.model == model
        }
        return digests.pop() if len(digests) == 1 else None

    def provider(self, model: str) -> str | None:
        """Return the provider the model's session runs on."""
        loaded = self._loaded.get(model)
        return loaded.session.provider if loaded is not None else None

    def deployment_id(self, model: str) -> str | None:
        """Return the deployment that brought the version in use."""
        loaded = self._loaded.get(model)
        return self._deployment_of(model, loaded.package.digest) if loaded is not None else None

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models the stations' recipes need."""
        return tuple(sorted({view.model for worker in self._workers.values() for view in worker.setup.views}))

    def apply(self, desired: Desired) -> list[str]:
        """Apply recipes and sampling plans; return a sentence for each one that was refused and left as it was."""
        refused: list[str] = []
        for wanted in desired.stations:
            worker = self._workers.get(wanted.station)
            if worker is None:
                refused.append(f"This device has no station {wanted.station}.")
                continue
            setup = worker.setup
            try:
                recipe = next((recipe for recipe in wanted.recipes if recipe.id == setup.recipe.id), None)
                if recipe is not None and recipe != setup.recipe:
                    setup = self._with_recipe(setup, recipe, worker.thread_count)
                if wanted.sampling is not None and wanted.sampling != setup.sampling:
                    setup = dataclasses.replace(setup, sampling=wanted.sampling)
                if setup is not worker.setup:
                    worker.replace_setup(setup)
                    log.info("Station %s has a new setup.", wanted.station, extra={"event": "station.changed"})
            except LinesideError as error:
                refused.append(error.message)
        return refused

    def _with_model(self, setup: StationSetup, loaded: _Loaded, thread_count: int) -> StationSetup:
        views = tuple(
            self._view(view.view, setup.recipe.views[view.view], loaded, thread_count)
            if view.model == loaded.package.manifest.name
            else view
            for view in setup.views
        )
        return dataclasses.replace(setup, views=views)

    def _with_recipe(self, setup: StationSetup, recipe: Recipe, thread_count: int) -> StationSetup:
        known = {view.view for view in setup.views}
        if set(recipe.views) != known:
            raise LinesideError(
                "config.invalid_value",
                f"Recipe {recipe.id} names the views {_list(recipe.views)}, the station has {_list(known)}.",
            )
        views = tuple(
            self._view(
                view.view, recipe.views[view.view], self._loaded.get(recipe.views[view.view].model), thread_count
            )
            for view in setup.views
        )
        return dataclasses.replace(setup, recipe=recipe, views=views)

    def _view(self, view: str, recipe: ViewRecipe, loaded: _Loaded | None, thread_count: int) -> ViewSetup:
        if loaded is None:
            return ViewSetup(view=view, model=recipe.model)
        parameters, refused = parameters_of(loaded.package.manifest, recipe.parameters)
        if refused:
            raise LinesideError("deployment.out_of_bounds", f"View {view}: {' '.join(refused)}")
        return ViewSetup(
            view=view,
            model=recipe.model,
            pipelines=tuple(Pipeline(loaded.session, loaded.package, parameters) for _ in range(thread_count)),
            rules=judge.rules_of(loaded.package.manifest, parameters),
            deployment_id=self._deployment_of(recipe.model, loaded.package.digest),
        )


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _at_low_priority(build: Callable[[], T]) -> T:
    """Run `build` on a thread of lower priority, so that the stations' threads keep their pace meanwhile."""
    results: list[T] = []
    errors: list[LinesideError] = []

    def body() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BUILD_NICENESS)
        try:
            results.append(build())
        except LinesideError as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="session-builder")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    if not results:
        raise LinesideError("deployment.activation_failed", "The session could not be built; the log says why.")
    return results[0]
