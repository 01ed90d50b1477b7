"""All recipes of one station, each ready to judge with, and which one is in force."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.inspection.setup import StationSetup, ViewSetup
from agent.line.trigger import RecipeRequest
from wire import recipes
from wire.desired import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A recipe, or a revision of one, that cannot be used, and why; an earlier revision may be in use all the same."""

    recipe: Recipe
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What came of a request: the id of the recipe, or why there is none."""

    recipe: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeListing:
    """One recipe of a station, as people see it.

    Args:
        loaded: every view has its model; only then can the recipe be selected.
        refusal: why the recipe, or its newest revision, cannot be used; empty where nothing is wrong.
    """

    id: str
    number: int | None
    codes: tuple[str, ...]
    revision: int
    active: bool
    loaded: bool
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What a station can judge with; replaced whole, between two parts.

    Args:
        setups: by recipe id, at most one of them asked for by any number or code.
        active: id of the recipe in force; it may be missing in `setups`, as after a start before its recipe is known.
        refused: by recipe id.
        removed: recipes that are in force though they are no longer among the device's: they cannot be chosen again.
    """

    setups: Mapping[str, StationSetup]
    active: str
    refused: Mapping[str, Refused] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    @property
    def current(self) -> StationSetup:
        """The setup in force; one that judges nothing where the recipe in force is not there."""
        return self.setups.get(self.active) or self._absent()

    @property
    def why_absent(self) -> str:
        """Why the recipe in force judges nothing; empty where it does."""
        setup = self.setups.get(self.active)
        if setup is not None and setup.ready:
            return ""
        refused = self.refused.get(self.active)
        if refused is not None:
            return f"Recipe {self.active} is in force, and it was refused: {refused.why}"
        if setup is not None:
            return self._why_not_loaded(setup)
        return f"Recipe {self.active} is in force, and the device does not know it (yet)."

    def choose(self, request: RecipeRequest) -> Choice:
        """Find the recipe that is asked for; one that cannot judge is refused."""
        known = {**{refused.recipe.id: refused.recipe for refused in self.refused.values()}, **self._recipes()}
        wanted = [recipe for recipe in known.values() if _is_meant(recipe, request)]
        if not wanted:
            return Choice(refusal=f"No recipe of this station has {_words(request)}.")
        recipe = min(wanted, key=lambda recipe: recipe.id in self.removed)
        if recipe.id == self.active and self.current.ready:
            return Choice(recipe=recipe.id)
        if recipe.id in self.removed:
            return Choice(refusal=f"Recipe {recipe.id} was removed.")
        setup = self.setups.get(recipe.id)
        if setup is not None and setup.ready:
            return Choice(recipe=recipe.id)
        refused = self.refused.get(recipe.id)
        if refused is not None:
            return Choice(refusal=f"Recipe {recipe.id} was refused: {refused.why}")
        return Choice(refusal=self._why_not_loaded(setup) if setup else f"Recipe {recipe.id} is not loaded.")

    def with_active(self, recipe: str) -> Catalogue:
        """Return the catalogue with another recipe in force; one that was only kept because it was in force goes."""
        gone = self.removed - {recipe}
        return dataclasses.replace(
            self,
            active=recipe,
            setups={name: setup for name, setup in self.setups.items() if name not in gone},
            removed=self.removed - gone,
        )

    def succeeding(self, former: Catalogue) -> Catalogue:
        """Return this catalogue with what was in force: a recipe that was removed stays until another is chosen."""
        active = former.active
        if active in self.setups or active not in former.setups:
            return self.with_active(active)  # it may have changed since this catalogue was made
        return dataclasses.replace(
            self,
            active=active,
            setups={**self.setups, active: former.setups[active]},
            removed=self.removed if active in self.refused else self.removed | {active},
        )

    def listing(self) -> tuple[RecipeListing, ...]:
        """Return all recipes, those that were refused included, by id."""
        rows = {
            name: self._row(setup.recipe, loaded=setup.ready, refusal=self._refusal(name))
            for name, setup in self.setups.items()
        }
        for name, refused in self.refused.items():
            rows.setdefault(name, self._row(refused.recipe, loaded=False, refusal=refused.why))
        return tuple(rows[name] for name in sorted(rows))

    def _row(self, recipe: Recipe, *, loaded: bool, refusal: str) -> RecipeListing:
        return RecipeListing(
            id=recipe.id,
            number=recipe.number,
            codes=recipe.codes,
            revision=recipe.revision,
            active=recipe.id == self.active,
            loaded=loaded,
            refusal=refusal,
        )

    def _refusal(self, name: str) -> str:
        if name in self.removed:
            return "It was removed, and is in force until another is chosen."
        refused = self.refused.get(name)
        if refused is None:
            return ""
        in_use = self.setups[name].recipe
        return refused.why if refused.recipe == in_use else f"Revision {refused.recipe.revision}: {refused.why}"

    def _recipes(self) -> dict[str, Recipe]:
        return {name: setup.recipe for name, setup in self.setups.items()}

    def _absent(self) -> StationSetup:
        """A setup of the same views without a model: parts have no verdict, in the name of the recipe in force."""
        pattern = next(iter(self.setups.values()))
        return StationSetup(
            recipe=dataclasses.replace(pattern.recipe, id=self.active, revision=0, number=None, codes=()),
            sampling=pattern.sampling,
            views=tuple(ViewSetup(view=view.view, model=view.model) for view in pattern.views),
        )

    @staticmethod
    def _why_not_loaded(setup: StationSetup) -> str:
        view = next(view for view in setup.views if not view.pipelines)
        return f"Recipe {setup.recipe.id}: the view {view.view} has no model ({view.model} is not loaded)."


def _is_meant(recipe: Recipe, request: RecipeRequest) -> bool:
    if request.recipe is not None:
        return recipe.id == request.recipe
    if request.number is not None:
        return recipe.number == request.number
    return any(recipes.matches(code, request.code or "") for code in recipe.codes)


def _words(request: RecipeRequest) -> str:
    if request.recipe is not None:
        return f"the id {request.recipe}"
    return f"the number {request.number}" if request.number is not None else f"a code for {request.code!r}"
