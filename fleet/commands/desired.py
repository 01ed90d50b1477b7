"""`lineside-fleet desired`: what a device should run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fleet.commands import client, table
from wire import command_line
from wire.errors import LinesideError

if TYPE_CHECKING:
    from fleet.deployments.document import DesiredChoice, ModelChoice, RecipesFile, StationChoice
    from wire.desired import Desired

_RECIPE_HEAD: Final = ("RECIPE", "REVISION", "NUMBER", "CODES", "UNSURE", "STANDSTILL", "VIEWS")


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("desired", help="say what a device should run")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    change = verbs.add_parser("set", help="change the desired document; what is not named stays as it is")
    change.add_argument("device", metavar="DEVICE")
    change.add_argument(
        "--model", action="append", default=[], metavar="NAME=RELEASE", help="run this release (repeatable)"
    )
    change.add_argument("--remove-model", action="append", default=[], metavar="NAME", help="no longer run it")
    change.add_argument(
        "--shadow",
        action="append",
        default=[],
        metavar="NAME=RELEASE",
        help="let this release judge the same parts beside the active one, for nobody on the line (repeatable)",
    )
    change.add_argument(
        "--shadow-rate", type=float, metavar="RATE", help="share of parts the shadow sees, above 0 to 1 (default: 0.25)"
    )
    change.add_argument("--remove-shadow", action="append", default=[], metavar="NAME", help="no longer shadow it")
    change.add_argument("--retry", action="store_true", help="deploy the same version again: it failed, or gave way")
    change.add_argument("--station", metavar="STATION", help="the station --sampling-floor is meant for")
    change.add_argument(
        "--sampling-floor", type=float, metavar="RATE", help="share of parts whose pictures are kept, above 0 to 1"
    )
    change.add_argument(
        "--recipes",
        type=Path,
        metavar="FILE",
        help="give each station named in this file (TOML) the file's recipes, and no others",
    )
    client.add_arguments(change)
    change.set_defaults(run=run_set)
    show = verbs.add_parser("show", help="show the desired document")
    show.add_argument("device", metavar="DEVICE")
    client.add_arguments(show)
    client.add_json(show)
    show.set_defaults(run=run_show)


def run_set(args: argparse.Namespace) -> int:
    """Read the document, change it, and write it back unless somebody changed it meanwhile."""
    from fleet.deployments import document
    from wire import codec
    from wire.desired import Desired

    models = [_model_choice(text, retry=args.retry) for text in args.model]
    if (args.station is None) != (args.sampling_floor is None):
        raise LinesideError("usage.invalid", "--station and --sampling-floor belong together.", "Give both or none.")
    recipes = _recipes_of(args.recipes) if args.recipes is not None else None
    shadows = {one.model: one.release for one in (_model_choice(text, retry=False) for text in args.shadow)}
    if args.shadow_rate is not None and not 0.0 < args.shadow_rate <= 1.0:
        raise LinesideError("usage.invalid", "--shadow-rate is above 0 and at most 1.", "For example: 0.25")
    nothing = not models and not args.remove_model and not shadows and not args.remove_shadow
    if nothing and args.shadow_rate is None and args.station is None and recipes is None:
        raise LinesideError("usage.invalid", "There is nothing to change.", "See lineside-fleet desired set --help.")
    with client.Client(args) as api:
        answer = api.send("GET", f"/devices/{args.device}/desired")
        current = codec.decode(answer.content, Desired)
        choice = _changed(document.choice_of(current, _releases_of_shadows(api, current)), models, args)
        choice = _shadowed(choice, shadows, args)
        if recipes is not None:
            choice = document.with_recipes(choice, recipes)
        written = api.send(
            "PUT",
            f"/devices/{args.device}/desired",
            content=codec.encode(choice),
            headers={"If-Match": answer.headers["ETag"], "Content-Type": "application/json"},
        )
    following = codec.decode(written.content, Desired)
    same = following.revision == current.revision
    word = f"is at revision {following.revision}, as before" if same else f"is now at revision {following.revision}"
    sys.stderr.write(f"{args.device} {word}.\n")
    for sentence in _not_anew(current, following, models):
        sys.stderr.write(f"note: {sentence}\n")
    for sentence in _without_model(following):
        command_line.say(f"note: {sentence}")
    print(following.revision)
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Show the document."""
    with client.Client(args) as api:
        found = api.send("GET", f"/devices/{args.device}/desired").json()
    if args.json:
        client.print_json("desired", {"desired": found})
        return 0
    command_line.show(f"{found['device']}  revision {found['revision']}")
    rows = [
        [one["model"], str(one["release"]), one["active"][:12], one["deployment_id"], _shadow_words(one)]
        for one in found["models"]
    ]
    table.print_table(("MODEL", "RELEASE", "DIGEST", "DEPLOYMENT", "SHADOW"), rows)
    for station in found["stations"]:
        sampling = station["sampling"]
        floor = f"floor {sampling['floor_rate']}, revision {sampling['revision']}" if sampling else "the device's own"
        own = "" if station["recipes"] else "; recipes: the device's own"
        print()
        command_line.show(f"station {station['station']}: sampling {floor}{own}")
        if station["recipes"]:
            table.print_table(_RECIPE_HEAD, [_recipe_row(recipe) for recipe in station["recipes"]])
    return 0


def _shadow_words(model: dict[str, Any]) -> str:
    return f"{model['shadow'][:12]} at {model['shadow_rate']:g}" if model["shadow"] is not None else "-"


def _recipe_row(recipe: dict[str, Any]) -> list[str]:
    views = "; ".join(f"{name}: {_view_words(view)}" for name, view in recipe["views"].items())
    number = str(recipe["number"]) if recipe["number"] is not None else "-"
    return [
        recipe["id"],
        str(recipe["revision"]),
        number,
        " ".join(recipe["codes"]) or "-",
        recipe["unsure"],
        "yes" if recipe["standstill"] else "no",
        views,
    ]


def _view_words(view: dict[str, Any]) -> str:
    words = [f"{name}={value:g}" for name, value in view["parameters"].items()]
    camera = view["camera"] or {}
    words += [f"{name}={value:g}" for name, value in camera.items() if value is not None and name != "tolerance"]
    return " ".join([view["model"], *words])


def _not_anew(current: Desired, following: Desired, asked: list[ModelChoice]) -> list[str]:
    """Return a sentence for each model that was named, and for which no deployment begins."""
    former = {model.deployment_id for model in current.models}
    kept = {model.model for model in following.models if model.deployment_id in former}
    found = []
    for one in asked:
        why = f"`lineside-fleet why-not {following.device} {one.model}` tells where that stands"
        if one.model in kept and one.retry:
            found.append(f"{one.model}={one.release} is on its way, or runs, so that --retry asks for nothing: {why}.")
        elif one.model in kept:
            found.append(
                f"{one.model}={one.release} was asked for already: {why}, and --retry asks anew where it has ended."
            )
    return found


def _without_model(document: Desired) -> list[str]:
    """Return a sentence for each model that a recipe needs and the device is not asked to run."""
    known = {model.model for model in document.models}
    wanted: dict[str, str] = {}
    for station in document.stations:
        for recipe in station.recipes:
            for view in recipe.views.values():
                wanted.setdefault(view.model, recipe.id)
    return [
        f"the recipe {recipe} needs the model {model}, which {document.device} is not asked to run yet: "
        f"--model {model}=RELEASE."
        for model, recipe in sorted(wanted.items())
        if model not in known
    ]


def _recipes_of(path: Path) -> RecipesFile:
    from fleet.deployments.document import RecipesFile
    from wire import strict_toml

    return strict_toml.read(path).value_of(RecipesFile)


def _model_choice(text: str, *, retry: bool) -> ModelChoice:
    from fleet.deployments.document import ModelChoice

    name, equals, release = text.partition("=")
    if not equals or not release.isdecimal() or not release.isascii() or int(release) < 1:
        raise LinesideError("usage.invalid", f"{text!r} is not NAME=RELEASE.", "For example: --model parts=2")
    return ModelChoice(model=name, release=int(release), retry=retry)


def _releases_of_shadows(api: client.Client, current: Desired) -> dict[str, int]:
    """Return the release of each shadow's digest, which the document does not tell."""
    found: dict[str, int] = {}
    for model in current.models:
        if model.shadow is not None:
            versions = api.items(f"/models/{model.model}/versions")
            found |= {one["digest"]: one["release"] for one in versions if one["digest"] == model.shadow}
            if model.shadow not in found:
                sys.stderr.write(
                    f"note: the shadow {model.shadow[:12]} of {model.model} is not in the registry; it is taken out.\n"
                )
    return found


def _shadowed(choice: DesiredChoice, shadows: dict[str, int], args: argparse.Namespace) -> DesiredChoice:
    from dataclasses import replace

    unknown = sorted((shadows.keys() | set(args.remove_shadow)) - {one.model for one in choice.models})
    if unknown:
        raise LinesideError(
            "usage.invalid",
            f"{args.device} is not asked to run {unknown[0]}: a shadow needs an active version beside it.",
            f"Name one: --model {unknown[0]}=RELEASE",
        )
    models = []
    for one in choice.models:
        shadow = shadows.get(one.model, None if one.model in args.remove_shadow else one.shadow)
        if shadow == one.release and one.model not in shadows:
            sys.stderr.write(f"note: release {shadow} of {one.model} is the active one now, and no shadow any more.\n")
            shadow = None
        named = args.shadow_rate is not None and (one.model in shadows or not shadows)
        rate = args.shadow_rate if named else one.shadow_rate
        models.append(replace(one, shadow=shadow, shadow_rate=rate))
    return replace(choice, models=tuple(models))


def _changed(choice: DesiredChoice, models: list[ModelChoice], args: argparse.Namespace) -> DesiredChoice:
    from dataclasses import replace

    former = {one.model: one for one in choice.models}
    asked = [
        replace(one, shadow=former[one.model].shadow, shadow_rate=former[one.model].shadow_rate)
        if one.model in former
        else one
        for one in models
    ]
    named = {one.model: one for one in [*choice.models, *asked] if one.model not in args.remove_model}
    stations = {one.station: one for one in choice.stations}
    if args.station is not None:
        stations[args.station] = _sampled(stations.get(args.station), args.station, args.sampling_floor)
    return replace(choice, models=tuple(named.values()), stations=tuple(stations.values()))


def _sampled(former: StationChoice | None, station: str, floor_rate: float) -> StationChoice:
    from dataclasses import replace

    from fleet.deployments.document import SamplingChoice, StationChoice

    current = former if former is not None else StationChoice(station=station)
    sampling = current.sampling if current.sampling is not None else SamplingChoice()
    return replace(current, sampling=replace(sampling, floor_rate=floor_rate))
