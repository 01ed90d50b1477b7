"""`lineside models pin` and `unpin`: keep a version on this device, whatever else is collected."""

from __future__ import annotations

import argparse
from typing import Any

from agent.commands import models_scene as scenes
from agent.commands import ordering, running
from wire.errors import LinesideError


def add_verbs(verbs: Any) -> None:
    """Mount the verbs."""
    pin = verbs.add_parser("pin", help="keep a version on this device until it is unpinned")
    pin.add_argument("version", metavar="MODEL@RELEASE", help="or MODEL@ and the first digits of its digest")
    running.add_arguments(pin, below=True)
    pin.set_defaults(run=run_pin)
    unpin = verbs.add_parser("unpin", help="keep a version no longer than it is needed")
    unpin.add_argument("version", metavar="MODEL@RELEASE", help="or MODEL@ and the first digits of its digest")
    running.add_arguments(unpin, below=True)
    unpin.set_defaults(run=run_unpin)


def run_pin(args: argparse.Namespace) -> int:
    """Keep a version."""
    from agent.deploy import inventory
    from agent.deploy.pins import Pins

    scene = scenes.look(args)
    model, version = inventory.find(scene.inventory, args.version)
    if version is None:
        raise _name_one(scene, model)
    ordering.may_write(scene.data_dir)
    is_new = Pins(scene.data_dir / "models", ordering.disk_of(scene.data_dir)).pin(version.digest)
    print(f"{scenes.name_of(version)} is {'pinned' if is_new else 'pinned already'}.")
    return 0


def run_unpin(args: argparse.Namespace) -> int:
    """Keep a version no longer than it is needed."""
    from agent.deploy import inventory
    from agent.deploy.pins import Pins

    scene = scenes.look(args)
    pins = Pins(scene.data_dir / "models", ordering.disk_of(scene.data_dir))
    _, _, which = args.version.partition("@")
    gone = [digest for digest in pins.read() if len(which) >= inventory.DIGITS_AT_LEAST and digest.startswith(which)]
    if len(gone) == 1:  # whatever has become of the version
        digest, name = gone[0], gone[0][:12]
    else:
        model, version = inventory.find(scene.inventory, args.version)
        if version is None:
            raise _name_one(scene, model)
        digest, name = version.digest, scenes.name_of(version)
    ordering.may_write(scene.data_dir)
    was_pinned = pins.unpin(digest)
    print(f"{name} is {'no longer pinned' if was_pinned else 'not pinned'}.")
    return 0


def _name_one(scene: scenes.Scene, model: str) -> LinesideError:
    there = ", ".join(f"{model}@{version.release}" for version in scene.inventory.of(model))
    return LinesideError("usage.invalid", f"Which version of {model}?", f"Name one: {there or 'there is none'}.")
