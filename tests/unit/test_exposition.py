"""The metrics text: every metric of the table and none beside it, in the form that Prometheus reads."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.health.exposition import METRICS, metrics
from agent.status import OutputStatus, StationStatus, Status
from wire.messages import Health, ProcessHealth, RunningModel, ShadowHealth, StationHealth, ViewHealth

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
SAMPLE = re.compile(
    r'(?P<name>[a-z_]+)(\{(?P<labels>[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*)\})? '
    r"(?P<value>-?[0-9.e+-]+)"
)


def health_of(**more: Any) -> Health:
    values = {
        "at": NOW,
        "uptime_s": 12.5,
        "cpu_fraction": 0.25,
        "rss_bytes": 1,
        "disk_free_bytes": 7,
        "disk_free_fraction": 0.5,
        "outbox_unsettled": 3,
        "outbox_bytes": 4096,
        "outbox_dropped": 3,
        "outbox_dropped_by_lane": {"health": 3},
    }
    return Health(**(values | more))


def full_health() -> Health:
    process = ProcessHealth(name="agent", rss_bytes=10**8, private_bytes=9 * 10**7, cpu_fraction=0.25)
    return health_of(
        temperature_c=61.5,
        throttled=False,
        clock_offset_ms=-1.5,
        threads_stalled=("uplink",),
        processes=(process,),
    )


def full_status() -> Status:
    view = ViewHealth(
        view="top",
        connected=True,
        frames_in=12_345_678_901,
        frames_used=7,
        frames_not_triggered=2,
        frames_dropped={"replaced": 4},
        fps_in=25.04,
        fps_used=3.0,
        frame_age_ms=40.0,
        restarts=1,
        vitals=("blurred",),
        steps_ms={"run": (4.0, 9.5)},
    )
    health = StationHealth(
        station="outlet",
        triggers=9,
        verdicts=9,
        frames_in=0,
        frames_used=0,
        frames_not_triggered=0,
        frames_dropped=0,
        latency_p50_ms=12.0,
        latency_p99_ms=80.0,
        recipe="default",
        deadline_misses=1,
        repeats=2,
        views=(view,),
        shadows=(
            ShadowHealth(
                model="parts", digest="b" * 64, chosen=9, compared=6, disagreed=2, skipped={"busy": 2, "yielded": 1}
            ),
        ),
    )
    station = StationStatus(
        health=health,
        ready=True,
        verdicts={"OK": 5, "NG": 3},
        without_verdict={"no_frame": 1},
        missed=1,
        outputs=(OutputStatus(name='lamp "A"\\1', sent=8, dropped=0, failed=1),),
    )
    return Status(
        device="press-7",
        pid=1,
        at=NOW,
        agent_version="0.1.0",
        connected=True,
        mqtt_protocol="5",
        desired_revision=4,
        outbox_unsettled=3,
        outbox_dropped=0,
        pictures_waiting=2,
        models=(RunningModel(model="parts", digest="a" * 64, provider="CPUExecutionProvider", shadow_digest="b" * 64),),
        stations=(station,),
    )


def test_every_line_has_the_form_that_prometheus_reads() -> None:
    text = metrics(full_health(), full_status())
    assert text.endswith("\n")
    seen: list[str] = []
    samples = set()
    for line in text.splitlines():
        comment = re.fullmatch(r"# (HELP|TYPE) ([a-z_]+) (.+)", line)
        if comment is not None:
            if comment[1] == "HELP":
                assert comment[2] not in seen  # all samples of a metric stand together
                seen.append(comment[2])
            else:
                assert comment[3] == METRICS[comment[2]].kind
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None, line
        assert sample["name"] == seen[-1]
        labels = tuple(re.findall(r'([a-z_]+)="', sample["labels"] or ""))
        assert labels == METRICS[sample["name"]].labels
        samples.add(line.rpartition(" ")[0])
        float(sample["value"])
    assert len(samples) == sum(not line.startswith("#") for line in text.splitlines())  # none stands twice


def test_a_device_that_has_everything_tells_every_metric_of_the_table() -> None:
    text = metrics(full_health(), full_status())
    assert set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) == set(METRICS)


def test_values_labels_and_units_are_those_of_the_device() -> None:
    lines = metrics(full_health(), full_status()).splitlines()
    for line in (
        'lineside_info{device="press-7",version="0.1.0"} 1',
        'lineside_verdicts_total{station="outlet",verdict="OK"} 5',
        'lineside_verdict_latency_seconds{station="outlet",quantile="0.99"} 0.08',
        'lineside_frames_in_total{station="outlet",view="top"} 12345678901',
        'lineside_frames_dropped_total{station="outlet",view="top",reason="replaced"} 4',
        'lineside_vital_raised{station="outlet",view="top",vital="blurred"} 1',
        'lineside_vital_raised{station="outlet",view="top",vital="moved"} 0',
        'lineside_step_seconds{station="outlet",view="top",step="run",quantile="0.5"} 0.004',
        'lineside_output_failed_total{station="outlet",output="lamp \\"A\\"\\\\1"} 1',
        "lineside_clock_offset_seconds -0.0015",
        "lineside_throttled 0",
    ):
        assert line in lines, line


def test_what_a_device_cannot_tell_is_absent_rather_than_zero() -> None:
    text = metrics(health_of(), full_status())
    for name in ("temperature_celsius", "throttled", "clock_offset_seconds", "process_resident_bytes"):
        assert f"lineside_{name}" not in text


def test_every_metric_stands_on_its_page() -> None:
    for metric in METRICS.values():
        assert f"| `{metric.name}` | {metric.kind} |" in PAGE
        assert metric.kind == ("counter" if metric.name.endswith("_total") else "gauge")
