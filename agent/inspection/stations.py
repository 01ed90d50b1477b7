"""All stations of the device and the sessions they share: applies models and recipes between two parts."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from agent.capture.calibration import Calibration
from agent.deploy.figures import Figures
from agent.inspection import swap
from agent.inspection.catalogue import Catalogue, Refused
from agent.inspection.changeover import SWAP_TIMEOUT_S
from agent.inspection.growth import Growth, rss_mb
from agent.inspection.recipe_book import Loaded, RecipeBook, wanted_recipes
from agent.inspection.session_builder import ROUNDS, WarmUp, at_low_priority, size_for, warm
from agent.inspection.worker import StationWorker
from agent.vision import runtime
from wire.desired import Desired, DesiredStation
from wire.errors import LinesideError
from wire.package import Package

log = logging.getLogger(__name__)

_TIDY_AFTER_NS: Final = 1_000_000_000
_PAUSE_S: Final = 0.003


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SwapTimes:
    """What the parts of a swap took.

    Args:
        build_ms: from the file to a session.
        warm_ms: the first looks.
        swap_ms: until every station had come between two parts.
        gap_ms: how long stations had no model; 0 where the old one served meanwhile.
    """

    build_ms: float = 0.0
    warm_ms: float = 0.0
    swap_ms: float = 0.0
    gap_ms: float = 0.0


class Stations:
    """Called by the deploy thread only; the stations' own threads take what is applied between two parts."""

    def __init__(
        self,
        workers: Mapping[str, StationWorker],
        options: runtime.RuntimeOptions,
        deployment_of: Callable[[str, str], str | None],
        calibration_of: Callable[[str, str], Calibration | None] = lambda _station, _view: None,
        swap_timeout_s: float = SWAP_TIMEOUT_S,
    ) -> None:
        self._workers = workers
        self._options = options
        self._swap_timeout_s = swap_timeout_s
        self._loaded: dict[str, Loaded] = {}
        self._books = {
            station: RecipeBook(worker.own, worker.thread_count, deployment_of, partial(calibration_of, station))
            for station, worker in workers.items()
        }
        self._deployment_of = deployment_of
        self._growth = Growth()
        self._newest = ""
        self._spent: list[runtime.Session] = []
        self._freed_ns: int | None = None
        self.last_swap = SwapTimes()

    def activate(self, package: Package, *, exclusive: bool = False, going_back: bool = False) -> str:
        """Build the session of a version beside the one in use, warm it, swap it into every view, close the old one.

        Recipes that nothing was ever judged with, and that do not fit the manifest, are refused and stop nothing.

        Args:
            package: verified and self-tested on this device.
            exclusive: the two sessions do not fit in memory together: the old one is closed first, and the stations
                that need it say that they are not ready, until the new one or, if that fails, the old one is in.
            going_back: to a former version. No recipe stops that: one that does not fit is refused, and its revision
                that judged with that version before is used again.

        Returns:
            The digest read from the session that now infers.

        Raises:
            LinesideError: `deployment.out_of_bounds` where a recipe that is loaded does not fit the new manifest and
                nobody goes back, `deployment.activation_failed`, `model.unusable_output`, or what loading or a look
                raises. The old version goes on in each case, unless the message says that it could not be loaded again.
        """
        name = package.manifest.name
        former = self._loaded.get(name)
        for station, worker in self._workers.items():
            if not going_back:
                self._books[station].refuse_misfits(worker.catalogue, package)
            if former is not None:
                self._books[station].note_judged(worker.catalogue, name, former.session.digest)
        if exclusive and former is not None:
            session = self._activate_alone(package, former, going_back=going_back)
        else:
            session = self._swap_in(package, self._catalogues_with(name), going_back=going_back)
        log.info(
            "Model %s runs version %s: built in %.0f ms, warmed in %.0f ms, swapped in %.0f ms.",
            name,
            session.digest[:12],
            self.last_swap.build_ms,
            self.last_swap.warm_ms,
            self.last_swap.swap_ms,
            extra={"event": "model.activated"},
        )
        return session.digest

    @property
    def is_tidy(self) -> bool:
        """Whether nothing of a former swap is left to be closed or given back."""
        return self._freed_ns is None

    def tidy(self) -> bool:
        """Take one step to close the session a swap replaced and to give its memory back; call it now and then.

        Closing holds the interpreter. While memory is given back, whoever wants some waits, and gets it a page at a
        time afterwards. Each would cost the first part after a swap nearly as much again as a look of 5 ms: so they
        wait for a pause between parts, and where there is none, they come one by one, and later.

        Returns:
            Whether a step was taken.
        """
        if self._freed_ns is None:
            return False
        if time.monotonic_ns() - self._freed_ns <= _TIDY_AFTER_NS and not self._have_a_pause():
            return False
        if self._spent:
            self._spent.pop().close()
        else:
            self._freed_ns = None
            runtime.trim()
            self._growth.restart()
        return True

    def _have_a_pause(self) -> bool:
        """Tell whether no part came for a moment: between any two parts there is an instant without one."""
        if not all(worker.is_idle for worker in self._workers.values()):
            return False
        before = [worker.tally.received for worker in self._workers.values()]
        time.sleep(_PAUSE_S)
        return before == [worker.tally.received for worker in self._workers.values()]

    def _close_spent(self) -> None:
        while self._spent:
            self._spent.pop().close()
        self._freed_ns = None

    def _activate_alone(self, package: Package, former: Loaded, *, going_back: bool) -> runtime.Session:
        """Close the old session, then build the new one; load the old one again where that fails."""
        name = package.manifest.name
        bases = self._catalogues_with(name)
        swap.swap(
            self._workers,
            {station: self._books[station].without_model(base, name) for station, base in bases.items()},
            self._swap_timeout_s,
        )
        began_ns = time.monotonic_ns()
        self._loaded = {model: loaded for model, loaded in self._loaded.items() if model != name}
        former.session.close()
        runtime.trim()
        log.warning("Model %s is taken out until its next version is in.", name, extra={"event": "model.taken_out"})
        try:
            session = self._swap_in(package, bases, going_back=going_back)
        except LinesideError as error:
            try:
                self._swap_in(former.package, bases)
            except LinesideError as worse:
                raise LinesideError(
                    "deployment.activation_failed",
                    f"{error.message} The former version cannot be loaded again either, so that nothing is judged with "
                    f"{name}: {worse.message}",
                ) from worse
            raise
        finally:
            self.last_swap = dataclasses.replace(self.last_swap, gap_ms=(time.monotonic_ns() - began_ns) / 1e6)
        return session

    def _swap_in(
        self, package: Package, bases: Mapping[str, Catalogue], *, going_back: bool = False
    ) -> runtime.Session:
        """Build and warm a session, and swap it into all views at once.

        Args:
            bases: of the stations that need the model: what they judge with, or did before it was taken out.
        """
        name, threads = package.manifest.name, self._options.threads
        self._close_spent()  # of a swap a moment ago: there are never three
        self._newest = name
        self._growth.restart()
        began_ns = time.monotonic_ns()
        session = at_low_priority(lambda: runtime.load(package, self._options), threads=threads)
        built_ns = time.monotonic_ns()
        former = self._loaded.get(name)
        loaded = {**self._loaded, name: Loaded(package=package, session=session)}
        for worker in self._workers.values():
            worker.watch.begin(name, session.digest)
        try:
            catalogues = {
                station: self._books[station].with_model(base, name, loaded, going_back=going_back)
                for station, base in bases.items()
            }
            warm_ups = self._warm_ups(package, catalogues)
            warm(warm_ups, rounds=ROUNDS if former is not None else 1)
            warm_ns = time.monotonic_ns()
            swap.swap(self._workers, catalogues, self._swap_timeout_s)
        except LinesideError:
            self._let_go(session)
            raise
        swapped_ns = time.monotonic_ns()
        self._loaded = loaded
        if former is not None:
            self._spent.append(former.session)
        self._forget_memory()
        self._freed_ns = time.monotonic_ns()
        self.last_swap = SwapTimes(
            build_ms=(built_ns - began_ns) / 1e6,
            warm_ms=(warm_ns - built_ns) / 1e6,
            swap_ms=(swapped_ns - warm_ns) / 1e6,
        )
        return session

    def _catalogues_with(self, model: str) -> dict[str, Catalogue]:
        return {
            station: worker.catalogue
            for station, worker in self._workers.items()
            if model in _models_of(worker.catalogue)
        }

    def _warm_ups(self, package: Package, catalogues: Mapping[str, Catalogue]) -> list[WarmUp]:
        """Return every pipeline of a model, those of the recipes in force first."""
        found = [
            (name != catalogue.active, WarmUp(pipeline=pipeline, size_px=self._size_px(station, view.view, package)))
            for station, catalogue in catalogues.items()
            for name, setup in catalogue.setups.items()
            for view in setup.views
            if view.model == package.manifest.name
            for pipeline in view.pipelines
        ]
        return [warm_up for _, warm_up in sorted(found, key=lambda each: each[0])]

    def _size_px(self, station: str, view: str, package: Package) -> tuple[int, int]:
        return self._workers[station].size_px(view) or size_for(package.manifest.input)

    def _let_go(self, session: runtime.Session) -> None:
        """Close a session that failed, unless a station that hangs still has it: it is freed when that goes back."""
        in_use = {
            view.digest
            for worker in self._workers.values()
            for setup in worker.catalogue.setups.values()
            for view in setup.views
        }
        if session.digest not in in_use:
            session.close()
        self._forget_memory()
        self._freed_ns = time.monotonic_ns()

    def _forget_memory(self) -> None:
        for book in self._books.values():
            book.keep_memory_of(self._loaded)

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

    def figures(self, model: str) -> Figures | None:
        """Return what the version in use has done since it came into use, on all stations; None where none is.

        The memory in use is the whole agent's. It is left out once another model's session was built: what was in use
        before the swap is no measure for it any more. How much it grew is told all the same.
        """
        digest = self.inferring(model)
        if digest is None:
            return None
        found = self._sum(digest, (worker.watch.figures(model, digest) for worker in self._workers.values()))
        used_mb = rss_mb()
        if used_mb is None:
            return found
        grew_mb = self._growth.measure(model, digest, found.look_count, used_mb)
        return dataclasses.replace(found, rss_mb=used_mb if model == self._newest else None, grew_mb=grew_mb)

    def recent_figures(self, model: str) -> Figures | None:
        """Return what the version in use did lately, in whichever use of it; None where none is.

        The version after it is compared with this: it is recent however long the version has been in use, and it is
        known again at once after going back to it.
        """
        digest = self.inferring(model)
        if digest is None:
            return None
        found = self._sum(digest, (worker.watch.recent_figures(model, digest) for worker in self._workers.values()))
        return dataclasses.replace(found, rss_mb=rss_mb())

    @staticmethod
    def _sum(digest: str, figures: Iterable[Figures]) -> Figures:
        return functools.reduce(Figures.plus, figures, Figures(digest=digest))

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
