"""`lineside models`: the versions on this device, which of them runs, and what becomes of them."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

from agent.commands import models_orders, models_pins, models_show, models_verify, running
from agent.commands import models_scene as scenes
from wire import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.commands.models_scene import Scene
    from agent.deploy.inventory import Version

SCHEMA: Final = "lineside.model-versions/1"
_HEAD: Final = ("MODEL", "RELEASE", "DIGEST", "ROLE", "STATE", "SIZE")


def add_parser(subparsers: Any) -> None:
    """Mount the commands."""
    parser = subparsers.add_parser("models", help="show, check, roll back, confirm or pin the versions on this device")
    running.add_arguments(parser)
    running.add_json(parser)
    parser.set_defaults(run=run_list, model=None)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    listing = verbs.add_parser("list", help="show the versions on this device (the same as no command)")
    listing.add_argument("model", nargs="?", metavar="MODEL", help="of this model only")
    running.add_arguments(listing, below=True)
    running.add_json(listing, below=True)
    listing.set_defaults(run=run_list)
    models_show.add_verb(verbs)
    models_verify.add_verb(verbs)
    models_orders.add_verbs(verbs)
    models_pins.add_verbs(verbs)


def run_list(args: argparse.Namespace) -> int:
    """Show the versions; with and without a running agent."""
    scene = scenes.look(args)
    inventory = scene.inventory
    models = inventory.models()
    if args.model is not None:
        models = (scenes.model_of(scene, args.model),)
    versions = [version for model in models for version in inventory.of(model)]
    if args.json:
        listed = [
            {
                "model": version.model,
                "release": version.release,
                "digest": version.digest,
                "roles": version.roles,
                "state": scenes.state_of(inventory, version),
                "hold": scenes.hold_of(inventory, version),
                "bytes": version.bytes,
                "whole": version.is_whole,
            }
            for version in versions
        ]
        command_line.print_json(
            SCHEMA, {"agent_runs": scene.agent_runs, "versions": listed, "orders_waiting": scene.orders}
        )
        return 0
    for line in command_line.table(_HEAD, [_row(scene, version) for version in versions]):
        print(line)
    for line in _remarks(scene, models):
        command_line.show(line)
    if not scene.agent_runs:
        sys.stderr.write("No agent runs on this device now; this is what lies on its disk.\n")
    return 0


def _row(scene: Scene, version: Version) -> tuple[str, ...]:
    return (
        version.model,
        str(version.release) if version.release is not None else "?",
        version.digest[:12],
        ", ".join(version.roles) or "-",
        scenes.state_of(scene.inventory, version) or ("-" if version.is_whole else "NOT WHOLE"),
        scenes.mb(version.bytes),
    )


def _remarks(scene: Scene, models: tuple[str, ...]) -> Iterator[str]:
    for model in models:
        attempt = scene.inventory.attempt(model)
        if attempt is None:
            continue
        if attempt.hold is not None and attempt.hold.text:
            yield f"{model}: {attempt.hold.text}"
        if scenes.ended_badly(attempt):
            yield f"{model}: {scenes.end_words(attempt)}"
    for one in scene.running:
        if one.shadow_trouble and one.model in models:
            yield f"{one.model}: the shadow does not run: {one.shadow_trouble}"
    for order in scene.orders:
        about = f" of {order.model}" if order.model else ""
        yield (
            f"{order.kind.value}{about}, ordered by {order.by or 'nobody named'} "
            f"{scenes.ago(order.at)}, waits for the agent"
        )
