"""Decides the next step of a deployment: a function of what is installed, what is desired, and a few facts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from agent.deploy.attempt import Attempt, FaultKind
from wire import deployment, desired, ids
from wire.deployment import DeploymentState as S
from wire.deployment import HoldReason

DOWNLOAD_TRIES: Final = 10
VERIFY_TRIES: Final = 3
SELF_TEST_TRIES: Final = 2
ACTIVATE_TRIES: Final = 2
REVERT_TRIES: Final = 2
MISMATCHES_ALLOWED: Final = 1
# A hold is told anew when its deadline has moved by more: the clock was set, or the device was switched off.
DEADLINE_MOVED: Final = timedelta(minutes=15)
_DAY_S: Final = 86400.0
_EXHAUSTED: Final = "deployment.attempts_exhausted"
_REVERT_FAILED: Final = "deployment.revert_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The two versions of a model kept on this device; `current` is loaded at boot."""

    current: ids.Digest | None = None
    previous: ids.Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a deployment may take before it is given up, in seconds of a running agent.

    Args:
        attempt_s: from its start until it is tested and ready, holds aside; so long an absent fleet is waited for.
        no_space_s, maintenance_window_s, line_busy_s, awaiting_confirmation_s: in all, in each hold.
    """

    attempt_s: float = _DAY_S
    no_space_s: float = _DAY_S
    maintenance_window_s: float = 8 * _DAY_S
    line_busy_s: float = _DAY_S
    awaiting_confirmation_s: float = 7 * _DAY_S

    def of(self, reason: HoldReason) -> float:
        """Return the limit of a hold."""
        return {
            HoldReason.NO_SPACE: self.no_space_s,
            HoldReason.MAINTENANCE_WINDOW: self.maintenance_window_s,
            HoldReason.LINE_BUSY: self.line_busy_s,
            HoldReason.AWAITING_CONFIRMATION: self.awaiting_confirmation_s,
        }[reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What else a decision needs to know.

    Args:
        now: for the deadlines of holds.
        attempt: the latest attempt in the journal, ended or not.
        ended_before: the desired deployment has ended here, and another one came after it.
        inferring: the digest of the session in use; None where none is.
        waiting: a pause between two tries is not over.
        unneeded: packages, blobs and downloads on disk that nothing refers to.
        no_room: what is still to be downloaded does not fit on the disk.
        not_now: why no version may be swapped on this line at this moment.
        limits: in force here.
    """

    now: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    attempt: Attempt | None = None
    ended_before: bool = False
    inferring: ids.Digest | None = None
    waiting: bool = False
    unneeded: tuple[ids.Digest, ...] = ()
    no_room: bool = False
    not_now: HoldReason | None = None
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Wait, and say for what; the deployment is given up at the deadline."""

    reason: HoldReason
    deadline: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """Fetch the next blob that is missing."""

    digest: ids.Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Check every byte, the manifest, and that the version suits this device."""

    digest: ids.Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """Run the golden samples in a child process."""

    digest: ids.Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Activate:
    """Build the session beside the old one and swap; `former` is what to go back to."""

    digest: ids.Digest
    former: ids.Digest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Make the version that is being inferred with the one loaded at boot, and end well."""

    digest: ids.Digest
    end: S


@dataclass(frozen=True, slots=True, kw_only=True)
class Revert:
    """Go back to the former version, for the reason given."""

    former: ids.Digest
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """End the deployment: the version must not run here."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """End the deployment: `failed_no_change` or, where neither version runs, `failed_revert_failed`."""

    end: S
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """Remove packages and blobs that nothing refers to."""

    digests: tuple[ids.Digest, ...]


Step: TypeAlias = Download | Verify | SelfTest | Hold | Activate | Commit | Revert | Refuse | Fail | Collect


def plan(installed: Installed, wanted: desired.DesiredModel | None, facts: Facts) -> Step | None:
    """Return the next step for one model, or None where there is nothing to do now.

    The first rule that applies decides:

    1. An attempt in `activating` is finished before anything else, desired or not, for the line may stand without a
       model:
       a. its digest is the one being inferred with, and nothing went wrong: Commit;
       b. nothing went wrong yet, it is still desired and has a try left: Activate (a kill interrupted it);
       c. otherwise it is undone: Fail where the former version never stopped or there is none, else Revert; and Fail
          with `failed_revert_failed` when reverting has been tried often enough.
    2. Nothing is desired, or the desired deployment has ended here: Collect what is unneeded, else nothing.
    3. A new deployment (an unfinished attempt at another one is abandoned; the fleet calls it superseded):
       Commit as `already_installed` where its digest is kept here and being inferred with, else Download.
    4. A refusal was noted, or bytes differed from their digest once more than allowed: Refuse.
    5. A failure was noted, the state's tries are used up, or the attempt's time is over before it is ready: Fail with
       `failed_no_change`.
    6. Something is in the way of the state's step:
       a. there is no room to download: Collect what is unneeded, where that is anything;
       b. the hold's time is over: Fail with `failed_no_change`;
       c. the hold is not in force yet, or its deadline has moved: Hold; else nothing.
       A version is not held back from a line that has none.
    7. A pause between two tries is not over: nothing.
    8. By state: `queued`, `downloading`: Download; `verifying`: Verify; `self_testing`: SelfTest; `staged`: Activate.

    Rule 6 holds a new deployment, too, before its first Download.
    """
    attempt = facts.attempt
    if attempt is not None and attempt.state is S.ACTIVATING:
        return _finish(attempt, installed, wanted, facts)
    if wanted is None or _is_over(attempt, wanted, facts):
        return Collect(digests=facts.unneeded) if facts.unneeded else None
    if attempt is None or attempt.deployment_id != wanted.deployment_id:
        if facts.inferring == wanted.active and wanted.active in (installed.current, installed.previous):
            return Commit(digest=wanted.active, end=S.ALREADY_INSTALLED)
        if facts.no_room:
            return _hold(HoldReason.NO_SPACE, None, facts)
        return Download(digest=wanted.active)
    end = _ill_end(attempt, facts)
    if end is not None:
        return end
    in_the_way = _in_the_way(attempt.state, facts)
    if in_the_way is not None:
        return _hold(in_the_way, attempt, facts)
    if facts.waiting:
        return None
    return _next(attempt, installed, facts)


def _ill_end(attempt: Attempt, facts: Facts) -> Refuse | Fail | None:
    fault = attempt.fault
    if fault is not None and (fault.kind is FaultKind.REFUSAL or attempt.mismatches > MISMATCHES_ALLOWED):
        return Refuse(code=fault.code, reason=fault.reason)
    if fault is not None and fault.kind is FaultKind.FAILURE:
        return Fail(end=S.FAILED_NO_CHANGE, code=fault.code, reason=fault.reason)
    if attempt.tries >= _TRIES.get(attempt.state, ACTIVATE_TRIES):
        return _used_up(attempt)
    if attempt.state is not S.STAGED and attempt.spent_s >= facts.limits.attempt_s:
        code, why = (fault.code, fault.reason) if fault is not None else (_EXHAUSTED, "It went on too slowly.")
        return Fail(end=S.FAILED_NO_CHANGE, code=code, reason=f"Given up after {_words(facts.limits.attempt_s)}. {why}")
    return None


def _in_the_way(state: S, facts: Facts) -> HoldReason | None:
    if state in (S.QUEUED, S.DOWNLOADING):
        return HoldReason.NO_SPACE if facts.no_room else None
    if state is S.STAGED and facts.inferring is not None:
        return facts.not_now
    return None


def _hold(reason: HoldReason, attempt: Attempt | None, facts: Facts) -> Hold | Collect | Fail | None:
    if reason is HoldReason.NO_SPACE and facts.unneeded:
        return Collect(digests=facts.unneeded)
    held_s = attempt.held_s.get(reason, 0.0) if attempt is not None else 0.0
    left_s = facts.limits.of(reason) - held_s
    if left_s <= 0:
        code, why = _HELD_TOO_LONG[reason]
        return Fail(
            end=S.FAILED_NO_CHANGE, code=code, reason=f"Given up after {_words(facts.limits.of(reason))}: {why}"
        )
    deadline = facts.now + timedelta(seconds=left_s)
    standing = attempt.hold if attempt is not None else None
    if standing is not None and standing.reason is reason and abs(standing.deadline - deadline) <= DEADLINE_MOVED:
        return None
    return Hold(reason=reason, deadline=deadline)


_HELD_TOO_LONG: Final = {
    HoldReason.NO_SPACE: ("storage.full", "there is no room on the disk for this version."),
    HoldReason.MAINTENANCE_WINDOW: ("deployment.hold_expired", "no maintenance window was open."),
    HoldReason.LINE_BUSY: ("deployment.hold_expired", "the line was busy all the time."),
    HoldReason.AWAITING_CONFIRMATION: ("deployment.hold_expired", "nobody confirmed it."),
}


def _words(seconds: float) -> str:
    return f"{seconds / 3600:g} h"


_TRIES: Final = {
    S.QUEUED: DOWNLOAD_TRIES,
    S.DOWNLOADING: DOWNLOAD_TRIES,
    S.VERIFYING: VERIFY_TRIES,
    S.SELF_TESTING: SELF_TEST_TRIES,
}


def _is_over(attempt: Attempt | None, wanted: desired.DesiredModel, facts: Facts) -> bool:
    if attempt is not None and attempt.deployment_id == wanted.deployment_id:
        return attempt.state in deployment.ENDS
    return facts.ended_before


def _next(attempt: Attempt, installed: Installed, facts: Facts) -> Step:
    if attempt.state is S.VERIFYING:
        return Verify(digest=attempt.digest)
    if attempt.state is S.SELF_TESTING:
        return SelfTest(digest=attempt.digest)
    if attempt.state is S.STAGED:
        return Activate(digest=attempt.digest, former=_former(attempt.digest, installed, facts))
    return Download(digest=attempt.digest)


def _former(digest: ids.Digest, installed: Installed, facts: Facts) -> ids.Digest | None:
    """Return the kept version to go back to: the one that runs, else the one loaded at boot, else the one before."""
    kept = (installed.current, installed.previous)
    candidates = (facts.inferring if facts.inferring in kept else None, *kept)
    return next((candidate for candidate in candidates if candidate not in (None, digest)), None)


def _used_up(attempt: Attempt) -> Fail:
    if attempt.fault is not None:
        return Fail(end=S.FAILED_NO_CHANGE, code=attempt.fault.code, reason=attempt.fault.reason)
    return Fail(
        end=S.FAILED_NO_CHANGE,
        code=_EXHAUSTED,
        reason=f"The agent ended {attempt.tries} times while {attempt.state.value.replace('_', ' ')}.",
    )


def _finish(attempt: Attempt, installed: Installed, wanted: desired.DesiredModel | None, facts: Facts) -> Step:
    if attempt.fault is None and facts.inferring == attempt.digest:
        return Commit(digest=attempt.digest, end=S.SUCCEEDED)
    is_wanted = wanted is not None and wanted.deployment_id == attempt.deployment_id
    if attempt.fault is None and is_wanted and attempt.tries < ACTIVATE_TRIES:
        return Activate(digest=attempt.digest, former=attempt.former)
    if attempt.fault is not None:
        code, reason = attempt.fault.code, attempt.fault.reason
    elif attempt.tries >= ACTIVATE_TRIES:
        code, reason = _EXHAUSTED, f"After {attempt.tries} activations it is still not the version inferred with."
    else:
        code, reason = "deployment.activation_failed", "It is no longer asked for."
    if attempt.tries >= ACTIVATE_TRIES + REVERT_TRIES:
        return Fail(end=S.FAILED_REVERT_FAILED, code=_REVERT_FAILED, reason=reason)
    if attempt.former is None:
        if facts.inferring in (None, attempt.inferring):
            return Fail(end=S.FAILED_NO_CHANGE, code=code, reason=reason)
        return Fail(end=S.FAILED_REVERT_FAILED, code=_REVERT_FAILED, reason=f"{reason} There is no former version.")
    untouched = installed.current == attempt.former and facts.inferring == attempt.former
    if untouched and attempt.tries < ACTIVATE_TRIES:
        return Fail(end=S.FAILED_NO_CHANGE, code=code, reason=reason)
    return Revert(former=attempt.former, code=code, reason=reason)
