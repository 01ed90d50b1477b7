"""What follows once a swap has begun: rules 1 and 2 of `plan` (pure)."""

from __future__ import annotations

from typing import Final

from agent.deploy import plan_holds
from agent.deploy.attempt import Attempt
from agent.deploy.facts import Facts, Installed
from agent.deploy.probation import Faulty, Passed, Shifted
from agent.deploy.steps import Activate, Commit, Fail, Hold, Revert, Watch
from wire import desired, ids
from wire.deployment import DeploymentState as S
from wire.deployment import HoldReason

ACTIVATE_TRIES: Final = 2
REVERT_TRIES: Final = 5  # what is in the way may pass, such as a want of memory
EXHAUSTED: Final = "deployment.attempts_exhausted"
_REVERT_FAILED: Final = "deployment.revert_failed"
_ACTIVATION_FAILED: Final = "deployment.activation_failed"


def activating(
    attempt: Attempt, installed: Installed, wanted: desired.DesiredModel | None, facts: Facts
) -> Watch | Activate | Revert | Fail | None:
    """Apply rule 1."""
    if attempt.fault is None and facts.inferring == attempt.digest:
        return Watch(digest=attempt.digest)
    if attempt.fault is None and _is_wanted(attempt, wanted) and attempt.tries < ACTIVATE_TRIES:
        return Activate(digest=attempt.digest, former=attempt.former, exclusive=attempt.exclusive or facts.exclusive)
    if attempt.fault is not None:
        code, reason = attempt.fault.code, attempt.fault.reason
    elif attempt.tries >= ACTIVATE_TRIES:
        code, reason = EXHAUSTED, f"After {attempt.tries} activations it is still not the version inferred with."
    else:
        code, reason = _ACTIVATION_FAILED, "It is no longer asked for."
    if reverts_used_up(attempt) and facts.inferring != attempt.former:
        return Fail(end=S.FAILED_REVERT_FAILED, code=_REVERT_FAILED, reason=reason)
    if attempt.former is None:
        if facts.inferring in (None, attempt.inferring):
            return Fail(end=S.FAILED_NO_CHANGE, code=code, reason=reason)
        return Fail(end=S.FAILED_REVERT_FAILED, code=_REVERT_FAILED, reason=f"{reason} There is no former version.")
    untouched = installed.current == attempt.former and facts.inferring == attempt.former
    if untouched and attempt.tries < ACTIVATE_TRIES:
        return Fail(end=S.FAILED_NO_CHANGE, code=code, reason=reason)
    return _back(attempt.former, facts, code, reason)


def on_probation(
    attempt: Attempt, wanted: desired.DesiredModel | None, facts: Facts
) -> Commit | Hold | Revert | Fail | None:
    """Apply rule 2."""
    if attempt.fault is not None:
        return _undone(attempt, facts, attempt.fault.code, attempt.fault.reason)
    if not _is_wanted(attempt, wanted):
        return _undone(attempt, facts, "deployment.withdrawn", "It is no longer asked for.")
    if facts.inferring != attempt.digest:
        return _undone(attempt, facts, _ACTIVATION_FAILED, _why_not_in_use(attempt, facts))
    passed = Commit(digest=attempt.digest, end=S.SUCCEEDED)
    if attempt.urgent:
        return passed
    question = ""
    match facts.finding:
        case Faulty(code=code, reason=reason):
            if attempt.former is not None:
                return _undone(attempt, facts, code, reason)
            if attempt.confirmed:
                return passed
            question = f"{reason} There is no former version to go back to."
        case Shifted(text=text) if not attempt.confirmed:
            question = text
    if attempt.hold is not None or question:
        return _asked(attempt, facts, question)
    return passed if isinstance(facts.finding, Passed) else None


def _why_not_in_use(attempt: Attempt, facts: Facts) -> str:
    if facts.inferring is not None:
        return "It was not loaded again: another version infers."
    return f"It could not be loaded again, or no recipe in force on this device looks with {attempt.model} any more."


def _asked(attempt: Attempt, facts: Facts, question: str) -> Hold | Revert | Fail | None:
    """Hold until a person says what is right: what raised the question may go, the question stays."""
    reason = HoldReason.AWAITING_CONFIRMATION
    over = plan_holds.expired(reason, attempt, facts)
    if over is not None:
        return _undone(attempt, facts, *over)
    advice = (
        "Show parts of known truth, then `lineside models confirm "
        f"{attempt.model}` or `lineside models rollback {attempt.model}`."
    )
    told = attempt.hold.text if attempt.hold is not None else f"{question} {advice}"
    return plan_holds.hold(reason, attempt, facts, told)


def reverts_used_up(attempt: Attempt) -> bool:
    """Tell whether going back was begun as often as is allowed; `activating` counts its activations, too."""
    before = ACTIVATE_TRIES if attempt.state is S.ACTIVATING else 0
    return attempt.tries >= before + REVERT_TRIES


def _undone(attempt: Attempt, facts: Facts, code: str, reason: str) -> Revert | Fail | None:
    if attempt.former is None:
        return Fail(end=S.FAILED_REVERTED, code=code, reason=f"{reason} There is no former version.")
    if reverts_used_up(attempt) and facts.inferring != attempt.former:
        return Fail(end=S.FAILED_REVERT_FAILED, code=_REVERT_FAILED, reason=reason)
    return _back(attempt.former, facts, code, reason)


def _back(former: ids.Digest, facts: Facts, code: str, reason: str) -> Revert | None:
    """Go back, but not while the pause after a try lasts; where the former version is in use, that is only said."""
    if facts.waiting and facts.inferring != former:
        return None
    return Revert(former=former, code=code, reason=reason)


def _is_wanted(attempt: Attempt, wanted: desired.DesiredModel | None) -> bool:
    return wanted is not None and wanted.deployment_id == attempt.deployment_id
