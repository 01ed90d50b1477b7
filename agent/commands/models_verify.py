"""`lineside models verify`: every byte of the versions on this device against its digest."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, Final

from agent.commands import models_scene as scenes
from agent.commands import running
from wire import command_line
from wire.errors import LinesideError

if TYPE_CHECKING:
    from agent.commands.models_scene import Scene
    from agent.deploy.inventory import Version

SCHEMA: Final = "lineside.model-verify/1"
_LOOK_AGAIN_S: Final = 0.5


def add_verb(verbs: Any) -> None:
    """Mount the verb."""
    parser = verbs.add_parser(
        "verify",
        help="compare every byte of the versions on this device with its digest",
        epilog="Exit status: 0 all is whole; 7 there is no such model; 9 something is damaged.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL[@RELEASE]", help="only this model, or this version of it")
    running.add_arguments(parser, below=True)
    running.add_json(parser, below=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Hash everything; 9 where something is damaged."""
    from agent.deploy import inventory

    scene = scenes.look(args)
    wanted = scene.inventory.versions
    if args.model is not None:
        model, version = inventory.find(scene.inventory, args.model)
        wanted = (version,) if version is not None else scene.inventory.of(model)
    results = [(version, found) for version in wanted if (found := _damage(args, scene, version)) is not None]
    under_way = [version for version, _ in results if _is_coming(scene, version)]
    if args.json:
        listed = [
            {
                "model": version.model,
                "release": version.release,
                "digest": version.digest,
                "roles": version.roles,
                "damage": found,
                "incomplete": version in under_way,
            }
            for version, found in results
        ]
        command_line.print_json(SCHEMA, {"versions": listed})
    damaged = []
    for version, found in results:
        is_coming = version in under_way
        if not args.json:
            _say(version, found, is_coming=is_coming)
        if found and not is_coming:
            damaged.append(version)
    if damaged:
        names = ", ".join(scenes.name_of(version) for version in damaged)
        raise LinesideError("storage.corrupt", f"Damaged on this device: {names}.", _what_to_do(damaged))
    return 0


def _damage(args: argparse.Namespace, scene: Scene, version: Version) -> tuple[str, ...] | None:
    """Return what is wrong with a version; None where the agent has removed it meanwhile."""
    from agent.deploy import inspect_files

    found = inspect_files.damage(scene.data_dir / "models", version.digest)
    if found and scene.agent_runs:  # which may be making or removing it at this moment
        time.sleep(_LOOK_AGAIN_S)
        if scenes.look(args).inventory.by_digest(version.digest) is None:
            return None
        found = inspect_files.damage(scene.data_dir / "models", version.digest)
    return found


def _say(version: Version, found: tuple[str, ...], *, is_coming: bool) -> None:
    if not found:
        print(f"{scenes.name_of(version)}: whole, {scenes.mb(version.bytes)}")
    elif is_coming:
        print(f"{scenes.name_of(version)}: still on its way")
    else:
        print(f"{scenes.name_of(version)}: DAMAGED")
        for sentence in found:
            print(f"  {sentence}")


def _is_coming(scene: Scene, version: Version) -> bool:
    """Tell whether a version's files need not be all there yet."""
    attempt = scenes.attempt_of(scene.inventory, version)
    if attempt is not None:
        return attempt.state.value in ("queued", "downloading", "verifying")
    return not version.is_whole and not {"runs", "current", "previous"} & set(version.roles)


def _what_to_do(damaged: list[Version]) -> str:
    """Return what a person does about it, the weightiest first."""
    roles = {role for version in damaged for role in version.roles}
    again = "Bring it again: lineside import BUNDLE, or have the fleet deploy it anew."
    if "runs" in roles:
        return f"What runs is in memory and goes on; the next start would take the version before. {again}"
    if "current" in roles:
        return f"The next start would take the version before. {again}"
    if "previous" in roles:
        return f"What runs is whole, but there is no whole version to go back to. {again}"
    return f"Nothing that runs is concerned; `lineside models gc` removes what nobody needs. {again}"
