"""What the commands about models look at and speak of: the disk, the agent's last word, and words for both."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.commands import running
from wire.errors import REGISTER, LinesideError

if TYPE_CHECKING:
    from agent.deploy.attempt import Attempt
    from agent.deploy.inventory import Inventory, Version
    from agent.deploy.orders import Order
    from agent.status import Status
    from wire.deployment import Hold, ProbationReport
    from wire.messages import RunningModel

_MB: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One look at a device's models.

    Args:
        status: the agent's last word, None where there is none.
        agent_runs: and it is of now.
        orders: that no agent has taken yet.
    """

    data_dir: Path
    inventory: Inventory
    status: Status | None
    agent_runs: bool
    orders: tuple[Order, ...] = ()

    @property
    def running(self) -> tuple[RunningModel, ...]:
        """What the agent infers with; nothing where it does not run."""
        return self.status.models if self.status is not None and self.agent_runs else ()


def look(args: argparse.Namespace) -> Scene:
    """Look at the disk and at the agent's last word.

    Raises:
        LinesideError: `resource.not_found` where no agent has had models there.
    """
    from agent.deploy import inventory
    from agent.deploy.orders import Orders

    logging.getLogger("agent").setLevel(logging.CRITICAL)  # what is damaged is said in words here
    data_dir = running.data_dir_of(args)
    status, agent_runs = last_word(args)
    found = inventory.read(data_dir, status.models if status is not None and agent_runs else ())
    if status is not None and agent_runs:
        found = up_to_date(found, status)
    return Scene(
        data_dir=data_dir,
        inventory=found,
        status=status,
        agent_runs=agent_runs,
        orders=Orders(data_dir / "models" / "orders").waiting(),
    )


def up_to_date(inventory: Inventory, status: Status) -> Inventory:
    """Return an inventory whose probations are as far as the running agent says; on disk they are a minute old."""
    journals = dict(inventory.journals)
    for one in status.deployments:
        attempt = inventory.attempt(one.model)
        is_same = attempt is not None and not attempt.has_ended and attempt.digest == one.digest
        if attempt is not None and is_same and one.probation is not None:
            journals[one.model] = replace(journals[one.model], attempt=replace(attempt, told=one.probation))
    return replace(inventory, journals=journals)


def last_word(args: argparse.Namespace) -> tuple[Status | None, bool]:
    """Return the agent's last word, and whether it is of now; an agent that is silent has none of now."""
    try:
        word = running.read(args)
    except LinesideError as error:
        if error.code not in ("resource.not_found", "storage.corrupt"):
            raise
        return None, False
    return word.status, word.is_fresh


def model_of(scene: Scene, wish: str) -> str:
    """Return the model a person named; raises `resource.not_found` with the nearest there is."""
    from agent.deploy import inventory

    return inventory.find(scene.inventory, wish.partition("@")[0])[0]


def attempt_of(inventory: Inventory, version: Version) -> Attempt | None:
    """Return the latest deployment of a model where it is of this version and has not ended."""
    attempt = inventory.attempt(version.model)
    if attempt is None or attempt.has_ended or attempt.digest != version.digest:
        return None
    return attempt


def hold_of(inventory: Inventory, version: Version) -> Hold | None:
    """Return what the deployment of a version waits for."""
    attempt = attempt_of(inventory, version)
    return attempt.hold if attempt is not None else None


def state_of(inventory: Inventory, version: Version) -> str:
    """Return where the deployment of a version stands, in words; empty where none is under way."""
    attempt = attempt_of(inventory, version)
    return state_words(attempt) if attempt is not None else ""


def state_words(attempt: Attempt) -> str:
    """Return a state, and what it waits for."""
    words = attempt.state.value.replace("_", " ")
    seen = seen_of(attempt)
    if seen is not None and words == "probation":
        words = f"probation, {progress_words(seen)}"
    if attempt.hold is not None:
        return f"{words}, WAITS: {hold_words(attempt.hold)}"
    if attempt.fault is not None:
        return f"{words}, {then_words(attempt.state.value)}: {attempt.fault.reason}"
    return words


def then_words(state: str) -> str:
    """Return what follows from a fault in a state that is no end."""
    return "taken back" if state in ("activating", "probation") else "tried again"


def hold_words(hold: Hold) -> str:
    """Return what is waited for, and until when."""
    until = f"{hold.deadline.astimezone():%Y-%m-%d %H:%M}"
    return f"{hold.reason.value.replace('_', ' ')}, at most until {until}"


def seen_of(attempt: Attempt) -> ProbationReport | None:
    """Return what probation has seen: what was told last, or what was written down since, which is once a minute."""
    told, evidence = attempt.told, attempt.evidence
    if told is None or evidence is None or evidence.parts <= told.parts:
        return told
    return replace(told, parts=evidence.parts, faults=evidence.fault_count, look_p95_ms=evidence.look_p95_ms)


def progress_words(seen: ProbationReport) -> str:
    """Return how far a probation is."""
    needed = f" of {seen.parts_needed}" if seen.parts_needed else ""
    return f"{seen.parts}{needed} parts judged" + (
        f", {seen.faults} without a verdict by its fault" * bool(seen.faults)
    )


def ended_badly(attempt: Attempt) -> bool:
    """Tell whether a deployment ended other than well."""
    return attempt.has_ended and attempt.state.value not in ("succeeded", "already_installed")


def end_words(attempt: Attempt) -> str:
    """Return how a deployment ended, in a sentence."""
    end = _ENDS.get(attempt.state.value, attempt.state.value.replace("_", " "))
    if attempt.state.value == "failed_reverted" and attempt.former is None:
        end = "was taken back; there is no former version to go back to"
    return f"release {attempt.release} ({attempt.digest[:12]}) {end}.{why_words(attempt)}"


def why_words(attempt: Attempt) -> str:
    """Return why a deployment ended badly, with a blank in front; empty where it did not."""
    fault = attempt.fault
    if fault is None or not ended_badly(attempt):
        return ""
    title = REGISTER[fault.code].title if fault.code in REGISTER else fault.code
    return f" {title}: {fault.reason}" if fault.reason else f" {title}."


_ENDS: Final = {
    "succeeded": "runs, and will be loaded at each start",
    "already_installed": "ran already",
    "refused": "is refused on this device; nothing was changed",
    "failed_no_change": "was not made active; nothing was changed",
    "failed_reverted": "was taken back; the former version runs again",
    "failed_revert_failed": "was taken back, and the former version could not be made active either",
    "superseded": "gave way to another version",
}


def name_of(version: Version) -> str:
    """Return how a person is told of a version."""
    release = f"release {version.release}" if version.release is not None else "a version"
    return f"{version.model} {release} ({version.digest[:12]})"


def mb(count_bytes: int | None) -> str:
    """Return a size for a person."""
    return f"{count_bytes / _MB:.1f} MB" if count_bytes is not None else "?"


def ago(at: datetime) -> str:
    """Return how long ago a moment was."""
    return f"{running.words_of_s((datetime.now(UTC) - at).total_seconds())} ago"
