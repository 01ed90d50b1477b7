"""`lineside models verify`: every byte of the versions on this device against its digest."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from agent.commands import models_scene as scenes
from agent.commands import running
from wire import command_line
from wire.errors import LinesideError

if TYPE_CHECKING:
    from agent.commands.models_scene import Scene
    from agent.deploy.inventory import Version

SCHEMA: Final = "lineside.model-verify/1"
_LOOKS_AGAIN: Final = 5
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
    results = [result for version in wanted if (result := _settled(args, scene, version)) is not None]
    if args.json:
        listed = [
            {
                "model": result.version.model,
                "release": result.version.release,
                "digest": result.version.digest,
                "roles": result.version.roles,
                "damage": result.damage,
                "incomplete": bool(result.damage) and not result.is_damaged,
            }
            for result in results
        ]
        command_line.print_json(SCHEMA, {"versions": listed})
    else:
        for result in results:
            _say(result)
    damaged = [result.version for result in results if result.is_damaged]
    if damaged:
        names = ", ".join(scenes.name_of(version) for version in damaged)
        raise LinesideError("storage.corrupt", f"Damaged on this device: {names}.", _what_to_do(damaged))
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """What one look at a version found.

    Args:
        deployment: the latest of its model, and where it stands.
        damage: what is wrong, a sentence each.
        is_coming: its files need not be all there yet.
        is_moving: no two looks found the same, and deployments went on between them.
    """

    version: Version
    deployment: tuple[str, str] | None
    damage: tuple[str, ...]
    is_coming: bool
    is_moving: bool = False

    @property
    def is_damaged(self) -> bool:
        return bool(self.damage) and not self.is_coming and not self.is_moving


def _settled(args: argparse.Namespace, scene: Scene, version: Version) -> _Result | None:
    """Hash a version, once more where it may have been changed meanwhile; None where the agent has removed it.

    A running agent may be making or removing a version while it is hashed. So what is wrong counts where nothing moved
    between two looks, or where every look found the very same.
    """
    result = _look(scene, version)
    damages = {result.damage}
    for _ in range(_LOOKS_AGAIN):
        if not scene.agent_runs or not result.is_damaged:
            return result
        time.sleep(_LOOK_AGAIN_S)
        scene = scenes.look(args)
        again = scene.inventory.by_digest(version.digest)
        if again is None:
            return None
        before, result = result, _look(scene, again)
        if result == before:
            return result
        damages.add(result.damage)
    return replace(result, is_moving=len(damages) > 1)


def _look(scene: Scene, version: Version) -> _Result:
    from agent.deploy import inspect_files

    attempt = scene.inventory.attempt(version.model)
    return _Result(
        version=version,
        deployment=(attempt.deployment_id, attempt.state.value) if attempt is not None else None,
        damage=inspect_files.damage(scene.data_dir / "models", version.digest),
        is_coming=_is_coming(scene, version),
    )


def _say(result: _Result) -> None:
    name = scenes.name_of(result.version)
    if not result.damage:
        print(f"{name}: whole, {scenes.mb(result.version.bytes)}")
    elif result.is_coming:
        print(f"{name}: still on its way")
    elif result.is_moving:
        print(f"{name}: being changed at this moment; verify it again when no deployment is under way")
    else:
        print(f"{name}: DAMAGED")
        for sentence in result.damage:
            command_line.show(f"  {sentence}")


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
