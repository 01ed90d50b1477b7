"""The rules of `plan`, one case each, and every edge of the transition table that the device takes."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.deploy import plan
from agent.deploy.attempt import Attempt, Fault, FaultKind
from agent.deploy.plan import (
    Activate,
    Collect,
    Commit,
    Download,
    Facts,
    Fail,
    Installed,
    Refuse,
    Revert,
    SelfTest,
    Verify,
)
from wire.deployment import DeploymentState as S
from wire.desired import DesiredModel

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
ID, OTHER_ID = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"
WANTED = DesiredModel(model="parts", active=NEW, release=2, deployment_id=ID)
ON_OLD = Installed(current=OLD, previous=OTHER)
DOWN = Fault(kind=FaultKind.PASSING, code="deployment.download_failed", reason="The line was cut.")
WRONG_BYTES = Fault(kind=FaultKind.PASSING, code="deployment.digest_mismatch", reason="Other bytes.")
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


CASES = {
    # rule 1: an activation is finished first
    "1a the version is in use": (
        ON_OLD,
        WANTED,
        Facts(attempt=activating(), inferring=NEW),
        Commit(digest=NEW, end=S.SUCCEEDED),
    ),
    "1a it is in use, though another one is asked for by now": (
        ON_OLD,
        replace(WANTED, deployment_id=OTHER_ID),
        Facts(attempt=activating(), inferring=NEW),
        Commit(digest=NEW, end=S.SUCCEEDED),
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
        Facts(attempt=activating(fault=BROKEN, tries=4), inferring=None),
        Fail(end=S.FAILED_REVERT_FAILED, code="deployment.revert_failed", reason=BROKEN.reason),
    ),
    # rule 2: nothing to do
    "2 nothing is desired": (ON_OLD, None, Facts(inferring=OLD), None),
    "2 it is over": (ON_OLD, WANTED, Facts(attempt=attempt(S.REFUSED, fault=BAD), inferring=OLD), None),
    "2 it was over before another one came": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.SUCCEEDED, deployment_id=OTHER_ID), ended_before=True, inferring=OLD),
        None,
    ),
    "2 it is over and files are left": (
        Installed(current=NEW, previous=OLD),
        WANTED,
        Facts(attempt=attempt(S.SUCCEEDED), inferring=NEW, unneeded=(OTHER,)),
        Collect(digests=(OTHER,)),
    ),
    # rule 3: a new deployment
    "3 a first deployment": (ON_OLD, WANTED, Facts(inferring=OLD), Download(digest=NEW)),
    "3 another one is abandoned": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.SELF_TESTING, deployment_id=OTHER_ID, digest=OTHER), inferring=OLD),
        Download(digest=NEW),
    ),
    "3 it is in use already": (
        Installed(current=NEW),
        WANTED,
        Facts(inferring=NEW),
        Commit(digest=NEW, end=S.ALREADY_INSTALLED),
    ),
    "3 it is kept, but another version is in use": (
        Installed(current=NEW, previous=OLD),
        WANTED,
        Facts(inferring=OLD),
        Download(digest=NEW),
    ),
    # rules 4 to 6: faults
    "4 a refusal": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.SELF_TESTING, fault=BAD)),
        Refuse(code=BAD.code, reason=BAD.reason),
    ),
    "4 wrong bytes a second time": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.DOWNLOADING, fault=WRONG_BYTES, mismatches=2, tries=1), waiting=True),
        Refuse(code=WRONG_BYTES.code, reason=WRONG_BYTES.reason),
    ),
    "4 wrong bytes once are fetched again": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.DOWNLOADING, fault=WRONG_BYTES, mismatches=1, tries=1)),
        Download(digest=NEW),
    ),
    "5 a failure": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.SELF_TESTING, fault=BROKEN)),
        Fail(end=S.FAILED_NO_CHANGE, code=BROKEN.code, reason=BROKEN.reason),
    ),
    "5 the network stayed away": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.DOWNLOADING, fault=DOWN, tries=plan.DOWNLOAD_TRIES)),
        Fail(end=S.FAILED_NO_CHANGE, code=DOWN.code, reason=DOWN.reason),
    ),
    "5 the agent ended in each self-test": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.SELF_TESTING, tries=plan.SELF_TEST_TRIES)),
        Fail(
            end=S.FAILED_NO_CHANGE,
            code="deployment.attempts_exhausted",
            reason="The agent ended 2 times while self testing.",
        ),
    ),
    "6 a pause": (ON_OLD, WANTED, Facts(attempt=attempt(S.DOWNLOADING, fault=DOWN, tries=1), waiting=True), None),
    # rule 7: the way
    "7 downloading": (ON_OLD, WANTED, Facts(attempt=attempt(S.DOWNLOADING)), Download(digest=NEW)),
    "7 verifying": (ON_OLD, WANTED, Facts(attempt=attempt(S.VERIFYING)), Verify(digest=NEW)),
    "7 self-testing": (ON_OLD, WANTED, Facts(attempt=attempt(S.SELF_TESTING)), SelfTest(digest=NEW)),
    "7 staged": (ON_OLD, WANTED, Facts(attempt=attempt(S.STAGED), inferring=OLD), Activate(digest=NEW, former=OLD)),
    "7 staged, while the version before the last is in use": (
        ON_OLD,
        WANTED,
        Facts(attempt=attempt(S.STAGED), inferring=OTHER),
        Activate(digest=NEW, former=OTHER),
    ),
    "7 staged, to replace a damaged self": (
        Installed(current=NEW, previous=OLD),
        WANTED,
        Facts(attempt=attempt(S.STAGED), inferring=None),
        Activate(digest=NEW, former=OLD),
    ),
    "7 staged, the first version ever": (
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
