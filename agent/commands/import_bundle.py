"""`lineside import`: bring a version from a stick or folder, through the same checks as one from the fleet."""

from __future__ import annotations

import argparse
import difflib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.commands import models_orders, ordering, running
from agent.commands import models_scene as scenes
from wire import command_line
from wire.errors import LinesideError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.deploy.attempt import Attempt
    from agent.deploy.bundle import Staged
    from agent.deploy.bundle_search import Found, Unusable
    from agent.deploy.inventory import Inventory
    from agent.status import Status

_HEAD: Final = ("MODEL", "RELEASE", "SIZE", "PATH")
_MIB: Final = 1024 * 1024
_TELL_EVERY_BYTES: Final = 16 * _MIB


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser(
        "import",
        help="bring a model version from a stick or folder onto this device and have it run",
        description="Bring a model version from a stick or folder onto this device. It is copied, checked byte for "
        "byte, tested beside the line and swapped in between two parts, exactly like one from the fleet; then it is "
        "in probation. The fleet learns of it when the device meets it again.",
        epilog="Exit status: 0 it judges parts, waits for something that is said, or the order waits for an agent; "
        "2 several packages lie there and none was named; 5 refused by a rule; 6 the package or the model is at "
        "fault; 7 there is nothing; 9 the disk or the stick.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="packed package, package folder, or a stick's path")
    parser.add_argument("--model", metavar="MODEL", help="which, where several models lie there")
    parser.add_argument("--release", type=int, metavar="N", help="which, where several releases lie there")
    ordering.add_arguments(parser, below=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import a version."""
    from agent.deploy import bundle
    from agent.deploy.bundle_search import search

    found, damaged = search(args.bundle)
    chosen = _choose(args, found, damaged)
    data_dir = running.data_dir_of(args)
    if not data_dir.is_dir():
        raise LinesideError(
            "resource.not_found",
            f"{data_dir}: no agent has its files there.",
            "Name its settings or its data folder: --config agent.toml, or --data-dir DIR.",
        )
    ordering.may_write(data_dir)
    status, agent_runs = scenes.last_word(args)
    inventory = _inventory(data_dir, status if agent_runs else None)
    _refuse_early(chosen, inventory, chosen.digest)
    for sentence in _remarks(chosen, inventory, status):
        command_line.say(sentence)
    ordering.ask(args)
    root = data_dir / "models"
    bundle.sweep(root)
    try:
        staged = bundle.stage(
            chosen,
            root,
            keep_free_bytes=_keep_free_bytes(args),
            disk=ordering.disk_of(data_dir),
            progress=_Progress(chosen.bytes),
        )
    finally:  # also after Ctrl-C, and what a former import was killed over: the agent must be able to remove it
        ordering.hand_over_all(data_dir, root / bundle.FOLDER)
    try:
        _refuse_early(chosen, inventory, staged.digest)
        return _order(args, data_dir, staged)
    except LinesideError:
        if not _is_wanted(data_dir, staged):
            bundle.discard(root, staged.digest)
        raise


def _choose(args: argparse.Namespace, found: tuple[Found, ...], damaged: tuple[Unusable, ...]) -> Found:
    """Return the one package that is meant; list them where that is not clear."""
    fitting = [one for one in found if args.model in (None, one.model) and args.release in (None, one.release)]
    is_named = args.model is not None or args.release is not None
    if len(fitting) == 1 and (is_named or not damaged):
        return fitting[0]
    for line in command_line.table(_HEAD, [_row(one) for one in found]):
        print(line)
    for one in damaged:
        command_line.show(f"UNUSABLE  {one.path}: {one.error.message}")
    if fitting:
        what = "Several packages" if len(fitting) > 1 else "A package, and others that are damaged,"
        how = "Name one by its path." if is_named else "Name one: --model MODEL, --release N, or its path."
        raise LinesideError("usage.invalid", f"{what} lie in {args.bundle}: nothing was done.", how)
    wanted = " ".join(f"{word} {value}" for word, value in (("model", args.model), ("release", args.release)) if value)
    if not is_named:
        raise damaged[0].error
    models = sorted({one.model for one in found})
    near = difflib.get_close_matches(args.model or "", models, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}? " if near and near[0] != args.model else ""
    raise LinesideError(
        "resource.not_found",
        f"There is no usable {wanted} in {args.bundle}.",
        f"{hint}There is: {', '.join(f'{one.model} release {one.release}' for one in found) or 'none'}.",
    )


def _row(found: Found) -> tuple[str, ...]:
    return found.model, str(found.release), scenes.mb(found.bytes), str(found.path)


def _inventory(data_dir: Path, status: Status | None) -> Inventory:
    from agent.deploy import inventory

    try:
        found = inventory.read(data_dir, status.models if status is not None else ())
    except LinesideError as error:
        if error.code != "resource.not_found":
            raise
        return inventory.Inventory()
    return scenes.up_to_date(found, status) if status is not None else found


def _refuse_early(chosen: Found, inventory: Inventory, digest: str | None) -> None:
    """Refuse what the agent would refuse, before anything is copied where that is known by then."""
    from agent.deploy import order_rules

    attempt = inventory.attempt(chosen.model)
    if attempt is not None and order_rules.keeps_others_out(attempt):
        raise LinesideError(
            "resource.conflict",
            f"{chosen.model} release {attempt.release} is in {scenes.state_words(attempt)}.",
            f"Let it pass, or end it first: lineside models rollback {chosen.model}",
        )
    there = inventory.by_digest(digest)
    if there is not None and {"runs", "current"} <= set(there.roles):
        raise LinesideError(
            "resource.conflict", f"{scenes.name_of(there)} is the version that runs: there is nothing to do.", ""
        )


def _remarks(chosen: Found, inventory: Inventory, status: Status | None) -> Iterator[str]:
    """Say what is going to happen, and what the person may not have meant."""
    digest = f" ({chosen.digest[:12]})" if chosen.digest is not None else ""
    known = {one.model for one in status.models} if status is not None else set()
    if known and chosen.model not in known:
        near = difflib.get_close_matches(chosen.model, sorted(known), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        yield (
            f"WARNING: no station of this device has a recipe that needs {chosen.model}; needed are: "
            f"{', '.join(sorted(known))}.{hint} It would be tested, but not made active, and would not stay."
        )
    runs = inventory.having(chosen.model, "runs") or inventory.having(chosen.model, "current")
    if runs is not None and runs.release is not None and runs.release > chosen.release:
        which = "which runs" if "runs" in runs.roles else "which is loaded at each start"
        yield f"Release {chosen.release} is OLDER than release {runs.release}, {which}."
    elif runs is not None and runs.release == chosen.release and chosen.digest not in (None, runs.digest):
        yield f"A version that calls itself release {runs.release}, too, runs now ({runs.digest[:12]})."
    attempt = inventory.attempt(chosen.model)
    if attempt is not None and not attempt.has_ended:
        state = attempt.state.value.replace("_", " ")
        yield f"The deployment of {chosen.model} release {attempt.release}, now {state}, is given up."
    yield (
        f"{chosen.model} release {chosen.release}{digest}, {scenes.mb(chosen.bytes)}, is copied onto this device, "
        "checked and tested beside the line, then swapped in between two parts and watched."
    )


def _order(args: argparse.Namespace, data_dir: Path, staged: Staged) -> int:
    from agent.deploy.orders import Order, OrderKind
    from wire.mint import Mint

    order = Order(
        id=Mint().uuid7(),
        kind=OrderKind.IMPORT,
        model=staged.model,
        digest=staged.digest,
        release=staged.release,
        by=ordering.who(args),
        at=datetime.now(UTC),
    )
    sys.stderr.write(f"Copied and compared: version {staged.digest}\n")
    if ordering.give(args, data_dir, order) is None:
        return 0
    last = ordering.follow(args, data_dir, order, _judges_parts)
    if last is not None and scenes.ended_badly(last):
        raise models_orders.failed(last)
    if last is not None and (last.has_ended or _judges_parts(last)):
        print(f"{staged.model} release {staged.release} ({staged.digest[:12]}) runs.")
        if not last.has_ended:
            sys.stderr.write(f"It is watched now; see: lineside models show {staged.model}\n")
    return 0


def _judges_parts(attempt: Attempt) -> bool:
    return attempt.state.value == "probation"


def _is_wanted(data_dir: Path, staged: Staged) -> bool:
    """Tell whether somebody still needs what was staged: an order that waits, or a deployment."""
    from agent.deploy.orders import Orders

    if any(order.digest == staged.digest for order in Orders(data_dir / "models" / "orders").waiting()):
        return True
    attempt = _inventory(data_dir, None).attempt(staged.model)
    return attempt is not None and attempt.digest == staged.digest and not attempt.has_ended


def _keep_free_bytes(args: argparse.Namespace) -> int:
    from agent import settings
    from agent.deploy.settings import DeploySettings

    deploy = settings.load(args.config).deploy if args.config is not None else DeploySettings()
    return deploy.keep_free_mb * _MIB


class _Progress:
    """Tells how far the copy is, where a person sees it."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._copied_bytes = 0
        self._told_bytes = 0

    def __call__(self, count_bytes: int) -> None:
        self._copied_bytes += count_bytes
        if sys.stderr.isatty() and self._copied_bytes - self._told_bytes >= _TELL_EVERY_BYTES:
            self._told_bytes = self._copied_bytes
            sys.stderr.write(f"copied {scenes.mb(self._copied_bytes)} of {scenes.mb(self._total_bytes)}\n")
