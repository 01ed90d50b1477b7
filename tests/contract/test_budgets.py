"""Byte budgets: the largest realistic message of each topic fits, and any single record fits a batch of its own."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from wire import codec, messages, topics
from wire.deployment import DeploymentReport, DeploymentState, Hold, HoldReason, Origin, ProbationReport, SelfTestReport
from wire.inspection import Box, Finding, Inspection, Reason, TimeSource, Timings, Verdict, ViewRecord
from wire.sampling import Draw

NOW = datetime(2026, 11, 21, 8, 30, 0, 123456, tzinfo=UTC)
NAME = "a" * 64
DIGEST = "f" * 64
UUID = "01932f5e-7a10-7abc-8def-0123456789ab"
TEXT = "x" * 200
BIG = 2**53
SCORE = 0.9123456789012345


def finding() -> Finding:
    box = Box(x1_px=1234.5678901, y1_px=1234.5678901, x2_px=1345.6789012, y2_px=1345.6789012)
    return Finding(label="missing hole, upper left", score=SCORE, box=box, area_px=12345.678, area_mm2=123.45678)


def view(findings: int) -> ViewRecord:
    return ViewRecord(
        view=NAME,
        camera=TEXT,
        verdict=Verdict.NO_VERDICT,
        score=SCORE,
        reason=Reason.UNUSABLE_OUTPUT,
        frame_number=BIG,
        frame_at=NOW,
        width_px=4096,
        height_px=3072,
        model=NAME,
        model_digest=DIGEST,
        deployment_id=UUID,
        findings=(finding(),) * findings,
        picture_digest=DIGEST,
        timings_ms=Timings(retrieve=SCORE, preprocess=SCORE, run=SCORE, decode=SCORE, judge=SCORE),
    )


def inspection(*, views: int, findings: int) -> Inspection:
    return Inspection(
        id=UUID,
        device=NAME,
        station=NAME,
        recipe=NAME,
        recipe_revision=BIG,
        trigger_id=TEXT,
        trigger_sequence=BIG,
        lot=TEXT,
        part_id=TEXT,
        triggered_at=NOW,
        judged_at=NOW,
        time_source=TimeSource.FREE_RUNNING,
        time_uncertainty_ms=SCORE,
        verdict=Verdict.NO_VERDICT,
        score=SCORE,
        reason=Reason.UNUSABLE_OUTPUT,
        rule_fired=TEXT,
        parameters_revision=BIG,
        views=(view(findings),) * views,
        sampling=Draw(plan_revision=BIG, stratum=NAME, pi=SCORE, u=SCORE, kept=False),
        total_ms=SCORE,
        disposition=TEXT,
    )


def batch_of(lane: messages.Lane, body: object) -> bytes:
    entry = messages.Entry(seq=BIG, body=msgspec.Raw(codec.encode(body)))
    return codec.encode(messages.Batch(device=NAME, epoch="0" * 16, lane=lane, entries=(entry,)))


def station(number: int) -> messages.StationHealth:
    return messages.StationHealth(
        station=f"{number:02d}" + "s" * 62,
        triggers=BIG,
        verdicts=BIG,
        frames_in=BIG,
        frames_used=BIG,
        frames_not_triggered=BIG,
        frames_dropped=BIG,
        latency_p50_ms=SCORE,
        latency_p99_ms=SCORE,
    )


LARGEST: dict[messages.Lane, object] = {
    messages.Lane.INSPECTIONS: inspection(views=8, findings=100),
    messages.Lane.COUNTERS: messages.Counter(
        minute=NOW, station=NAME, recipe=NAME, model_digest=DIGEST, verdict=Verdict.NO_VERDICT, stratum=NAME, count=BIG
    ),
    messages.Lane.DEPLOYMENTS: DeploymentReport(
        deployment_id=UUID,
        model=NAME,
        digest=DIGEST,
        state=DeploymentState.FAILED_REVERT_FAILED,
        sequence=BIG,
        attempt=BIG,
        at=NOW,
        code="c" * 64,
        reason="r" * 1000,
        hold=Hold(reason=HoldReason.AWAITING_CONFIRMATION, deadline=NOW, text="h" * 500),
        inferring_digest=DIGEST,
        origin=Origin.DEVICE,
        by=TEXT,
        release=BIG,
        probation=ProbationReport(
            parts=BIG, faults=BIG, parts_needed=BIG, look_p95_ms=SCORE, former_look_p95_ms=SCORE, shift="s" * 500
        ),
        tested=SelfTestReport(latency_p95_ms=SCORE, memory_mb=SCORE, load_ms=SCORE),
    ),
    messages.Lane.SHADOW: messages.ShadowPair(
        inspection_id=UUID,
        at=NOW,
        station=NAME,
        recipe=NAME,
        model=NAME,
        active_digest=DIGEST,
        digest=DIGEST,
        rate=SCORE,
        active_verdict=Verdict.NO_VERDICT,
        verdict=Verdict.NO_VERDICT,
        views=(
            messages.ShadowView(
                view=NAME,
                active_verdict=Verdict.NO_VERDICT,
                verdict=Verdict.NO_VERDICT,
                active_score=SCORE,
                score=SCORE,
                reason=Reason.UNUSABLE_OUTPUT,
                findings=(finding(),) * 20,
                picture_digest=DIGEST,
            ),
        )
        * 16,
    ),
    messages.Lane.EVENTS: messages.Event(
        at=NOW, name="a" * 31 + "." + "b" * 32, severity=messages.Severity.WARNING, text="t" * 1000
    ),
    messages.Lane.HEALTH: messages.Health(
        at=NOW,
        uptime_s=1e9,
        cpu_fraction=SCORE,
        rss_bytes=BIG,
        disk_free_bytes=BIG,
        disk_free_fraction=SCORE,
        temperature_c=SCORE,
        outbox_unsettled=BIG,
        outbox_bytes=BIG,
        outbox_dropped=BIG,
        threads_stalled=(TEXT,) * 50,
        stations=tuple(station(number) for number in range(32)),
    ),
}


@pytest.mark.parametrize("lane", messages.Lane)
def test_the_largest_record_of_a_lane_fits_a_batch_of_its_own(lane: messages.Lane) -> None:
    payload = batch_of(lane, LARGEST[lane])
    assert len(payload) <= topics.TABLE[lane].max_bytes
    assert (
        codec.decode(codec.decode(payload, messages.Batch).entries[0].body, messages.BODY_OF_LANE[lane])
        == LARGEST[lane]
    )


def test_an_inspection_with_a_hundred_findings_takes_less_than_a_tenth_of_the_budget() -> None:
    record = codec.encode(inspection(views=1, findings=100))
    assert len(record) < topics.TABLE["inspections"].max_bytes / 10


def test_a_plain_inspection_with_the_longest_texts_stays_small_enough_that_fifty_fit_one_batch() -> None:
    record = codec.encode(inspection(views=1, findings=2))
    assert len(record) * 50 < topics.TABLE["inspections"].max_bytes


def test_an_ack_for_a_full_batch_with_every_other_record_refused_fits() -> None:
    ack = messages.RangeAck(
        epoch="0" * 16,
        lane=messages.Lane.INSPECTIONS,
        ranges=tuple(messages.SeqRange(first=10**9 + n, last=10**9 + n) for n in range(0, 1000, 2)),
        refused=tuple(
            messages.Refusal(first=10**9 + n, last=10**9 + n, code="message.undecodable") for n in range(1, 1000, 2)
        ),
    )
    assert len(codec.encode(ack)) <= topics.TABLE["ack"].max_bytes


def test_the_state_of_a_device_with_sixteen_models_fits() -> None:
    running = messages.RunningModel(
        model=NAME, digest=DIGEST, previous_digest=DIGEST, provider="CPUExecutionProvider", deployment_id=UUID
    )
    state = messages.State(
        device=NAME,
        boot=BIG,
        revision=BIG,
        online=True,
        at=NOW,
        reported=messages.Reported(
            desired_revision=BIG,
            agent_version=TEXT,
            runtime_version=TEXT,
            architecture=TEXT,
            models=(running,) * 16,
            refusals=("r" * 300,) * 16,
        ),
    )
    assert len(codec.encode(state)) <= topics.TABLE["state"].max_bytes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wake", messages.Wake(desired_revision=BIG)),
        ("command", messages.Command(id=UUID, name=messages.CommandName.SEND_HEALTH, expires_at=NOW)),
        ("host", messages.HostState(boot=UUID, online=True)),
    ],
)
def test_the_small_messages_down_fit(name: str, message: object) -> None:
    assert len(codec.encode(message)) <= topics.TABLE[name].max_bytes


def test_every_topic_has_a_budget_below_the_limit_of_what_is_inflated() -> None:
    assert all(0 < topic.max_bytes <= codec.MAX_INFLATED_BYTES for topic in topics.TABLE.values())
