"""Gives the agent an order, and tells the person beside the machine step by step what comes of it."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.commands import models_scene as scenes
from agent.commands import running
from wire import command_line
from wire.errors import REGISTER, LinesideError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.deploy.attempt import Attempt
    from agent.deploy.durable import Disk
    from agent.deploy.orders import Answer, Order, Orders

POLL_S: Final = 0.2
# The agent's thread may be in the self-test of another version, which ends within its own limits.
ANSWER_TIMEOUT_S: Final = 600.0
FOLLOW_TIMEOUT_S: Final = 1800.0
_PATIENCE_S: Final = 5.0
_STEPS: Final = {
    "queued": "taken",
    "downloading": "copied into the store",
    "verifying": "every byte is compared with its digest",
    "self_testing": "tested on this device, beside the line",
    "staged": "ready; the version in use still runs",
    "activating": "loaded and swapped in between two parts",
    "probation": "judges parts now, and is watched",
}


def add_arguments(parser: argparse.ArgumentParser, *, below: bool = True) -> None:
    """Add what every order has."""
    running.add_arguments(parser, below=below)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--by", metavar="NAME", help="who gives the order (default: who is logged in)")
    parser.add_argument("--no-wait", action="store_true", help="give the order and do not follow it")


def who(args: argparse.Namespace) -> str:
    """Return who gives the order."""
    if args.by:
        return command_line.plain(str(args.by))[:200]
    try:
        return command_line.plain(os.environ.get("SUDO_USER") or getpass.getuser())[:200]
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def ask(args: argparse.Namespace) -> None:
    """Have the person say yes to what was shown.

    Raises:
        LinesideError: `usage.invalid` where nobody can be asked; `resource.conflict` where the answer is no.
    """
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise LinesideError(
            "usage.invalid", "Nobody can be asked here, and nothing was done.", "Say --yes to have it done."
        )
    sys.stderr.write("Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise LinesideError("resource.conflict", "Nothing was done.", "")


def give(args: argparse.Namespace, data_dir: Path, order: Order) -> Answer | None:
    """Leave an order; return the agent's answer, None where no agent runs that could give one now.

    Raises:
        LinesideError: what the agent refused it for; `request.timed_out` where it does not come to it;
            `storage.unusable` where this user may not write there.
    """
    from agent.deploy.orders import Orders

    orders = Orders(data_dir / "models" / "orders", disk_of(data_dir))
    may_write(data_dir)
    orders.give(order)
    if not scenes.last_word(args)[1]:
        sys.stderr.write("No agent runs on this device now: the order is taken up at its next start.\n")
        return None
    if args.no_wait:
        sys.stderr.write("The order is given.\n")
        return None
    answer = _answer(args, orders, order)
    if answer is None:
        sys.stderr.write("The agent does not run any more: the order is taken up at its next start.\n")
        return None
    if not answer.done:
        code = answer.code if answer.code in REGISTER else "resource.conflict"
        raise LinesideError(code, f"The agent did not take the order: {answer.text}", "")
    command_line.say(answer.text)
    return answer


def _answer(args: argparse.Namespace, orders: Orders, order: Order) -> Answer | None:
    """Wait for the agent's word on an order; None where the agent was stopped meanwhile."""
    began_s = time.monotonic()
    has_said = False
    while (answer := orders.answer_of(order.id)) is None:
        if not orders.is_waiting(order.id) and orders.answer_of(order.id) is None:
            raise LinesideError(
                "storage.corrupt",
                "The order has gone without an answer: the agent could not read it, or somebody removed it.",
                "See the agent's log, then give the order again.",
            )
        waited_s = time.monotonic() - began_s
        is_fresh = waited_s <= _PATIENCE_S or scenes.last_word(args)[1]
        if not is_fresh and not _is_alive(args):
            return None
        if waited_s > _PATIENCE_S and is_fresh and not has_said:
            has_said = True
            sys.stderr.write("The agent is busy with another step; the order is next. (Ctrl-C leaves it given.)\n")
        if waited_s > ANSWER_TIMEOUT_S or not is_fresh:
            raise LinesideError(
                "request.timed_out",
                f"The agent has not come to the order for {running.words_of_s(waited_s)}. The order stays; "
                "it is taken up as soon as the agent can.",
                "See `lineside status`, and `lineside models list` for what became of it.",
            )
        time.sleep(POLL_S)
    return answer


def _is_alive(args: argparse.Namespace) -> bool:
    """Tell whether the agent's process is there, though it may be silent."""
    try:
        return running.read(args).runs
    except LinesideError:
        return False


def follow(
    args: argparse.Namespace, data_dir: Path, order: Order, is_enough: Callable[[Attempt], bool]
) -> Attempt | None:
    """Tell each step of the deployment that an order began or changed, until it is far enough or waits for somebody.

    Args:
        is_enough: whether the person need not be told more.

    Returns:
        The last that was seen of it; None where nothing was.
    """
    path = data_dir / "models" / "journal" / f"{order.model}.json"
    began_s = last_s = time.monotonic()
    told = ""
    attempt: Attempt | None = None
    while time.monotonic() - began_s < FOLLOW_TIMEOUT_S:
        attempt = _attempt(path, order, attempt)
        if attempt is not None:
            words = _step_words(attempt)
            if words != told:
                told, last_s = words, time.monotonic()
                command_line.say(f"{datetime.now().astimezone():%H:%M:%S}  {words}")
            if attempt.has_ended or is_enough(attempt):
                return attempt
            if _waits(attempt) and time.monotonic() - last_s > 1.0:
                _say_it_goes_on(attempt)
                return attempt
        if time.monotonic() - last_s > _PATIENCE_S and not scenes.last_word(args)[1]:
            sys.stderr.write("The agent does not run any more: it goes on at its next start.\n")
            return attempt
        time.sleep(POLL_S)
    sys.stderr.write(f"It goes on by itself; see: lineside models show {order.model}\n")
    return attempt


def _attempt(path: Path, order: Order, before: Attempt | None) -> Attempt | None:
    """Return the deployment that an order began, or that obeyed it; what was seen before where there is nothing new."""
    from agent.deploy.inventory import read_journal

    try:
        journal = read_journal(path)
    except (OSError, LinesideError):
        return before  # replaced at this moment
    attempt = journal.attempt
    if attempt is not None and order.id in (attempt.deployment_id, attempt.order):
        return attempt
    for past in journal.past if before is not None else ():
        if before is not None and past.deployment_id == before.deployment_id:  # another one has begun already
            return replace(before, state=past.state, hold=None)
    return before


def _step_words(attempt: Attempt) -> str:
    state = attempt.state.value
    if attempt.has_ended:
        return f"{attempt.model} {scenes.end_words(attempt)}"
    words = f"{attempt.model} release {attempt.release}: {_STEPS.get(state, state)}"
    if attempt.hold is not None and _waits(attempt):
        text = f" {attempt.hold.text}" if attempt.hold.text else ""
        return f"{words}; WAITS: {scenes.hold_words(attempt.hold)}.{text}"
    if attempt.fault is not None:
        return f"{words}; {scenes.then_words(state)}: {attempt.fault.reason}"
    return words


def _waits(attempt: Attempt) -> bool:
    """Tell whether it waits for something that has not come yet."""
    hold = attempt.hold
    return hold is not None and not (attempt.confirmed and hold.reason.value == "awaiting_confirmation")


def _say_it_goes_on(attempt: Attempt) -> None:
    hold = attempt.hold
    if hold is not None and hold.reason.value == "awaiting_confirmation":
        sys.stderr.write(f"It waits for you: lineside models confirm {attempt.model}\n")
    else:
        sys.stderr.write(f"It goes on by itself; see: lineside models show {attempt.model}\n")


def may_write(data_dir: Path) -> None:
    """Refuse where this user cannot leave anything for the agent; raises `storage.unusable`."""
    models = data_dir / "models"
    if models.is_dir():
        may_write_in(models, "Give the order")


def may_write_in(folder: Path, what: str) -> None:
    """Refuse where this user may not write in a folder; raises `storage.unusable`.

    Args:
        what: is to be done by somebody else, in words.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LinesideError(
            "storage.unusable",
            f"This user may not write in {folder}.",
            f"{what} as the user that the agent runs as, or with sudo.",
        )


def disk_of(data_dir: Path) -> Disk:
    """Return what writes so that it belongs to the user the agent runs as, from the first moment, also for root.

    An agent that looks in between could not read it, and Ctrl-C in between would leave it like that.
    """
    from agent.deploy.durable import Disk

    return Disk(owner=_owner(data_dir))


def _owner(data_dir: Path) -> tuple[int, int] | None:
    """Return whom the agent's files belong to; None where this user is not root, and can give nothing away."""
    if os.geteuid() != 0:
        return None
    found = data_dir.stat()
    return found.st_uid, found.st_gid


def hand_over_all(data_dir: Path, folder: Path) -> None:
    """Have all that root has written in a folder belong to the agent's user, who must remove it again."""
    owner = _owner(data_dir)
    if owner is None:
        return
    found = [Path(where, name) for where, folders, files in os.walk(folder) for name in (*folders, *files)]
    for path in (folder.parent, folder, *found):
        try:
            os.chown(path, *owner, follow_symlinks=False)
        except FileNotFoundError:
            continue  # taken already
