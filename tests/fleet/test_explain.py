"""Why has this device not got that version: one chain of facts and one sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from fleet.deployments import advice, chain
from fleet.deployments.gathered import Asked, Gathered, Told
from tests.fleet.test_local_deployments import FOREIGN, LOCAL, report, says, take
from tests.support.fleet_stand import START, Stand
from wire.deployment import DeploymentState, Hold, HoldReason, Origin, ProbationReport
from wire.errors import REGISTER

S = DeploymentState
A, B = "a" * 64, "b" * 64


def hour(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def told(state: S, hours: float, sequence: int = 1, **more: Any) -> Told:
    return Told(report=report(LOCAL, B, state, sequence, at=hour(hours), **more), received_at=hour(hours))


def asked(state: S, *reports: Told, **more: Any) -> Asked:
    values: dict[str, Any] = {
        "id": LOCAL,
        "state": state,
        "origin": Origin.FLEET,
        "by": "",
        "created_at": hour(1),
        "created_by": "operator:eva",
        "revision": 4,
        "reason": "",
        "code": "",
        "ended_at": None,
        "reports": reports,
        **more,
    }
    return Asked(**values)


BASE = Gathered(
    device="cell-1",
    model="parts",
    release=3,
    digest=B,
    now=hour(20),
    registered_at=hour(0),
    registered_by="operator:rita",
    desired_digest=B,
    desired_release=3,
    desired_revision=4,
    desired_at=hour(1),
    desired_by="operator:eva",
    online=True,
    last_seen_at=hour(20),
    read_revision=4,
    reported_at=hour(2),
    runs_digest=A,
    runs_release=2,
    runs_since=hour(-100),
)
HOLD = Hold(reason=HoldReason.MAINTENANCE_WINDOW, deadline=hour(30), text="The line stands without verdicts for 3 s.")
SEEN = ProbationReport(parts=34, faults=1, parts_needed=100, look_p95_ms=12.0, former_look_p95_ms=11.0)
NOT = "cell-1 has not got parts release 3 because "


PROBATION = asked(S.PROBATION, told(S.PROBATION, 5, probation=SEEN))
REFUSED = asked(S.REFUSED, code="model.golden_mismatch", reason="2 of 4 differ.")
SLOW = asked(S.FAILED_REVERTED, code="deployment.too_slow", reason="p95 is 40 ms")
SILENT = asked(S.TIMED_OUT, told(S.STAGED, 6), reason="Nothing was heard.")
HAS = replace(BASE, runs_digest=B, runs_release=3, runs_since=hour(5))
AWAY = replace(BASE, online=False, last_seen_at=hour(7))
NOBODY = "nobody has asked for it: the desired document (revision 4, by operator:eva at 2026-03-01 13:00 UTC) names"


@pytest.mark.parametrize(
    ("gathered", "has_it", "answer"),
    [
        (HAS, True, "cell-1 has parts release 3: it runs it since 2026-03-01 17:00 UTC."),
        (replace(HAS, asked=[PROBATION]), True, "its deployment is probation, by its report of 2026-03-01 17:00 UTC; "),
        (replace(HAS, asked=[PROBATION]), True, "probation has seen 34 of 100 parts, 1 of them without verdict, looks"),
        (replace(HAS, asked=[SILENT]), True, "although its newest deployment ended as timed out."),
        (replace(HAS, desired_digest=A, desired_release=2), True, "although the desired document (revision 4, by"),
        (
            replace(BASE, registered_at=None),
            False,
            "cell-1 has not got parts release 3 (bbbbbbbbbbbb) because the registry has no such version",
        ),
        (replace(BASE, desired_release=2, desired_digest=A), False, NOT + NOBODY + " release 2."),
        (replace(BASE, desired_release=None, desired_digest=None), False, "names no version of parts."),
        (replace(BASE, revoked_at=hour(6)), False, NOT + "the device is revoked"),
        (
            replace(AWAY, asked=[asked(S.QUEUED)]),
            False,
            NOT + "the device is offline, last seen 2026-03-01 19:00 UTC, and has not taken it up.",
        ),
        (
            replace(BASE, read_revision=3, asked=[asked(S.QUEUED)]),
            False,
            NOT + "the device has not read revision 4 of its desired document yet (it has read revision 3).",
        ),
        (
            replace(BASE, asked=[asked(S.QUEUED, waits="It is waited for.")]),
            False,
            NOT + "the device has read that it is asked for and has not begun yet. It is waited for.",
        ),
        (
            replace(BASE, asked=[asked(S.QUEUED, behind="release 1 was asked for at the device by anna")]),
            False,
            NOT + "release 1 was asked for at the device by anna, and that goes first.",
        ),
        (
            replace(BASE, asked=[asked(S.STAGED, told(S.STAGED, 6, hold=HOLD))]),
            False,
            "waits for a maintenance window until 2026-03-02 18:00 UTC: The line stands without verdicts for 3 s.",
        ),
        (
            replace(AWAY, asked=[asked(S.DOWNLOADING, told(S.DOWNLOADING, 6))]),
            False,
            "its report of 2026-03-01 18:00 UTC. The device is offline, last seen 2026-03-01 19:00 UTC.",
        ),
        (
            replace(BASE, asked=[REFUSED]),
            False,
            NOT + "the device refused it (model.golden_mismatch): 2 of 4 differ. Compare on the device",
        ),
        (
            replace(BASE, asked=[SLOW]),
            False,
            "the device ended it as failed reverted (deployment.too_slow): p95 is 40 ms. Publish a lighter release",
        ),
        (
            replace(BASE, asked=[SILENT]),
            False,
            NOT + "its deployment was timed out: Nothing was heard; the newest word of the device was staged.",
        ),
        (
            replace(BASE, asked=[asked(S.CANCELED, reason="operator:eva took it back: wrong lot")]),
            False,
            "its deployment was canceled: operator:eva took it back: wrong lot.",
        ),
        (
            replace(
                BASE, asked=[asked(S.SUCCEEDED, ended_at=hour(5))], deviation="runs release 2; desired is release 3"
            ),
            False,
            NOT + "it had it at 2026-03-01 17:00 UTC, but parts runs release 2; desired is release 3.",
        ),
        # the newest deployment counts
        (replace(BASE, asked=[asked(S.CANCELED), asked(S.QUEUED)]), False, "has not begun yet."),
    ],
)
def test_one_sentence_answers(gathered: Gathered, has_it: bool, answer: str) -> None:
    found = chain.of(gathered)
    assert found.has_it is has_it
    assert answer in found.answer, found.answer
    assert found.answer.count("\n") == 0


def test_facts_stand_in_the_order_of_their_times_and_say_who_says_so() -> None:
    one = asked(
        S.FAILED_REVERTED,
        told(S.DOWNLOADING, 2),
        told(S.STAGED, 3, 2, hold=HOLD),
        told(S.PROBATION, 5, 3, probation=SEEN),
        told(S.FAILED_REVERTED, 6, 4, code="deployment.too_slow", reason="p95 is 40 ms"),
        code="deployment.too_slow",
        reason="p95 is 40 ms",
    )
    found = chain.of(replace(BASE, asked=[one], online=False, refusals=["no model caps."], deviation="runs it"))
    said = [(fact.source, fact.text) for fact in found.facts]
    held = "The line stands without verdicts for 3 s."
    seen = "34 of 100 parts, 1 of them without verdict, looks take 12.0 ms at p95 (before: 11.0 ms)."
    assert said == [
        ("registry", "parts release 3 was registered by operator:rita."),
        ("desired document", f"parts release 3 was asked for in revision 4 by operator:eva ({LOCAL})."),
        ("device", "reported: downloading."),
        ("device", "cell-1 has read revision 4 of its desired document."),
        ("device", f"reported: staged; waits for a maintenance window until 2026-03-02 18:00 UTC: {held}"),
        ("device", f"reported: probation; probation has seen {seen}"),
        ("device", "reported: failed reverted; deployment.too_slow: p95 is 40 ms."),
        ("device", "cell-1 runs parts release 2 since 2026-02-25 08:00 UTC."),
        ("fleet", "parts runs it."),
        ("device", "cell-1 refuses: no model caps."),
        ("fleet", "cell-1 is offline, last seen 2026-03-02 08:00 UTC."),
    ]
    times = [fact.at for fact in found.facts if fact.at is not None]
    assert times == sorted(times)
    fault = next(fact for fact in found.facts if fact.code)
    assert fault.next_step == advice.OF_CODE["deployment.too_slow"]


def test_each_code_a_deployment_can_end_with_comes_with_what_to_do() -> None:
    assert set(advice.OF_CODE) <= set(REGISTER)
    ends = {code for code in REGISTER if code.startswith("deployment.")} - {"deployment.illegal_transition"}
    assert ends <= set(advice.OF_CODE)
    assert all(advice.of(code).endswith(".") for code in REGISTER)
    assert advice.of("") == ""


def explain(stand: Stand, **params: str) -> dict[str, Any]:
    answer = stand.send("GET", "/devices/cell-1/models/parts/explain", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_fleet_explains_a_device_over_the_api(stand: Stand) -> None:
    stand.enrol("cell-1")
    first, second = stand.push("parts", 1, model=b"1"), stand.push("parts", 2, model=b"2")
    missing = stand.send("GET", "/devices/cell-1/models/parts/explain")
    assert (missing.status_code, missing.json()["code"]) == (404, "resource.not_found")
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    assert "the device is offline, last seen never" in explain(stand)["answer"]
    stand.advance(hours=1)
    take(stand, report(deployment, first, S.SUCCEEDED, 7, at=stand.now, inferring_digest=first))
    says(stand, first, 1)
    found = explain(stand)
    assert (found["has_it"], found["release"], found["digest"]) == (True, 1, first)
    assert "nobody has asked for it" in explain(stand, release="2")["answer"]
    stand.advance(hours=1)
    take(stand, report(LOCAL, FOREIGN, S.SUCCEEDED, 7, at=stand.now, origin=Origin.DEVICE, by="anna"))
    says(stand, FOREIGN, 2)
    found = explain(stand)
    assert found["has_it"] is False
    assert "asked for at the device by anna; desired is release 1" in found["answer"]
    local = explain(stand, digest=FOREIGN)
    assert (local["has_it"], local["release"]) == (True, None)
    assert any("asked for at the device by anna" in fact["text"] for fact in local["facts"])
    assert explain(stand, digest=second)["release"] == 2
    assert stand.send("GET", "/devices/cell-1/models/parts/explain?release=99").status_code == 404
    both = stand.send("GET", f"/devices/cell-1/models/parts/explain?release=1&digest={first}")
    assert both.status_code == 422
