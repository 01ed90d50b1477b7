"""`lineside models rollback`, `confirm` and `gc`: what is going to happen, the order, and what came of it."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from agent.commands import models_scene as scenes
from agent.commands import ordering, running
from wire import command_line
from wire.errors import LinesideError

if TYPE_CHECKING:
    from agent.commands.models_scene import Scene
    from agent.deploy.attempt import Attempt
    from agent.deploy.inventory import Version
    from agent.deploy.orders import Order, OrderKind

GC_SCHEMA: Final = "lineside.model-gc/1"
_SEEN_RUNNING_WITHIN_S: Final = 10.0


def add_verbs(verbs: Any) -> None:
    """Mount the verbs."""
    rollback = verbs.add_parser(
        "rollback",
        help="have the version before run again",
        description="Have the version before run again. It needs no network. Where a version is in probation, that one "
        "is taken out; otherwise the version kept as `previous` is tested on this device and swapped in.",
        epilog="Exit status: 0 it runs again, or the order waits for an agent; 7 there is nothing to go back to; "
        "others as for all commands.",
    )
    rollback.add_argument("model", metavar="MODEL")
    rollback.add_argument("--reason", default="", metavar="TEXT", help="what whoever wonders should know")
    ordering.add_arguments(rollback)
    rollback.set_defaults(run=run_rollback)
    confirm = verbs.add_parser("confirm", help="let a deployment go on that awaits confirmation")
    confirm.add_argument("model", metavar="MODEL")
    ordering.add_arguments(confirm)
    confirm.set_defaults(run=run_confirm)
    collect = verbs.add_parser("gc", help="remove versions and downloads that nothing refers to")
    collect.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    ordering.add_arguments(collect)
    running.add_json(collect, below=True)
    collect.set_defaults(run=run_collect)


def run_rollback(args: argparse.Namespace) -> int:
    """Go back to the version before."""
    from agent.deploy.orders import OrderKind

    scene = scenes.look(args)
    model = scenes.model_of(scene, args.model)
    back, sentences = way_back(scene, model)
    for sentence in sentences:
        command_line.say(sentence)
    ordering.ask(args)
    order = _order(args, OrderKind.ROLLBACK, model, back, reason=args.reason)
    if ordering.give(args, scene.data_dir, order) is None:
        return 0
    attempt = ordering.follow(args, scene.data_dir, order, lambda _: False)
    return _end(args, attempt, back)


def way_back(scene: Scene, model: str) -> tuple[Version, list[str]]:
    """Return the version that runs after a rollback, and what will happen, in sentences.

    Raises:
        LinesideError: `resource.not_found` where there is nothing to go back to.
    """
    from agent.deploy import order_rules
    from agent.deploy.facts import Installed

    inventory = scene.inventory
    attempt = inventory.attempt(model)
    under_way = attempt if attempt is not None and not attempt.has_ended else None
    if under_way is not None and under_way.state.value in ("activating", "probation"):
        back = inventory.by_digest(under_way.former)
        if back is None:
            raise LinesideError(
                "resource.not_found",
                f"{model} release {under_way.release} is the first version on this device: there is no way back.",
                "Bring another one: lineside import BUNDLE.",
            )
        return back, [
            f"{model} release {under_way.release} ({under_way.digest[:12]}) is in {scenes.state_words(under_way)}.",
            f"It is taken out between two parts, its deployment ends, and {_release(back)} runs again.",
        ]
    runs = inventory.having(model, "runs") or inventory.having(model, "current")
    current, previous = inventory.having(model, "current"), inventory.having(model, "previous")
    installed = Installed(
        current=current.digest if current is not None else None,
        previous=previous.digest if previous is not None else None,
    )
    back = inventory.by_digest(order_rules.way_back(attempt, installed))
    if back is None:
        only = f"only {_release(runs)} is on this device" if runs is not None else "no version of it is installed"
        raise LinesideError(
            "resource.not_found",
            f"There is no version of {model} to go back to: {only}.",
            "Bring one: lineside import BUNDLE.",
        )
    sentences = []
    if under_way is not None:
        sentences.append(
            f"The deployment of {model} release {under_way.release}, now {under_way.state.value.replace('_', ' ')}, "
            "is given up."
        )
    now = "runs now" if runs is not None and "runs" in runs.roles else "is the one loaded at each start"
    former = f"{model}: {_release(runs)} {now}. " if runs is not None else ""
    sentences.append(
        f"{former}{_release(back)[:1].upper()}{_release(back)[1:]} is checked and tested on this device, then runs "
        "from one part to the next; no maintenance window is waited for."
    )
    if runs is not None and "current" in runs.roles:
        sentences.append(f"{_release(runs)[:1].upper()}{_release(runs)[1:]} stays here as the previous one.")
    return back, sentences


def run_confirm(args: argparse.Namespace) -> int:
    """Let a deployment go on that awaits confirmation."""
    from agent.deploy.orders import OrderKind

    scene = scenes.look(args)
    model = scenes.model_of(scene, args.model)
    attempt = scene.inventory.attempt(model)
    hold = attempt.hold if attempt is not None else None
    if attempt is None or hold is None or hold.reason.value != "awaiting_confirmation":
        now = "nothing is being deployed"
        if attempt is not None and not attempt.has_ended:
            now = f"release {attempt.release} is in {scenes.state_words(attempt)}"
        raise LinesideError(
            "resource.not_found", f"{model} awaits no confirmation: {now}.", f"See: lineside models show {model}"
        )
    command_line.say(f"{model} release {attempt.release} ({attempt.digest[:12]}) is in {scenes.state_words(attempt)}.")
    command_line.say(f"What you confirm: {hold.text or 'that it is made active.'}")
    ordering.ask(args)
    version = scene.inventory.by_digest(attempt.digest)
    order = _order(args, OrderKind.CONFIRM, model, version)
    if ordering.give(args, scene.data_dir, order) is None:
        return 0
    last = ordering.follow(
        args, scene.data_dir, order, lambda seen: seen.state.value == "probation" and seen.hold is None
    )
    if last is not None and scenes.ended_badly(last):
        raise failed(last)
    return 0


def run_collect(args: argparse.Namespace) -> int:
    """Show what nothing refers to, and have it removed."""
    from agent.deploy.inventory import unneeded
    from agent.deploy.orders import OrderKind

    scene = scenes.look(args)
    versions, rest = unneeded(scene.data_dir / "models", scene.inventory)
    freed_bytes = sum(size for _, size in rest)
    if args.json:
        command_line.print_json(
            GC_SCHEMA,
            {
                "versions": versions,
                "files": [{"digest": digest, "bytes": size} for digest, size in rest],
                "bytes": freed_bytes,
                "dry_run": args.dry_run,
            },
        )
    else:
        for version in versions:
            print(f"{scenes.name_of(version)}  {scenes.mb(version.bytes)}")
        print(f"{len(rest)} files that nothing refers to, {scenes.mb(freed_bytes)}")
    if args.dry_run or not rest:
        return 0
    ordering.ask(args)
    ordering.give(args, scene.data_dir, _order(args, OrderKind.COLLECT, None, None))
    return 0


def _order(
    args: argparse.Namespace, kind: OrderKind, model: str | None, version: Version | None, reason: str = ""
) -> Order:
    from agent.deploy.orders import Order
    from wire.mint import Mint

    return Order(
        id=Mint().uuid7(),
        kind=kind,
        model=model,
        digest=version.digest if version is not None else None,
        release=version.release if version is not None else None,
        by=ordering.who(args),
        at=datetime.now(UTC),
        reason=command_line.plain(reason)[:200],
    )


def _end(args: argparse.Namespace, attempt: Attempt | None, back: Version) -> int:
    """Say whether the version asked for runs."""
    if attempt is None or not attempt.has_ended:
        return 0
    is_back = attempt.state.value in ("succeeded", "already_installed") or (
        attempt.state.value == "failed_reverted" and attempt.digest != back.digest
    )
    if not is_back:
        raise failed(attempt)
    began_s = time.monotonic()
    while time.monotonic() - began_s < _SEEN_RUNNING_WITHIN_S:
        status, _ = scenes.last_word(args)
        if status is not None and any(one.digest == back.digest for one in status.models):
            print(f"{scenes.name_of(back)} runs.")
            return 0
        time.sleep(ordering.POLL_S)
    print(f"{scenes.name_of(back)} is the version in force; no station infers with it now.")
    return 0


def failed(attempt: Attempt) -> LinesideError:
    """Return the error of a command whose deployment ended badly."""
    from wire.errors import REGISTER

    code = attempt.fault.code if attempt.fault is not None and attempt.fault.code in REGISTER else "resource.conflict"
    return LinesideError(
        code, f"{attempt.model} {scenes.end_words(attempt)}", f"See: lineside models show {attempt.model}"
    )


def _release(version: Version) -> str:
    release = f"release {version.release}" if version.release is not None else "the version"
    return f"{release} ({version.digest[:12]})"
