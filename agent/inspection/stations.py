"""All stations of the device and the sessions they share: applies models and recipes between two parts."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TypeVar

from agent.capture.calibration import Calibration
from agent.inspection.catalogue import Catalogue, Refused
from agent.inspection.recipe_book import Loaded, RecipeBook, wanted_recipes
from agent.inspection.worker import StationWorker
from agent.vision import runtime
from wire.desired import Desired, DesiredStation
from wire.errors import LinesideError
from wire.package import Package

T = TypeVar("T")
log = logging.getLogger(__name__)

_BUILD_NICENESS: Final = 5


class Stations:
    """Called by the deploy thread only; the stations' own threads take what is applied between two parts."""

    def __init__(
        self,
        workers: Mapping[str, StationWorker],
        options: runtime.RuntimeOptions,
        deployment_of: Callable[[str, str], str | None],
        calibration_of: Callable[[str, str], Calibration | None] = lambda _station, _view: None,
    ) -> None:
        self._workers = workers
        self._options = options
        self._loaded: dict[str, Loaded] = {}
        self._books = {
            station: RecipeBook(worker.own, worker.thread_count, deployment_of, partial(calibration_of, station))
            for station, worker in workers.items()
        }
        self._deployment_of = deployment_of

    def activate(self, package: Package, *, exclusive: bool = False) -> str:  # noqa: ARG002  (taken in its own commit)
        """Build the session of a version beside the one in use, swap in every view, and close the old one.

        Recipes that nothing was ever judged with, and that do not fit the manifest, are refused and stop nothing.

        Args:
            package: verified and self-tested on this device.
            exclusive: the two sessions do not fit in memory together: the old one is closed first, and the stations
                judge nothing until the new one is in.

        Returns:
            The digest read from the session that now infers.

        Raises:
            LinesideError: `deployment.out_of_bounds` where a recipe that is loaded does not fit the new manifest,
                `deployment.activation_failed`, or what loading raises; the old version goes on in each case.
        """
        name = package.manifest.name
        session = _at_low_priority(lambda: runtime.load(package, self._options))
        old = self._loaded.get(name)
        loaded = {**self._loaded, name: Loaded(package=package, session=session)}
        done: list[tuple[StationWorker, Catalogue]] = []
        try:
            catalogues = {
                station: self._books[station].with_model(worker.catalogue, name, loaded)
                for station, worker in self._workers.items()
                if name in _models_of(worker.catalogue)
            }
            for station, catalogue in catalogues.items():
                worker = self._workers[station]
                former = worker.catalogue
                worker.replace_catalogue(catalogue)
                done.append((worker, former))
        except LinesideError:
            for worker, former in done:
                worker.replace_catalogue(former)
            session.close()
            raise
        self._loaded = loaded
        if old is not None:
            old.session.close()
        runtime.trim()  # what optimising the graph took, and what the old session held
        log.info("Model %s runs version %s.", name, session.digest[:12], extra={"event": "model.activated"})
        return session.digest

    def inferring(self, model: str) -> str | None:
        """Return the digest of the session that every view of this model infers with; None where they differ.

        Recipes that were refused have no session and judge nothing.
        """
        digests = {
            view.digest
            for worker in self._workers.values()
            for setup in worker.catalogue.setups.values()
            for view in setup.views
            if view.model == model and view.digest is not None
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
        """Names of all models that any recipe of the stations needs."""
        return tuple(sorted(set().union(*(_models_of(worker.catalogue) for worker in self._workers.values()))))

    def apply(self, desired: Desired) -> list[str]:
        """Apply all recipes and sampling plans; return a sentence for each one that was refused.

        The fleet's recipes replace the device's own of the same id; a station the document does not name has its own
        only. What is refused changes nothing: an earlier revision stays as it was, the other recipes are applied.
        """
        named = {wanted.station: wanted for wanted in desired.stations}
        sentences = [f"This device has no station {station}." for station in named if station not in self._workers]
        for station, worker in self._workers.items():
            sentences += self._apply_to(worker, self._books[station], named.get(station))
        return sentences

    def _apply_to(self, worker: StationWorker, book: RecipeBook, wanted: DesiredStation | None) -> list[str]:
        recipes, clashing = wanted_recipes(book.own.recipe, wanted.recipes if wanted is not None else ())
        plan = wanted.sampling if wanted is not None and wanted.sampling is not None else book.own.sampling
        former = worker.catalogue
        catalogue = book.catalogue_of(recipes, clashing, plan, former, self._loaded)
        if not _is_same(catalogue, former):
            try:
                worker.replace_catalogue(catalogue)
            except LinesideError as error:
                return [error.message]
            log.info("A station has new recipes.", extra={"event": "station.changed"})
        return [
            f"{_title(refused, catalogue)}: {refused.why}" for _, refused in sorted(worker.catalogue.refused.items())
        ]


def _title(refused: Refused, catalogue: Catalogue) -> str:
    kept = catalogue.setups.get(refused.recipe.id)
    stays = f"; revision {kept.recipe.revision} stays" if kept is not None and kept.ready else ""
    return f"Recipe {refused.recipe.id}, revision {refused.recipe.revision}{stays}"


def _is_same(one: Catalogue, other: Catalogue) -> bool:
    """Tell whether nothing would change; which recipe is in force, and what was kept for it, is the station's."""
    if any(name in one.setups for name in other.removed):
        return False
    setups = {name: setup for name, setup in other.setups.items() if name not in other.removed}
    return dict(one.setups) == setups and dict(one.refused) == dict(other.refused)


def _models_of(catalogue: Catalogue) -> set[str]:
    named = {view.model for setup in catalogue.setups.values() for view in setup.views}
    return named | {view.model for refused in catalogue.refused.values() for view in refused.recipe.views.values()}


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
