"""What a deployment is held for before its swap, until when, and what a person reads about it (pure)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from agent.deploy import gap
from agent.deploy.attempt import Attempt
from agent.deploy.facts import Facts
from agent.deploy.steps import Hold
from wire.deployment import DeploymentState as S
from wire.deployment import HoldReason

# A hold is told anew when its deadline has moved by more: the clock was set, or the device was switched off.
DEADLINE_MOVED: Final = timedelta(minutes=15)
_HELD_TOO_LONG: Final = {
    HoldReason.NO_SPACE: ("storage.full", "there is no room on the disk for this version."),
    HoldReason.MAINTENANCE_WINDOW: ("deployment.hold_expired", "no maintenance window was open."),
    HoldReason.LINE_BUSY: ("deployment.hold_expired", "the line was busy all the time."),
    HoldReason.AWAITING_CONFIRMATION: ("deployment.hold_expired", "nobody confirmed it."),
}


def in_the_way(attempt: Attempt, facts: Facts) -> tuple[HoldReason, str] | None:
    """Return what is in the way of the state's step, and the words for it.

    A person is asked before the line's time is looked for; what was confirmed is not asked for again.
    """
    if attempt.state in (S.QUEUED, S.DOWNLOADING):
        return (HoldReason.NO_SPACE, "") if facts.no_room else None
    if attempt.state is not S.STAGED or facts.inferring is None or attempt.urgent:
        return None
    words = _gap(attempt) if facts.exclusive else ""
    must_ask = facts.confirm or (facts.exclusive and not facts.has_windows)
    if must_ask and not attempt.confirmed:
        when = ", in a maintenance window," if facts.has_windows else ""
        ask = f"It is ready to be swapped in{when} once a person says so: `lineside models confirm {attempt.model}`."
        return HoldReason.AWAITING_CONFIRMATION, f"{words} {ask}".strip()
    return (facts.not_now, f"{words} {facts.not_now_words}".strip()) if facts.not_now is not None else None


def expired(reason: HoldReason, attempt: Attempt | None, facts: Facts) -> tuple[str, str] | None:
    """Return code and words where the time of a hold is over."""
    if _left_s(reason, attempt, facts) > 0:
        return None
    code, why = _HELD_TOO_LONG[reason]
    return code, f"Given up after {in_hours(facts.limits.of(reason))}: {why}"


def hold(reason: HoldReason, attempt: Attempt | None, facts: Facts, text: str = "") -> Hold | None:
    """Return the hold; None where it is in force already, and its deadline has not moved."""
    deadline = facts.now + timedelta(seconds=_left_s(reason, attempt, facts))
    standing = attempt.hold if attempt is not None else None
    if standing is not None and standing.reason is reason and abs(standing.deadline - deadline) <= DEADLINE_MOVED:
        return None
    return Hold(reason=reason, deadline=deadline, text=text)


def in_hours(seconds: float) -> str:
    """Return a time in words."""
    return f"{seconds / 3600:g} h"


def _left_s(reason: HoldReason, attempt: Attempt | None, facts: Facts) -> float:
    return facts.limits.of(reason) - (attempt.held_s.get(reason, 0.0) if attempt is not None else 0.0)


def _gap(attempt: Attempt) -> str:
    how_long = f" for about {gap.expected_s(attempt.tested.load_ms):.1f} s" if attempt.tested is not None else ""
    return f"The line stands without verdicts{how_long} while the versions change: there is no room in memory for both."
