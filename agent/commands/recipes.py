"""`lineside recipes`: what each station can judge by, and the choice of it by a person."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

from agent.commands import running
from wire import command_line

if TYPE_CHECKING:
    from agent.status import RecipeStatus

SCHEMA: Final = "lineside.recipe-list/1"
_HEAD: Final = ("STATION", "RECIPE", "IN FORCE", "NUMBER", "CODES", "REVISION", "STATE")
# A recipe is taken between two parts, and preloaded; the agent waits for the part that is in work.
_SELECT_TIMEOUT_S: Final = 20.0


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("recipes", help="show the recipes of the stations, and choose one")
    running.add_arguments(parser)
    running.add_json(parser)
    parser.set_defaults(run=run_list, station=None)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    listing = verbs.add_parser("list", help="show the recipes (the same as no command)")
    listing.add_argument("station", nargs="?", metavar="STATION", help="of this station only")
    running.add_arguments(listing, below=True)
    running.add_json(listing, below=True)
    listing.set_defaults(run=run_list)
    select = verbs.add_parser("select", help="have a station judge by a recipe from its next part on")
    select.add_argument("station", metavar="STATION")
    select.add_argument("recipe", metavar="RECIPE", help="see lineside recipes list")
    running.add_arguments(select, below=True)
    select.set_defaults(run=run_select)


def run_list(args: argparse.Namespace) -> int:
    """Show the recipes."""
    word = running.read(args)
    stations = word.status.stations
    if args.station is not None:
        stations = (running.station_of(word.status, args.station),)
    if args.json:
        listed = [{"station": station.health.station, "recipes": station.recipes} for station in stations]
        command_line.print_json(SCHEMA, {"at": word.status.at, "stations": listed})
        return word.end()
    rows = [_row(station.health.station, recipe) for station in stations for recipe in station.recipes]
    for line in command_line.table(_HEAD, rows):
        print(line)
    for station in stations:
        for recipe in station.recipes:
            if recipe.refusal:
                print(f"{station.health.station}/{recipe.id}: {recipe.refusal}")
    return word.end()


def run_select(args: argparse.Namespace) -> int:
    """Choose a recipe; the agent answers when the station has taken it."""
    status = running.running(args)
    station = running.station_of(status, args.station).health.station
    running.ask(status, "POST", f"/v1/stations/{station}/recipe", {"recipe": args.recipe}, timeout_s=_SELECT_TIMEOUT_S)
    sys.stderr.write(f"{station} judges by {args.recipe} from its next part on.\n")
    return 0


def _row(station: str, recipe: RecipeStatus) -> tuple[str, ...]:
    state = "REFUSED" if recipe.refusal else "NO MODEL YET"
    return (
        station,
        recipe.id,
        "yes" if recipe.active else "-",
        str(recipe.number) if recipe.number is not None else "-",
        " ".join(recipe.codes) or "-",
        str(recipe.revision) if recipe.revision else "the device's own",
        "ready" if recipe.loaded else state,
    )
