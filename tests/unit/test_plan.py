"""The rules of `plan`, one case each, and every edge of the transition table that the device takes."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.deploy import gap, plan
from agent.deploy.attempt import Attempt, Fault, FaultKind
from agent.deploy.attempt import Tested as Measured  # or pytest would collect it
from agent.deploy.facts import Facts, Installed, Limits
from agent.deploy.plan_swapped import ACTIVATE_TRIES, REVERT_TRIES
from agent.deploy.probation import Faulty, Passed, Shifted, Watching
from agent.deploy.steps import (
    Activate,
    Collect,
    Commit,
    Download,
    Fail,
    Hold,
    Refuse,
    Revert,
    SelfTest,
    Step,
    Verify,
    Watch,
)
from wire import deployment
from wire.deployment import DeploymentState as S
from wire.deployment import HoldReason
from wire.desired import DesiredModel

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
ID, OTHER_ID = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"
WANTED = DesiredModel(model="parts", active=NEW, release=2, deployment_id=ID)
ON_OLD = Installed(current=OLD, previous=OTHER)
DOWN = Fault(kind=FaultKind.PASSING, code="deployment.download_failed", reason="The line was cut.")
ABSENT = Fault(kind=FaultKind.AWAY, code="network.unreachable", reason="Nobody answers.")
NOW, HOUR = datetime(2026, 3, 1, 12, tzinfo=UTC), timedelta(hours=1)
NO_SPACE, WINDOW, BUSY = HoldReason.NO_SPACE, HoldReason.MAINTENANCE_WINDOW, HoldReason.LINE_BUSY
WRONG_BYTES = Fault(kind=FaultKind.PASSING, code="deployment.digest_mismatch", reason="Other bytes.")
CRASHED = Fault(kind=FaultKind.FAILURE, code="deployment.crashed", reason="It crashed.")
SLOW = Faulty(code="deployment.too_slow", reason="It is slow.")
SHIFTED = Shifted(text="NG 9 of 10 parts, 1 of 100 before.")
CONFIRMATION = HoldReason.AWAITING_CONFIRMATION
ADVICE = "Show parts of known truth, then `lineside models confirm parts` or `lineside models rollback parts`."
ASK = "It is ready to be swapped in once a person says so: `lineside models confirm parts`."
GAP = (
    f"The line stands without verdicts for about {gap.expected_s(3210.0):.1f} s while the versions change: "
    "there is no room in memory for both."
)
TESTED = Measured(latency_p95_ms=10.0, memory_mb=100.0, load_ms=3210.0, memory_limit_mb=1024.0)
BAD = Fault(kind=FaultKind.REFUSAL, code="model.golden_mismatch", reason="It sees other things.")
BROKEN = Fault(kind=FaultKind.FAILURE, code="model.crashed", reason="It crashed.")


def attempt(state: S, **changes: object) -> Attempt:
    base = Attempt(
        deployment_id=ID,
        model="parts",
        digest=NEW,
        release=2,
        state=state,
        sequence=1,
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def activating(**changes: object) -> Attempt:
    return attempt(S.ACTIVATING, **({"former": OLD, "tries": 1, "inferring": OLD} | changes))


def held(reason: HoldReason, for_s: float, until: datetime, state: S = S.DOWNLOADING) -> Attempt:
    return attempt(state, hold=deployment.Hold(reason=reason, deadline=until), held_s={reason: for_s})


def watched(**changes: object) -> Attempt:
    return attempt(S.PROBATION, **({"former": OLD, "inferring": NEW} | changes))


def asked(**changes: object) -> Attempt:
    """It was asked about a while ago; the deadline told then is still right."""
    hold = deployment.Hold(reason=CONFIRMATION, deadline=NOW + timedelta(days=6, hours=23), text="Is it right?")
    return watched(**({"hold": hold, "held_s": {CONFIRMATION: 3600.0}} | changes))


CASES: dict[str, tuple[Installed, DesiredModel | None, Facts, Step | None]] = {
    # rule 1: an activation is finished first
    "1a the version is in use": (
        ON_OLD,
        WANTED,
        Facts(attempt=activating(), inferring=NEW),
        Watch(digest=NEW),
    ),
    "1a it is in use, though another one is asked for by now": (
        ON_OLD,
        replace(WANTED, deployment_id=OTHER_ID),
        Facts(attempt=activating(), inferring=NEW),
        Watch(digest=NEW),
    ),
    "1b a kill came in between": (
        ON_OLD,
        WANTED,
        Facts(attempt=activating(), inferring=OLD),
        Activate(digest=NEW, former=OLD),
    ),
    "1c it failed and the old one never stopped": (
        ON_OLD,
        WANTED,
        Facts(attempt=activating(fault=BROKEN), inferring=OLD),
        Fail(end=S.FAILED_NO_CHANGE, code=BROKEN.code, reason=BROKEN.reason),
    ),
    "1c it failed and nothing is in use": (
        ON_OLD,
        WANTED,
        Facts(attempt=activating(fault=BROKEN), inferring=None),
        Revert(former=OLD, code=BROKEN.code, reason=BROKEN.reason),
    ),
    "1c it failed although its digest is in use": (
        ON_OLD,
        WANTED,
        Facts(attempt=activating(fault=BROKEN), inferring=NEW),
        Revert(former=OLD, code=BROKEN.code, reason=BROKEN.reason),
    ),
    "1c the agent ended once too often": (
        ON_OLD,
        WANTED,
        Facts(attempt=activating(tries=2), inferring=OLD),
        Revert(
            former=OLD,
            code="deployment.attempts_exhausted",
            reason="After 2 activations it is still not the version inferred with.",
        ),
    ),
    "1c it became current and cannot be loaded": (
        Installed(current=NEW, previous=OLD),
        WANTED,
        Facts(attempt=activating(fault=BROKEN), inferring=OLD),
        Revert(former=OLD, code=BROKEN.code, reason=BROKEN.reason),
    ),
    "1c it is no longer asked for and not in use": (
        ON_OLD,
        None,
        Facts(attempt=activating(), inferring=OLD),
        Fail(end=S.FAILED_NO_CHANGE, code="deployment.activation_failed", reason="It is no longer asked for."),
    ),
    "1c the first version ever failed": (
        Installed(),
        WANTED,
        Facts(attempt=activating(former=None, inferring=None, fault=BROKEN)),
        Fail(end=S.FAILED_NO_CHANGE, code=BROKEN.code, reason=BROKEN.reason),
    ),
    "1c the first version ever failed and something else is in use": (
        Installed(),
        WANTED,
        Facts(attempt=activating(former=None, inferring=None, fault=BROKEN), inferring=OTHER),
        Fail(
            end=S.FAILED_REVERT_FAILED,
            code="deployment.revert_failed",
            reason=f"{BROKEN.reason} There is no former version.",
        ),
    ),
    "1c going back was tried often enough": (
        ON_OLD,
        WANTED,
        Facts(attempt=activating(fault=BROKEN, tries=ACTIVATE_TRIES + REVERT_TRIES), inferring=None),
        Fail(end=S.FAILED_REVERT_FAILED, code="deployment.revert_failed", reason=BROKEN.reason),
    ),
    "1c going back was tried often enough, and the old one is in use all the same": (
        ON_OLD,
        WANTED,
        Facts(attempt=activating(fault=BROKEN, tries=ACTIVATE_TRIES + REVERT_TRIES), inferring=OLD),
        Revert(former=OLD, code=BROKEN.code, reason=BROKEN.reason),
    ),
    "1c a pause before going back again is not over": (
        ON_OLD,
        WANTED,
        Facts(attempt=activating(fault=BROKEN, tries=2), inferring=None, waiting=True),
        None,
    ),
    # rule 2: probation
    "2a the agent crashed": (
        ON_OLD,
        WANTED,
        Facts(attempt=watched(fault=CRASHED), inferring=OLD),
        Revert(former=OLD, code=CRASHED.code, reason=CRASHED.reason),
    ),
    "2a the agent crashed with the first version ever: it is not loaded again": (
        Installed(),
        WANTED,
        Facts(attempt=watched(former=None, fault=CRASHED)),
        Fail(end=S.FAILED_REVERTED, code=CRASHED.code, reason=f"{CRASHED.reason} There is no former version."),
    ),
    "2a it is no longer desired": (
        ON_OLD,
        None,
        Facts(attempt=watched(), inferring=NEW, finding=Passed()),
        Revert(former=OLD, code="deployment.withdrawn", reason="It is no longer asked for."),
    ),
    "2a another one is desired": (
        ON_OLD,
        replace(WANTED, deployment_id=OTHER_ID),
        Facts(attempt=watched(), inferring=NEW, finding=Passed()),
        Revert(former=OLD, code="deployment.withdrawn", reason="It is no longer asked for."),
    ),
    "2a it could not be loaded again": (
        ON_OLD,
        WANTED,
        Facts(attempt=watched(), inferring=OLD, finding=Watching()),
        Revert(
            former=OLD,
            code="deployment.activation_failed",
            reason="It was not loaded again: another version infers.",
        ),
    ),
    "2a going back was tried often enough": (
        ON_OLD,
        WANTED,
        Facts(attempt=watched(fault=CRASHED, tries=REVERT_TRIES)),
        Fail(end=S.FAILED_REVERT_FAILED, code="deployment.revert_failed", reason=CRASHED.reason),
    ),
    "2a a pause before going back again is not over": (
        ON_OLD,
        WANTED,
        Facts(attempt=watched(fault=CRASHED, tries=1), inferring=NEW, waiting=True),
        None,
    ),
    "2a the former version is in use by now: no pause keeps it from being said": (
        ON_OLD,
        WANTED,
        Facts(attempt=watched(fault=CRASHED, tries=1), inferring=OLD, waiting=True),
        Revert(former=OLD, code=CRASHED.code, reason=CRASHED.reason),
    ),
    "2b a way back passes at once": (
        ON_OLD,
        WANTED,
        Facts(attempt=watched(urgent=True), inferring=NEW, finding=Watching()),
        Commit(digest=NEW, end=S.SUCCEEDED),
    ),
    "2c it is faulty": (
        ON_OLD,
        WANTED,
        Facts(attempt=watched(), inferring=NEW, finding=SLOW),
        Revert(former=OLD, code=SLOW.code, reason=SLOW.reason),
    ),
    "2c it is faulty while a person is asked about its verdicts": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, attempt=asked(), inferring=NEW, finding=SLOW),
        Revert(former=OLD, code=SLOW.code, reason=SLOW.reason),
    ),
    "2c the first version ever is faulty: a person is asked": (
        Installed(),
        WANTED,
        Facts(now=NOW, attempt=watched(former=None), inferring=NEW, finding=SLOW),
        Hold(
            reason=CONFIRMATION,
            deadline=NOW + timedelta(days=7),
            text=f"{SLOW.reason} There is no former version to go back to. {ADVICE}",
        ),
    ),
    "2c the first version ever is faulty, and a person wants it": (
        Installed(),
        WANTED,
        Facts(attempt=watched(former=None, confirmed=True), inferring=NEW, finding=SLOW),
        Commit(digest=NEW, end=S.SUCCEEDED),
    ),
    "2d its verdicts have shifted": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, attempt=watched(), inferring=NEW, finding=SHIFTED),
        Hold(reason=CONFIRMATION, deadline=NOW + timedelta(days=7), text=f"{SHIFTED.text} {ADVICE}"),
    ),
    "2d a person was asked already": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, attempt=asked(), inferring=NEW, finding=SHIFTED),
        None,
    ),
    "2d what raised the question has gone, the question stays": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, attempt=asked(), inferring=NEW, finding=Passed()),
        None,
    ),
    "2d nobody has answered": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, attempt=asked(held_s={CONFIRMATION: 7 * 86400.0}), inferring=NEW, finding=SHIFTED),
        Revert(former=OLD, code="deployment.hold_expired", reason="Given up after 168 h: nobody confirmed it."),
    ),
    "2d nobody has answered about the first version ever": (
        Installed(),
        WANTED,
        Facts(now=NOW, attempt=asked(former=None, held_s={CONFIRMATION: 7 * 86400.0}), inferring=NEW, finding=SLOW),
        Fail(
            end=S.FAILED_REVERTED,
            code="deployment.hold_expired",
            reason="Given up after 168 h: nobody confirmed it. There is no former version.",
        ),
    ),
    "2d the clock was set while a person is asked": (
        ON_OLD,
        WANTED,
        Facts(now=NOW + 1000 * HOUR, attempt=asked(), inferring=NEW, finding=SHIFTED),
        Hold(reason=CONFIRMATION, deadline=NOW + 1167 * HOUR, text="Is it right?"),
    ),
    "2e it has passed": (
        ON_OLD,
        WANTED,
        Facts(attempt=watched(), inferring=NEW, finding=Passed()),
        Commit(digest=NEW, end=S.SUCCEEDED),
    ),
    "2e it has passed after a person confirmed it": (
        ON_OLD,
        WANTED,
        Facts(attempt=watched(confirmed=True), inferring=NEW, finding=Passed()),
        Commit(digest=NEW, end=S.SUCCEEDED),
    ),
    "2e it is watched": (ON_OLD, WANTED, Facts(attempt=watched(), inferring=NEW, finding=Watching()), None),
    "2e it is watched, whatever the line does": (
        ON_OLD,
        WANTED,
        Facts(attempt=watched(spent_s=1e9), inferring=NEW, finding=Watching(), not_now=BUSY, confirm=True),
        None,
    ),
    # rule 3: nothing to do
    "3 nothing is desired": (ON_OLD, None, Facts(inferring=OLD), None),
    "3 it is over": (ON_OLD, WANTED, Facts(attempt=attempt(S.REFUSED, fault=BAD), inferring=OLD), None),
    "3 it was over before another one came": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.SUCCEEDED, deployment_id=OTHER_ID), ended_before=True, inferring=OLD),
        None,
    ),
    "3 it is over and files are left": (
        Installed(current=NEW, previous=OLD),
        WANTED,
        Facts(attempt=attempt(S.SUCCEEDED), inferring=NEW, unneeded=(OTHER,)),
        Collect(digests=(OTHER,)),
    ),
    "3a it was taken back on its way": (
        ON_OLD,
        None,
        Facts(attempt=attempt(S.STAGED), inferring=OLD),
        Fail(end=S.FAILED_NO_CHANGE, code="deployment.withdrawn", reason="It was taken back before its swap."),
    ),
    "3a it was taken back for one that was over before": (
        ON_OLD,
        replace(WANTED, deployment_id=OTHER_ID),
        Facts(attempt=held(NO_SPACE, 60.0, NOW), inferring=OLD, ended_before=True),
        Fail(end=S.FAILED_NO_CHANGE, code="deployment.withdrawn", reason="It was taken back before its swap."),
    ),
    "3b nobody knows whether it was taken back": (
        ON_OLD,
        None,
        Facts(attempt=attempt(S.STAGED), inferring=OLD, document_known=False),
        None,
    ),
    # rule 4: a new deployment
    "4 a first deployment": (ON_OLD, WANTED, Facts(inferring=OLD), Download(digest=NEW)),
    "4 another one is abandoned": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.SELF_TESTING, deployment_id=OTHER_ID, digest=OTHER), inferring=OLD),
        Download(digest=NEW),
    ),
    "4 it is in use already": (
        Installed(current=NEW),
        WANTED,
        Facts(inferring=NEW),
        Commit(digest=NEW, end=S.ALREADY_INSTALLED),
    ),
    "4 it is kept, but another version is in use": (
        Installed(current=NEW, previous=OLD),
        WANTED,
        Facts(inferring=OLD),
        Download(digest=NEW),
    ),
    # rules 5 to 6: faults
    "5 a refusal": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.SELF_TESTING, fault=BAD)),
        Refuse(code=BAD.code, reason=BAD.reason),
    ),
    "5 wrong bytes a second time": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.DOWNLOADING, fault=WRONG_BYTES, mismatches=2, tries=1), waiting=True),
        Refuse(code=WRONG_BYTES.code, reason=WRONG_BYTES.reason),
    ),
    "5 wrong bytes once are fetched again": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.DOWNLOADING, fault=WRONG_BYTES, mismatches=1, tries=1)),
        Download(digest=NEW),
    ),
    "6 a failure": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.SELF_TESTING, fault=BROKEN)),
        Fail(end=S.FAILED_NO_CHANGE, code=BROKEN.code, reason=BROKEN.reason),
    ),
    "6 the network stayed away": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.DOWNLOADING, fault=DOWN, tries=plan.DOWNLOAD_TRIES)),
        Fail(end=S.FAILED_NO_CHANGE, code=DOWN.code, reason=DOWN.reason),
    ),
    "6 the agent ended in each self-test": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.SELF_TESTING, tries=plan.SELF_TEST_TRIES)),
        Fail(
            end=S.FAILED_NO_CHANGE,
            code="deployment.attempts_exhausted",
            reason="The agent ended 2 times while self testing.",
        ),
    ),
    "6 the time is over while nobody answers": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.DOWNLOADING, fault=ABSENT, spent_s=86400.0), waiting=True),
        Fail(end=S.FAILED_NO_CHANGE, code=ABSENT.code, reason=f"Given up after 24 h. {ABSENT.reason}"),
    ),
    "6 the time is over though all went well": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.DOWNLOADING, spent_s=7200.0), limits=Limits(attempt_s=7200.0)),
        Fail(
            end=S.FAILED_NO_CHANGE,
            code="deployment.attempts_exhausted",
            reason="Given up after 2 h. It went on too slowly.",
        ),
    ),
    "6 there is time left": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.DOWNLOADING, fault=ABSENT, spent_s=86399.0)),
        Download(digest=NEW),
    ),
    "6 what is ready has no such time": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.STAGED, spent_s=86400.0), inferring=OLD),
        Activate(digest=NEW, former=OLD),
    ),
    # rule 7: holds
    "7a no room, and files that nothing needs": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.DOWNLOADING), no_room=True, unneeded=(OTHER,)),
        Collect(digests=(OTHER,)),
    ),
    "7c no room for a new deployment": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, no_room=True),
        Hold(reason=NO_SPACE, deadline=NOW + timedelta(days=1)),
    ),
    "7c no room, told already": (
        ON_OLD,
        WANTED,
        Facts(now=NOW + HOUR, no_room=True, attempt=held(NO_SPACE, 3600.0, NOW + timedelta(days=1))),
        None,
    ),
    "7c no room, and the clock was set": (
        ON_OLD,
        WANTED,
        Facts(now=NOW + 1000 * HOUR, no_room=True, attempt=held(NO_SPACE, 3600.0, NOW + timedelta(days=1))),
        Hold(reason=NO_SPACE, deadline=NOW + 1023 * HOUR),
    ),
    "7c no room until now": (
        ON_OLD,
        WANTED,
        Facts(now=NOW + HOUR, attempt=held(NO_SPACE, 3600.0, NOW + timedelta(days=1))),
        Download(digest=NEW),
    ),
    "7b no room for too long": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, no_room=True, attempt=held(NO_SPACE, 86400.0, NOW)),
        Fail(
            end=S.FAILED_NO_CHANGE,
            code="storage.full",
            reason="Given up after 24 h: there is no room on the disk for this version.",
        ),
    ),
    "7 a refusal comes before a hold": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, no_room=True, attempt=attempt(S.DOWNLOADING, fault=BAD)),
        Refuse(code=BAD.code, reason=BAD.reason),
    ),
    "7c no maintenance window is open": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, not_now=WINDOW, attempt=attempt(S.STAGED), inferring=OLD),
        Hold(reason=WINDOW, deadline=NOW + timedelta(days=8)),
    ),
    "7c no maintenance window can be told, and why": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, not_now=WINDOW, not_now_words="The clock is wrong.", attempt=attempt(S.STAGED), inferring=OLD),
        Hold(reason=WINDOW, deadline=NOW + timedelta(days=8), text="The clock is wrong."),
    ),
    "7c the window is open and the line is busy": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, not_now=BUSY, attempt=held(WINDOW, 7200.0, NOW + HOUR, S.STAGED), inferring=OLD),
        Hold(reason=BUSY, deadline=NOW + timedelta(days=1)),
    ),
    "7c the line is busy once more: the time counts on": (
        ON_OLD,
        WANTED,
        Facts(
            now=NOW,
            not_now=BUSY,
            attempt=attempt(S.STAGED, held_s={BUSY: 20 * 3600.0, WINDOW: 3600.0}),
            inferring=OLD,
        ),
        Hold(reason=BUSY, deadline=NOW + 4 * HOUR),
    ),
    "7b the line was busy for too long": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, not_now=BUSY, attempt=held(BUSY, 86400.0, NOW, S.STAGED), inferring=OLD),
        Fail(
            end=S.FAILED_NO_CHANGE,
            code="deployment.hold_expired",
            reason="Given up after 24 h: the line was busy all the time.",
        ),
    ),
    "7b no window for too long": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, not_now=WINDOW, attempt=held(WINDOW, 8 * 86400.0, NOW, S.STAGED), inferring=OLD),
        Fail(
            end=S.FAILED_NO_CHANGE,
            code="deployment.hold_expired",
            reason="Given up after 192 h: no maintenance window was open.",
        ),
    ),
    "7 a line without a version does not wait": (
        Installed(),
        WANTED,
        Facts(now=NOW, not_now=WINDOW, attempt=attempt(S.STAGED)),
        Activate(digest=NEW, former=None),
    ),
    "7 a download does not wait for a window": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, not_now=WINDOW, attempt=attempt(S.DOWNLOADING), inferring=OLD),
        Download(digest=NEW),
    ),
    "1b an activation that was begun does not wait": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, not_now=BUSY, attempt=activating(), inferring=OLD),
        Activate(digest=NEW, former=OLD),
    ),
    "7c a person confirms each swap": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, confirm=True, not_now=WINDOW, attempt=attempt(S.STAGED, tested=TESTED), inferring=OLD),
        Hold(reason=CONFIRMATION, deadline=NOW + timedelta(days=7), text=ASK),
    ),
    "7c a person confirms each swap, which then takes place in a window": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, confirm=True, has_windows=True, attempt=attempt(S.STAGED, tested=TESTED), inferring=OLD),
        Hold(
            reason=CONFIRMATION,
            deadline=NOW + timedelta(days=7),
            text="It is ready to be swapped in, in a maintenance window, once a person says so: "
            "`lineside models confirm parts`.",
        ),
    ),
    "7c a person has confirmed it, and no window is open": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, confirm=True, not_now=WINDOW, attempt=attempt(S.STAGED, confirmed=True), inferring=OLD),
        Hold(reason=WINDOW, deadline=NOW + timedelta(days=8)),
    ),
    "7b nobody has confirmed it": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, confirm=True, attempt=held(CONFIRMATION, 7 * 86400.0, NOW, S.STAGED), inferring=OLD),
        Fail(
            end=S.FAILED_NO_CHANGE,
            code="deployment.hold_expired",
            reason="Given up after 168 h: nobody confirmed it.",
        ),
    ),
    "7c memory has no room for both, and there are no windows": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, exclusive=True, attempt=attempt(S.STAGED, tested=TESTED), inferring=OLD),
        Hold(reason=CONFIRMATION, deadline=NOW + timedelta(days=7), text=f"{GAP} {ASK}"),
    ),
    "7c memory has no room for both: it waits for a window and says how long the line stands": (
        ON_OLD,
        WANTED,
        Facts(
            now=NOW,
            exclusive=True,
            has_windows=True,
            not_now=WINDOW,
            attempt=attempt(S.STAGED, tested=TESTED),
            inferring=OLD,
        ),
        Hold(reason=WINDOW, deadline=NOW + timedelta(days=8), text=GAP),
    ),
    "9 memory has no room for both, and a window is open": (
        ON_OLD,
        WANTED,
        Facts(now=NOW, exclusive=True, has_windows=True, attempt=attempt(S.STAGED, tested=TESTED), inferring=OLD),
        Activate(digest=NEW, former=OLD, exclusive=True),
    ),
    "7 a way back waits for nobody": (
        ON_OLD,
        WANTED,
        Facts(
            now=NOW,
            confirm=True,
            exclusive=True,
            not_now=BUSY,
            attempt=attempt(S.STAGED, urgent=True),
            inferring=OLD,
        ),
        Activate(digest=NEW, former=OLD, exclusive=True),
    ),
    "4 one of the device's own that is in use already": (
        Installed(current=OLD, previous=NEW),
        WANTED,
        Facts(attempt=attempt(S.QUEUED), inferring=NEW),
        Commit(digest=NEW, end=S.ALREADY_INSTALLED),
    ),
    "4 one of the device's own": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.QUEUED), inferring=OLD),
        Download(digest=NEW),
    ),
    "8 a pause": (ON_OLD, WANTED, Facts(attempt=attempt(S.DOWNLOADING, fault=DOWN, tries=1), waiting=True), None),
    # rule 9: the way
    "9 downloading": (ON_OLD, WANTED, Facts(attempt=attempt(S.DOWNLOADING)), Download(digest=NEW)),
    "9 verifying": (ON_OLD, WANTED, Facts(attempt=attempt(S.VERIFYING)), Verify(digest=NEW)),
    "9 self-testing": (ON_OLD, WANTED, Facts(attempt=attempt(S.SELF_TESTING)), SelfTest(digest=NEW)),
    "9 staged": (ON_OLD, WANTED, Facts(attempt=attempt(S.STAGED), inferring=OLD), Activate(digest=NEW, former=OLD)),
    "9 staged, while the version before the last is in use": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.STAGED), inferring=OTHER),
        Activate(digest=NEW, former=OTHER),
    ),
    "9 staged, to replace a damaged self": (
        Installed(current=NEW, previous=OLD),
        WANTED,
        Facts(attempt=attempt(S.STAGED), inferring=None),
        Activate(digest=NEW, former=OLD),
    ),
    "9 staged, the first version ever": (
        Installed(),
        WANTED,
        Facts(attempt=attempt(S.STAGED)),
        Activate(digest=NEW, former=None),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_rule_gives_the_step_its_sentence_says(case: str) -> None:
    installed, wanted, facts, expected = CASES[case]
    assert plan.plan(installed, wanted, facts) == expected


def test_every_rule_of_the_docstring_has_a_case() -> None:
    rules = set(re.findall(r"^\s+(\d)\. ", plan.plan.__doc__ or "", re.MULTILINE))
    assert rules == {name[0] for name in CASES}
