"""Decides when the fleet gives up waiting for a deployment. Pure.

The device has time limits of its own and ends what it has begun; the fleet's are for what the device never says. So
they are longer than anything the device can be waiting for:

- what an online device never took up ends after `not_taken_up`, counted while it was connected without a break;
- what has not been heard of ends after `silent`, counted from the last word about it or the end of its hold.

Both count only while the fleet itself takes in what the device says: its own deafness is not the device's silence. A
device that is merely away does not lose its deployment before `silent` is over, and what is waited for is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fleet.ingest.listening import Listening
from wire.deployment import DeploymentState

NOT_BEGUN: Final = frozenset({DeploymentState.SCHEDULED, DeploymentState.QUEUED})
LONGEST_HOLD: Final = timedelta(days=60)  # a hold that ends later than that is the word of a wrong clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long the fleet waits."""

    silent: timedelta = timedelta(days=14)
    not_taken_up: timedelta = timedelta(days=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An open deployment, and what is known of its device; all times by the server's clock but `hold_until`.

    Args:
        heard_at: when it was made, or the newest report on it was taken.
        hold_until: by the device's clock; None where it does not hold.
        online_since: at the latest; None where the device is offline.
        listening: since when the fleet takes in what the device says; None where it does not now.
        behind_local: a person at the device has asked for a version of this model, which goes first.
        read: the device has said that it has read a document that names it.
    """

    state: DeploymentState
    created_at: datetime
    heard_at: datetime
    hold_until: datetime | None
    last_seen_at: datetime | None
    online_since: datetime | None
    listening: Listening | None
    behind_local: bool = False
    read: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """The fleet gives up."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """It goes on waiting; `until` is when it gives up if nothing is heard, None while it gives nothing up."""

    text: str
    until: datetime | None


def judge(waiting: Waiting, limits: Limits, now: datetime) -> TimedOut | Waits:
    """Return whether the fleet gives a deployment up now, with the reason in words."""
    listening = waiting.listening
    if listening is None:
        text = "Ingest does not run or has lost the broker, so nothing the device says is heard; nothing is given up."
        return Waits(text=text, until=None)
    base = waiting.heard_at
    if waiting.hold_until is not None:
        base = max(base, min(waiting.hold_until, base + LONGEST_HOLD))
    until = max(max(base, listening.since) + limits.silent, listening.settled_at)
    if now >= until:
        return TimedOut(reason=_silence(waiting, max(waiting.heard_at, listening.since), now))
    if waiting.online_since is None:
        seen = f"offline since {stamp(waiting.last_seen_at)}" if waiting.last_seen_at else "not seen yet"
        return Waits(text=f"The device is {seen}; the deployment waits for it until {stamp(until)}.", until=until)
    if waiting.state in NOT_BEGUN and not waiting.behind_local:
        since = max(waiting.created_at, waiting.online_since, listening.since)
        soonest = min(until, max(since + limits.not_taken_up, listening.settled_at))
        if now >= soonest:
            read = "It has read the document" if waiting.read else "It has not said that it has read the document"
            return TimedOut(
                reason=f"The device was connected since {stamp(since)} and never took it up. {read}.",
            )
        return Waits(
            text=f"The device has not taken it up yet; it is waited for until {stamp(soonest)}.", until=soonest
        )
    return Waits(text=f"The newest word about it came at {stamp(waiting.heard_at)}.", until=until)


def stamp(moment: datetime | None) -> str:
    """Return a moment for a person, on the UTC clock."""
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment is not None else "never"


def _silence(waiting: Waiting, since: datetime, now: datetime) -> str:
    days = (now - since).days
    where = "it never was taken up" if waiting.state in NOT_BEGUN else f"it was {waiting.state.replace('_', ' ')}"
    if waiting.online_since is None:
        seen = f"has been offline since {stamp(waiting.last_seen_at)}" if waiting.last_seen_at else "was never seen"
        return f"Nothing was heard of it for {days} days, and the device {seen}; {where}."
    return f"Nothing was heard of it for {days} days, although the device is connected; {where}."
