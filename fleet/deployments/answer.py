"""The one sentence that answers why a device has a version, or has not. Pure.

It answers for the newest deployment of the version there, since that is the one a person can do something about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleet.deployments import advice
from fleet.deployments.deviation import words_of
from fleet.deployments.gathered import Asked, Gathered
from fleet.deployments.progress import FLEET_ENDS
from fleet.deployments.timeouts import NOT_BEGUN, stamp
from wire.deployment import ENDS, DeploymentState, Hold, HoldReason, Origin, ProbationReport, SelfTestReport

_AWAITED: Final[Mapping[HoldReason, str]] = {
    HoldReason.NO_SPACE: "room on the disk",
    HoldReason.MAINTENANCE_WINDOW: "a maintenance window",
    HoldReason.LINE_BUSY: "the end of the line's busy lock",
    HoldReason.AWAITING_CONFIRMATION: "a person's confirmation",
}


def of(one: Gathered) -> str:
    """Return the one sentence."""
    what = f"{one.model} {words_of(one.digest, one.release, registered=one.registered_at is not None)}"
    newest = one.asked[-1] if one.asked else None
    if one.runs_digest == one.digest:
        return _has_it(one, what, newest)
    start = f"{one.device} has not got {what} because"
    if one.revoked_at is not None:
        return f"{start} the device is revoked: enrol it again with a new claim."
    if newest is None:
        if one.registered_at is None:
            return f"{start} the registry has no such version: `lineside-fleet models push` brings it in."
        return f"{start} nobody has asked for it: {_desired(one)}."
    if newest.state in ENDS:
        return f"{start} {_ended(one, newest)}"
    return f"{start} {_open(one, newest)}"


def _has_it(one: Gathered, what: str, newest: Asked | None) -> str:
    since = f" since {stamp(one.runs_since)}" if one.runs_since is not None else ""
    start = f"{one.device} has {what}: it runs it{since}"
    if newest is not None and newest.state not in ENDS:
        return f"{start}; its deployment is {_standing(newest)}."
    if newest is not None and newest.state not in (DeploymentState.SUCCEEDED, DeploymentState.ALREADY_INSTALLED):
        return f"{start}, although its newest deployment ended as {newest.state.replace('_', ' ')}."
    if one.desired_digest not in (None, one.digest):
        return f"{start}, although {_desired(one)}."
    return f"{start}."


def _ended(one: Gathered, newest: Asked) -> str:
    if newest.state in (DeploymentState.SUCCEEDED, DeploymentState.ALREADY_INSTALLED):
        when = f" at {stamp(newest.ended_at)}" if newest.ended_at is not None else ""
        runs = words_of(one.runs_digest, one.runs_release, registered=one.runs_registered)
        why = one.deviation or f"runs {runs} now"
        ask = f"`lineside-fleet desired set {one.device} --model {one.model}={one.release} --retry` asks for it again."
        return f"it had it{when}, but {one.model} {why}. {ask if one.desired_digest == one.digest else ''}".rstrip()
    reason = newest.reason.rstrip(".")
    if newest.state in FLEET_ENDS:
        said = f"its deployment was {newest.state.replace('_', ' ')}: {reason}"
        late = newest.reports[-1].report.state.replace("_", " ") if newest.reports else ""
        return f"{said}{f'; the newest word of the device was {late}' if late else ''}."
    code = f" ({newest.code})" if newest.code else ""
    word = "refused it" if newest.state is DeploymentState.REFUSED else f"ended it as {newest.state.replace('_', ' ')}"
    return f"the device {word}{code}: {reason or 'it gave no reason'}. {advice.of(newest.code)}".rstrip()


def _open(one: Gathered, newest: Asked) -> str:
    away = "" if one.online else f" The device is offline, last seen {stamp(one.last_seen_at)}."
    if newest.state in NOT_BEGUN:
        if newest.behind:
            return f"{newest.behind}, and that goes first.{away}"
        if not one.online:
            return f"the device is offline, last seen {stamp(one.last_seen_at)}, and has not taken it up."
        unread = newest.revision is not None and (one.read_revision or 0) < newest.revision
        if unread:
            read = f"revision {one.read_revision}" if one.read_revision is not None else "none"
            return (
                f"the device has not read revision {newest.revision} of its desired document yet (it has read {read})."
            )
        return f"the device has read that it is asked for and has not begun yet. {newest.waits}".rstrip()
    return f"its deployment is {_standing(newest)}.{away}"


def _standing(newest: Asked) -> str:
    """Return where an open deployment stands, by its newest report."""
    told = newest.reports[-1].report if newest.reports else None
    word = newest.state.replace("_", " ")
    if told is None:
        return f"{word} since {stamp(newest.created_at)}"
    parts = [f"{word}, by its report of {stamp(told.at)}"]
    if told.hold is not None:
        parts.append(hold_words(told.hold))
    elif told.probation is not None:
        parts.append(probation_words(told.probation))
    elif told.reason and told.origin is not Origin.DEVICE:
        parts.append(told.reason.rstrip("."))
    return "; ".join(parts)


def hold_words(hold: Hold) -> str:
    """Return what a deployment waits for, until when, and what a person should know."""
    text = f": {hold.text.rstrip('.')}" if hold.text else ""
    return f"waits for {_AWAITED[hold.reason]} until {stamp(hold.deadline)}{text}"


def probation_words(seen: ProbationReport) -> str:
    """Return what probation has seen."""
    parts = [f"probation has seen {seen.parts} of {seen.parts_needed} parts, {seen.faults} of them without verdict"]
    if seen.look_p95_ms is not None:
        before = f" (before: {seen.former_look_p95_ms:.1f} ms)" if seen.former_look_p95_ms is not None else ""
        parts.append(f"looks take {seen.look_p95_ms:.1f} ms at p95{before}")
    if seen.shift:
        parts.append(seen.shift.rstrip("."))
    return ", ".join(parts)


def tested_words(tested: SelfTestReport) -> str:
    """Return what the self-test measured."""
    return (
        f"its self-test took {tested.latency_p95_ms:.1f} ms for a look at p95 and {tested.memory_mb:.0f} MB, "
        f"and {tested.load_ms:.0f} ms to load"
    )


def _desired(one: Gathered) -> str:
    if one.desired_release is None:
        return f"the desired document (revision {one.desired_revision}) names no version of {one.model}"
    by = f", by {one.desired_by} at {stamp(one.desired_at)}" if one.desired_at is not None else ""
    return f"the desired document (revision {one.desired_revision}{by}) names release {one.desired_release}"
