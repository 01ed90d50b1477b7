"""The next desired document, from the one in force and what a person asks for. Pure.

A person names models by release and says sampling rates; deployment ids, revisions and salts are the fleet's. What
does not change keeps them: a document that is asked for again as it stands stays at its revision.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Final

import msgspec

from wire import recipes as recipe_rules
from wire.desired import Code, Desired, DesiredModel, DesiredSettings, DesiredStation, Recipe, ViewRecipe
from wire.errors import LinesideError
from wire.ids import Name
from wire.inspection import Route
from wire.manifest import Manifest, parameters_of
from wire.sampling import FLOOR_DEFAULT, Rate, SamplingPlan

MAX_RECIPES: Final = 200
SHADOW_RATE: Final = 0.25
Release = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """Which release of a model to run.

    Args:
        retry: deploy it again although the deployment of this very version failed or was taken back, or a person at
            the device went back since.
        shadow: a release that judges the same parts beside it, for nobody on the line.
        shadow_rate: share of parts the shadow is meant to see.
    """

    model: Name
    release: Release
    retry: bool = False
    shadow: Release | None = None
    shadow_rate: Rate = SHADOW_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeChoice:
    """A recipe as a person writes it; `wire.desired.Recipe` says what its fields mean, the revision is the fleet's."""

    id: Name
    views: Annotated[dict[Name, ViewRecipe], msgspec.Meta(min_length=1, max_length=16)]
    number: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    codes: Annotated[tuple[Code, ...], msgspec.Meta(max_length=100)] = ()
    unsure: Route = Route.DIVERT
    standstill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingChoice:
    """Rates of a sampling plan; `wire.sampling.SamplingPlan` says what they mean."""

    floor_rate: Rate = FLOOR_DEFAULT
    gate_rate: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StationChoice:
    """Recipes and sampling of one station."""

    station: Name
    recipes: Annotated[tuple[RecipeChoice, ...], msgspec.Meta(max_length=MAX_RECIPES)] = ()
    sampling: SamplingChoice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StationRecipes:
    """All recipes of one station, as a file of recipes has them."""

    station: Name
    recipes: Annotated[tuple[RecipeChoice, ...], msgspec.Meta(max_length=MAX_RECIPES)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipesFile:
    """What stands in a file of recipes; a station that it does not name keeps what it has."""

    stations: Annotated[tuple[StationRecipes, ...], msgspec.Meta(min_length=1, max_length=32)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredChoice:
    """The whole of what a device should be; it replaces what was asked for before."""

    models: Annotated[tuple[ModelChoice, ...], msgspec.Meta(max_length=64)] = ()
    stations: Annotated[tuple[StationChoice, ...], msgspec.Meta(max_length=32)] = ()
    settings: DesiredSettings = field(default_factory=DesiredSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A model version that the registry has."""

    digest: str
    manifest: Manifest


Versions = Mapping[tuple[str, int], Version]


def choice_of(document: Desired, shadows: Mapping[str, int] | None = None) -> DesiredChoice:
    """Return the choice that leads to a document again; a place to start a change from.

    Args:
        shadows: the release of each shadow's digest, which the document does not tell; a shadow that is not here is
            left out.
    """
    releases = shadows or {}
    return DesiredChoice(
        models=tuple(
            ModelChoice(
                model=model.model,
                release=model.release,
                shadow=releases.get(model.shadow or ""),
                shadow_rate=model.shadow_rate,
            )
            for model in document.models
        ),
        stations=tuple(_station_choice(station) for station in document.stations),
        settings=document.settings,
    )


def with_recipes(choice: DesiredChoice, file: RecipesFile) -> DesiredChoice:
    """Return a choice in which each station of the file has the file's recipes, and keeps its sampling.

    Raises:
        LinesideError: `request.invalid` where the file names a station twice.
    """
    _once("station", [station.station for station in file.stations])
    stations = {station.station: station for station in choice.stations}
    for one in file.stations:
        former = stations.get(one.station, StationChoice(station=one.station))
        stations[one.station] = replace(former, recipes=one.recipes)
    return replace(choice, stations=tuple(stations.values()))


def compose(
    current: Desired,
    choice: DesiredChoice,
    *,
    versions: Versions,
    lost: Collection[str],
    new_id: Callable[[], str],
    new_salt: Callable[[], str],
) -> Desired:
    """Return the next document, or `current` itself where the choice changes nothing.

    Args:
        versions: the registry's versions that the choice names, by (model, release).
        lost: ids of the document's deployments that ended, and whose version does not run there.

    Raises:
        LinesideError: `resource.not_found` for an unknown release, `request.invalid` for a name given twice or a
            number or code that asks for two recipes, `deployment.out_of_bounds` for a parameter the model does not
            allow.
    """
    _once("model", [model.model for model in choice.models])
    _once("station", [station.station for station in choice.stations])
    former = {model.model: model for model in current.models}
    models = tuple(_model(one, former.get(one.model), versions, lost, new_id) for one in choice.models)
    manifests = {one.model: versions[one.model, one.release].manifest for one in choice.models}
    stations = {station.station: station for station in current.stations}
    following = replace(
        current,
        models=models,
        stations=tuple(_station(one, stations.get(one.station), manifests, new_salt) for one in choice.stations),
        settings=choice.settings,
    )
    return current if following == current else replace(following, revision=current.revision + 1)


def without_deployment(current: Desired, deployment_id: str, former: DesiredModel | None) -> Desired:
    """Return the document after a deployment was taken back, or `current` itself where it does not name it.

    Args:
        former: what ran before, with its own deployment; None takes the model out of the document.
    """
    models: list[DesiredModel] = []
    for model in current.models:
        if model.deployment_id != deployment_id:
            models.append(model)
        elif former is not None:
            shadow = model.shadow if model.shadow != former.active else None
            models.append(replace(former, shadow=shadow, shadow_rate=model.shadow_rate if shadow else SHADOW_RATE))
    following = replace(current, models=tuple(models))
    return current if following == current else replace(following, revision=current.revision + 1)


def misfits(document: Desired, manifest: Manifest) -> list[str]:
    """Return a sentence for each view's parameters that a manifest does not allow, of the recipes that name its model.

    A document that `compose` made has none. Where a former version comes back, there may be some: the device refuses
    such a recipe, and keeps its revision that judged with that version where it can.
    """
    return [
        f"{_place(station.station, recipe.id, name)}: {' '.join(refused)}"
        for station in document.stations
        for recipe in station.recipes
        for name, view in recipe.views.items()
        if view.model == manifest.name and (refused := parameters_of(manifest, view.parameters)[1])
    ]


def _model(
    choice: ModelChoice,
    former: DesiredModel | None,
    versions: Versions,
    lost: Collection[str],
    new_id: Callable[[], str],
) -> DesiredModel:
    version = _version(versions, choice.model, choice.release)
    same = former is not None and former.active == version.digest
    again = choice.retry and former is not None and former.deployment_id in lost
    return DesiredModel(
        model=choice.model,
        active=version.digest,
        release=choice.release,
        deployment_id=former.deployment_id if former is not None and same and not again else new_id(),
        shadow=_shadow(choice, versions),
        shadow_rate=choice.shadow_rate if choice.shadow is not None else SHADOW_RATE,
    )


def _shadow(choice: ModelChoice, versions: Versions) -> str | None:
    if choice.shadow is None:
        return None
    if choice.shadow == choice.release:
        raise LinesideError(
            "request.invalid",
            f"Release {choice.shadow} of {choice.model} cannot be the shadow of itself.",
            "Choose another release as shadow, or none.",
        )
    return _version(versions, choice.model, choice.shadow).digest


def _version(versions: Versions, model: str, release: int) -> Version:
    version = versions.get((model, release))
    if version is None:
        raise LinesideError(
            "resource.not_found",
            f"There is no release {release} of the model {model!r}.",
            "See `lineside-fleet models list`, or push it.",
        )
    return version


def _station(
    choice: StationChoice,
    former: DesiredStation | None,
    manifests: Mapping[str, Manifest],
    new_salt: Callable[[], str],
) -> DesiredStation:
    _once(f"recipe of the station {choice.station!r}", [recipe.id for recipe in choice.recipes])
    recipes = {recipe.id: recipe for recipe in former.recipes} if former is not None else {}
    for recipe in choice.recipes:
        for name, view in recipe.views.items():
            _check_bounds(_place(choice.station, recipe.id, name), view, manifests)
    following = tuple(_recipe(recipe, recipes.get(recipe.id)) for recipe in choice.recipes)
    clashes = recipe_rules.clashes(following)
    if clashes:
        raise LinesideError(
            "request.invalid",
            f"Station {choice.station}: {' '.join(clashes)}",
            "Let each number and each code ask for one recipe.",
        )
    return DesiredStation(
        station=choice.station,
        recipes=following,
        sampling=_sampling(choice.sampling, former.sampling if former is not None else None, new_salt),
    )


def _recipe(choice: RecipeChoice, former: Recipe | None) -> Recipe:
    same = Recipe(
        id=choice.id,
        revision=former.revision if former is not None else 1,
        views=choice.views,
        number=choice.number,
        codes=choice.codes,
        unsure=choice.unsure,
        standstill=choice.standstill,
    )
    return same if former is None or same == former else replace(same, revision=former.revision + 1)


def _sampling(
    choice: SamplingChoice | None, former: SamplingPlan | None, new_salt: Callable[[], str]
) -> SamplingPlan | None:
    if choice is None:
        return None
    if former is not None and (former.floor_rate, former.gate_rate) == (choice.floor_rate, choice.gate_rate):
        return former
    return SamplingPlan(
        revision=former.revision + 1 if former is not None else 1,
        salt=new_salt(),
        floor_rate=choice.floor_rate,
        gate_rate=choice.gate_rate,
    )


def _check_bounds(place: str, view: ViewRecipe, manifests: Mapping[str, Manifest]) -> None:
    manifest = manifests.get(view.model)
    refused = parameters_of(manifest, view.parameters)[1] if manifest is not None else []
    if refused:
        raise LinesideError(
            "deployment.out_of_bounds", f"{place}: {' '.join(refused)}", "Choose values within the bounds."
        )


def _place(station: str, recipe: str, view: str) -> str:
    return f"Station {station}, recipe {recipe}, view {view}"


def _once(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LinesideError("request.invalid", f"The {what} {twice[0]!r} is named twice.", "Name each once.")


def _station_choice(station: DesiredStation) -> StationChoice:
    sampling = station.sampling
    return StationChoice(
        station=station.station,
        recipes=tuple(
            RecipeChoice(
                id=recipe.id,
                views=recipe.views,
                number=recipe.number,
                codes=recipe.codes,
                unsure=recipe.unsure,
                standstill=recipe.standstill,
            )
            for recipe in station.recipes
        ),
        sampling=SamplingChoice(floor_rate=sampling.floor_rate, gate_rate=sampling.gate_rate) if sampling else None,
    )
