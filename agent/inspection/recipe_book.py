"""Builds one station's catalogue: every recipe it is given, ready to judge with, or refused with the reason."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from agent.capture.calibration import Calibration
from agent.inspection import judge
from agent.inspection.catalogue import Catalogue, Refused
from agent.inspection.judged import Judged
from agent.inspection.setup import StationSetup, ViewSetup
from agent.vision import runtime
from agent.vision.pipeline import Pipeline
from wire import recipes as clashing
from wire.desired import Recipe, ViewRecipe
from wire.errors import LinesideError
from wire.manifest import parameters_of
from wire.package import Package
from wire.sampling import SamplingPlan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A version whose session is there."""

    package: Package
    session: runtime.Session


def wanted_recipes(own: Recipe, given: Sequence[Recipe]) -> tuple[list[Recipe], list[Refused]]:
    """Return the recipes a station is to have, and those that cannot stand beside another.

    The device's own recipe is always among them, unless one of its id is given. Where one number or code would ask for
    two recipes, neither is taken: which one was meant nobody can tell.
    """
    named = {recipe.id: recipe for recipe in given}
    wanted = list({own.id: own, **named}.values())
    refused: dict[str, Refused] = {}
    for one, other in itertools.combinations(wanted, 2):
        why = " ".join(clashing.clashes((one, other)))
        if why:
            refused |= {recipe.id: Refused(recipe=recipe, why=why) for recipe in (one, other)}
    for recipe in given:
        if recipe is not named[recipe.id]:
            refused[recipe.id] = Refused(recipe=recipe, why="The recipe stands twice in the document.")
    return [recipe for recipe in wanted if recipe.id not in refused], list(refused.values())


class RecipeBook:
    """Used by the deploy thread only.

    Args:
        own: what the device's file says of the station.
        thread_count: of the station; each thread has pipelines of its own.
        deployment_of: the deployment that brought a version, by model and digest.
        calibration_of: millimetres of a view, None where it is not calibrated.
    """

    def __init__(
        self,
        own: StationSetup,
        thread_count: int,
        deployment_of: Callable[[str, str], str | None],
        calibration_of: Callable[[str], Calibration | None],
    ) -> None:
        self.own = own
        self._thread_count = thread_count
        self._deployment_of = deployment_of
        self._calibration_of = calibration_of
        self._first: dict[tuple[str, int, int], tuple[runtime.Session, Pipeline]] = {}
        self._judged = Judged()

    def catalogue_of(
        self,
        wanted: Iterable[Recipe],
        refused: Iterable[Refused],
        plan: SamplingPlan,
        former: Catalogue,
        loaded: Mapping[str, Loaded],
    ) -> Catalogue:
        """Return the catalogue of these recipes; what has not changed is taken over as it is.

        Args:
            refused: already; their earlier revisions stay, as do those of recipes that are refused now.
            former: what the station has; which recipe is in force is its own business.
        """
        setups: dict[str, StationSetup] = {}
        turned_down = {one.recipe.id: one for one in refused}
        for recipe in wanted:
            known = former.setups.get(recipe.id)
            if known is not None and known.recipe == recipe and _is_up_to_date(known, loaded):
                setups[recipe.id] = known
                if recipe.id in former.refused and not known.ready:
                    turned_down[recipe.id] = former.refused[recipe.id]
                continue
            try:
                setups[recipe.id] = self._setup(recipe, plan, loaded)
            except LinesideError as error:
                turned_down[recipe.id] = Refused(recipe=recipe, why=error.message)
        for name in turned_down:
            if name not in setups and name in former.setups:
                setups[name] = former.setups[name]
        self._refuse_newcomers(setups, turned_down, former)
        setups = {
            name: setup if setup.sampling == plan else dataclasses.replace(setup, sampling=plan)
            for name, setup in setups.items()
        }
        setups.setdefault(self.own.recipe.id, dataclasses.replace(self.own, sampling=plan))
        return Catalogue(setups=setups, active=former.active, refused=turned_down)

    def with_model(
        self, catalogue: Catalogue, model: str, loaded: Mapping[str, Loaded], *, going_back: bool = False
    ) -> Catalogue:
        """Return the catalogue with a model's new version in every view that names it.

        Args:
            going_back: to a former version, which no recipe may keep out: one that does not fit is refused, and its
                revision that judged with the version before stays in its place, as if the recipe had come while that
                version was in use.

        Raises:
            LinesideError: `deployment.out_of_bounds` where a recipe that judges with the model does not fit.
        """
        setups = dict(catalogue.setups)
        refused = dict(catalogue.refused)
        misfits: list[str] = []
        for name, setup in catalogue.setups.items():
            mine = [view for view in setup.views if view.model == model]
            if not mine:
                continue
            try:
                views = tuple(
                    self._view(view.view, setup.recipe.views[view.view], loaded) if view in mine else view
                    for view in setup.views
                )
            except LinesideError as error:
                if any(view.pipelines for view in mine) and not going_back:
                    raise
                refused[name] = Refused(recipe=setup.recipe, why=error.message)
                misfits.append(name)
                continue
            setups[name] = dataclasses.replace(setup, views=views)
        if going_back:
            setups |= {name: _emptied(setups[name], model) for name in misfits}
            setups |= self._revisions_of_before(misfits, setups, model, loaded)
        return dataclasses.replace(catalogue, setups=setups, refused=refused)

    def note_judged(self, catalogue: Catalogue, model: str, digest: str) -> None:
        """Remember the recipes that judge with a version that is about to be taken out, for going back to it."""
        self._judged.note(catalogue, model, digest)

    def refuse_misfits(self, catalogue: Catalogue, package: Package) -> None:
        """Compare the recipes that judge with a model now with another version of it, before anything is built.

        Raises:
            LinesideError: `deployment.out_of_bounds`.
        """
        for name, setup in catalogue.setups.items():
            for view in setup.views:
                if view.model == package.manifest.name and view.pipelines:
                    given = setup.recipe.views[view.view].parameters
                    _, refused = parameters_of(package.manifest, given)
                    if refused:
                        raise LinesideError(
                            "deployment.out_of_bounds", f"Recipe {name}, view {view.view}: {' '.join(refused)}"
                        )

    def without_model(self, catalogue: Catalogue, model: str) -> Catalogue:
        """Return the catalogue with no version of a model: its views judge nothing."""
        setups = {name: _emptied(setup, model) for name, setup in catalogue.setups.items()}
        return dataclasses.replace(catalogue, setups=setups)

    def keep_memory_of(self, loaded: Mapping[str, Loaded]) -> None:
        """Forget the memory of all sessions but these."""
        sessions = {id(version.session) for version in loaded.values()}
        self._first = {key: first for key, first in self._first.items() if key[2] in sessions}

    def _revisions_of_before(
        self, misfits: Iterable[str], setups: Mapping[str, StationSetup], model: str, loaded: Mapping[str, Loaded]
    ) -> dict[str, StationSetup]:
        """Return the revisions that judge in place of recipes that a former version does not allow, by id.

        Each is one that somebody gave the station: the newest that judged with that version or, as after a start, the
        device's own. One that could be mistaken for another recipe by its number or code is left out.
        """
        found: dict[str, StationSetup] = {}
        for name in misfits:
            others = [setup.recipe for other, setup in {**setups, **found}.items() if other != name]
            before = self._judged.revision(name, model, loaded[model].session.digest)
            for recipe in (before, self.own.recipe):
                if recipe is None or recipe.id != name or any(clashing.clashes((recipe, other)) for other in others):
                    continue
                try:
                    setup = self._setup(recipe, setups[name].sampling, loaded)
                except LinesideError:
                    continue
                if setup.ready:
                    found[name] = setup
                    break
        return found

    def _setup(self, recipe: Recipe, plan: SamplingPlan, loaded: Mapping[str, Loaded]) -> StationSetup:
        known = {view.view for view in self.own.views}
        if set(recipe.views) != known:
            raise LinesideError(
                "config.invalid_value",
                f"Recipe {recipe.id} names the views {_list(recipe.views)}, the station has {_list(known)}.",
            )
        return StationSetup(
            recipe=recipe,
            sampling=plan,
            views=tuple(self._view(view.view, recipe.views[view.view], loaded) for view in self.own.views),
        )

    def _view(self, view: str, recipe: ViewRecipe, loaded: Mapping[str, Loaded]) -> ViewSetup:
        version = loaded.get(recipe.model)
        if version is None:
            return ViewSetup(view=view, model=recipe.model)
        parameters, refused = parameters_of(version.package.manifest, recipe.parameters)
        if refused:
            raise LinesideError("deployment.out_of_bounds", f"View {view}: {' '.join(refused)}")
        return ViewSetup(
            view=view,
            model=recipe.model,
            pipelines=tuple(self._pipeline(view, number, version, parameters) for number in range(self._thread_count)),
            rules=judge.rules_of(version.package.manifest, parameters),
            deployment_id=self._deployment_of(recipe.model, version.package.digest),
        )

    def _pipeline(self, view: str, number: int, version: Loaded, parameters: dict[str, float]) -> Pipeline:
        """All recipes' pipelines of one thread and view use the same memory: the thread uses one after the other.

        Those of another session never do, even of the same version: it is warmed while the other serves.
        """
        pipeline = Pipeline(version.session, version.package, parameters, calibration=self._calibration_of(view))
        key = (view, number, id(version.session))
        _, first = self._first.setdefault(key, (version.session, pipeline))
        pipeline.share_memory_with(first)
        return pipeline

    @staticmethod
    def _refuse_newcomers(setups: dict[str, StationSetup], turned_down: dict[str, Refused], former: Catalogue) -> None:
        """An earlier revision that stays may have a number that the document has given to another recipe by now."""
        staying = [name for name in setups if name in turned_down and name in former.setups]
        for kept in staying:
            for name in [name for name in setups if name not in turned_down]:
                why = " ".join(clashing.clashes((setups[kept].recipe, setups[name].recipe)))
                if why:
                    turned_down[name] = Refused(recipe=setups.pop(name).recipe, why=why)


def _emptied(setup: StationSetup, model: str) -> StationSetup:
    """Return a setup whose views of a model judge nothing."""
    views = tuple(ViewSetup(view=view.view, model=model) if view.model == model else view for view in setup.views)
    return dataclasses.replace(setup, views=views)


def _is_up_to_date(setup: StationSetup, loaded: Mapping[str, Loaded]) -> bool:
    digests = {model: version.session.digest for model, version in loaded.items()}
    return all(view.digest == digests.get(view.model) for view in setup.views)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
