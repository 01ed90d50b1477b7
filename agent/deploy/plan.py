"""Decides the next step of a deployment: a function of what is installed, what is desired, and a few facts."""

from __future__ import annotations

from typing import Final

from agent.deploy import plan_holds, plan_swapped
from agent.deploy.attempt import Attempt, FaultKind
from agent.deploy.facts import Facts, Installed
from agent.deploy.steps import Activate, Collect, Commit, Download, Fail, Hold, Refuse, SelfTest, Step, Verify
from wire import deployment, desired, ids
from wire.deployment import DeploymentState as S
from wire.deployment import HoldReason

DOWNLOAD_TRIES: Final = 10
VERIFY_TRIES: Final = 3
SELF_TEST_TRIES: Final = 2
MISMATCHES_ALLOWED: Final = 1
_TRIES: Final = {
    S.QUEUED: DOWNLOAD_TRIES,
    S.DOWNLOADING: DOWNLOAD_TRIES,
    S.VERIFYING: VERIFY_TRIES,
    S.SELF_TESTING: SELF_TEST_TRIES,
}


def plan(installed: Installed, wanted: desired.DesiredModel | None, facts: Facts) -> Step | None:
    """Return the next step for one model, or None where there is nothing to do now.

    The first rule that applies decides:

    1. An attempt in `activating` is finished before anything else, desired or not, for the line may stand without a
       model:
       a. its digest is the one being inferred with, and nothing went wrong: Watch, which begins its probation;
       b. nothing went wrong yet, it is still desired and has a try left: Activate (a kill interrupted it);
       c. otherwise it is undone: Fail where the former version never stopped or there is none, else Revert; and Fail
          with `failed_revert_failed` when reverting has been tried often enough; nothing in a pause between two tries.
    2. An attempt in `probation`:
       a. the agent crashed, a person went back, it is no longer desired, or it could not be loaded again: it is
          undone: Revert; Fail with `failed_reverted` where there is no former version, with `failed_revert_failed`
          when reverting has been tried often enough; nothing in the pause between two tries;
       b. an urgent one passes at once: Commit;
       c. it is faulty: undone likewise; where there is no former version, a person is asked as in d, and Commit once
          that was confirmed;
       d. its verdicts have shifted, or a person was asked already, and nobody has confirmed it: Hold; undone when the
          hold's time is over;
       e. it has passed: Commit as `succeeded`; else nothing.
    3. Nothing is desired, or the desired deployment has ended here:
       a. an unfinished attempt is given up, unless nobody knows what is desired: Fail with `failed_no_change`;
       b. Collect what is unneeded, else nothing.
    4. A new deployment (an unfinished attempt at another one is abandoned; the fleet calls it superseded):
       Commit as `already_installed` where its digest is kept here and being inferred with, else Download.
    5. A refusal was noted, or bytes differed from their digest once more than allowed: Refuse.
    6. A failure was noted, the state's tries are used up, or the attempt's time is over before it is ready: Fail with
       `failed_no_change`.
    7. Something is in the way of the state's step: no room to download; before the swap, a person who has not
       confirmed it, a maintenance window, a busy line:
       a. there is no room to download: Collect what is unneeded, where that is anything;
       b. the hold's time is over: Fail with `failed_no_change`;
       c. the hold is not in force yet, or its deadline has moved: Hold; else nothing.
       A version is not held back from a line that has none, and an urgent one from no line.
    8. A pause between two tries is not over: nothing.
    9. By state: `queued`, `downloading`: Download; `verifying`: Verify; `self_testing`: SelfTest; `staged`: Activate.

    Rule 7 holds a new deployment, too, before its first Download.
    """
    attempt = facts.attempt
    if attempt is not None and attempt.state is S.ACTIVATING:
        return plan_swapped.activating(attempt, installed, wanted, facts)
    if attempt is not None and attempt.state is S.PROBATION:
        return plan_swapped.on_probation(attempt, wanted, facts)
    if wanted is None or _is_over(attempt, wanted, facts):
        if attempt is not None and not attempt.has_ended and facts.document_known:
            return Fail(
                end=S.FAILED_NO_CHANGE, code="deployment.withdrawn", reason="It was taken back before its swap."
            )
        return Collect(digests=facts.unneeded) if facts.unneeded else None
    if attempt is None or attempt.deployment_id != wanted.deployment_id or attempt.state is S.QUEUED:
        if facts.inferring == wanted.active and wanted.active in (installed.current, installed.previous):
            return Commit(digest=wanted.active, end=S.ALREADY_INSTALLED)
        if facts.no_room:
            return _held(HoldReason.NO_SPACE, None, facts, "")
        return Download(digest=wanted.active)
    end = _ill_end(attempt, facts)
    if end is not None:
        return end
    in_the_way = plan_holds.in_the_way(attempt, facts)
    if in_the_way is not None:
        reason, text = in_the_way
        return _held(reason, attempt, facts, text)
    if facts.waiting:
        return None
    return _next(attempt, installed, facts)


def _ill_end(attempt: Attempt, facts: Facts) -> Refuse | Fail | None:
    fault = attempt.fault
    if fault is not None and (fault.kind is FaultKind.REFUSAL or attempt.mismatches > MISMATCHES_ALLOWED):
        return Refuse(code=fault.code, reason=fault.reason)
    if fault is not None and fault.kind is FaultKind.FAILURE:
        return Fail(end=S.FAILED_NO_CHANGE, code=fault.code, reason=fault.reason)
    if attempt.tries >= _TRIES.get(attempt.state, plan_swapped.ACTIVATE_TRIES):
        return _used_up(attempt)
    if attempt.state is not S.STAGED and attempt.spent_s >= facts.limits.attempt_s:
        code, why = (
            (fault.code, fault.reason) if fault is not None else (plan_swapped.EXHAUSTED, "It went on too slowly.")
        )
        return Fail(
            end=S.FAILED_NO_CHANGE,
            code=code,
            reason=f"Given up after {plan_holds.in_hours(facts.limits.attempt_s)}. {why}",
        )
    return None


def _held(reason: HoldReason, attempt: Attempt | None, facts: Facts, text: str) -> Hold | Collect | Fail | None:
    if reason is HoldReason.NO_SPACE and facts.unneeded:
        return Collect(digests=facts.unneeded)
    over = plan_holds.expired(reason, attempt, facts)
    if over is not None:
        return Fail(end=S.FAILED_NO_CHANGE, code=over[0], reason=over[1])
    return plan_holds.hold(reason, attempt, facts, text)


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
        return Activate(
            digest=attempt.digest, former=_former(attempt.digest, installed, facts), exclusive=facts.exclusive
        )
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
        code=plan_swapped.EXHAUSTED,
        reason=f"The agent ended {attempt.tries} times while {attempt.state.value.replace('_', ' ')}.",
    )
