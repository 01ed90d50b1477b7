"""The agent's figures in the text form that Prometheus reads (exposition format 0.0.4). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from agent.capture.frame import Vital
from agent.status import StationStatus, Status
from wire.messages import Health, ViewHealth

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: its name, what it counts or measures, and by what it is told apart."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()


def _gauge(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name=f"lineside_{name}", kind="gauge", help=help_text, labels=labels)


def _counter(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name=f"lineside_{name}_total", kind="counter", help=help_text, labels=labels)


_VIEW: Final = ("station", "view")
_CANDIDATE: Final = ("station", "model", "digest")
METRICS: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        _gauge("info", "Always 1; which device and which agent.", "device", "version"),
        _gauge("uptime_seconds", "Since the agent started."),
        _gauge("fleet_connected", "1 while the broker is connected."),
        _gauge("desired_revision", "Revision of the desired document in force."),
        _gauge("model_info", "Always 1; the version each model runs.", "model", "digest", "provider"),
        _gauge("shadow_info", "Always 1; the candidate that is shown a model's parts.", "model", "digest"),
        _gauge("outbox_records", "Records that wait for the fleet."),
        _gauge("outbox_bytes", "Size of the outbox on disk."),
        _counter("outbox_dropped", "Records that found no room in the outbox.", "lane"),
        _gauge("pictures_waiting", "Pictures that wait for the fleet."),
        _gauge("disk_free_bytes", "Free on the disk of the data folder."),
        _gauge("disk_free_ratio", "Free share of the disk of the data folder, 0 to 1."),
        _gauge("temperature_celsius", "The hottest sensor; absent where the device has none."),
        _gauge("throttled", "1 while heat or a weak supply slow the processor; absent where nothing tells."),
        _gauge("clock_offset_seconds", "Of the wall clock from its time service; absent where nothing tells."),
        _gauge("process_resident_bytes", "Memory of a process of the agent, shared pages included.", "process"),
        _gauge("process_private_bytes", "Memory that would be free if the process ended.", "process"),
        _gauge("process_cpu_ratio", "Share of one core.", "process"),
        _gauge("thread_stalled", "Always 1; a thread that does not answer. Absent where all do.", "thread"),
        _gauge("station_ready", "1 while parts are judged.", "station"),
        _gauge("station_recipe_info", "Always 1; the recipe in force.", "station", "recipe"),
        _gauge("line_connected", "1 while the line (PLC, broker, wire) can be reached.", "station"),
        _counter("triggers", "Parts that reached the station, those it missed included.", "station"),
        _counter("trigger_repeats", "Triggers that came twice; they were judged once.", "station"),
        _counter("verdicts", "Verdicts given, by kind; missed parts are counted apart.", "station", "verdict"),
        _counter("parts_without_verdict", "Of the verdicts, those that are none, by reason.", "station", "reason"),
        _counter("parts_missed", "Parts recorded as passed uninspected.", "station"),
        _counter("parts_unrecorded", "Parts whose record found no room; they had no verdict.", "station"),
        _counter("deadline_misses", "Parts without verdict because it came too late.", "station"),
        _gauge("verdict_latency_seconds", "From trigger to verdict, quantiles since the start.", "station", "quantile"),
        _gauge("view_connected", "1 while frames come, or could come at any moment.", *_VIEW),
        _counter("frames_in", "Frames the source gave: used, not triggered, dropped, or on their way.", *_VIEW),
        _counter("frames_used", "Frames that were judged.", *_VIEW),
        _counter("frames_not_triggered", "Frames that showed no part.", *_VIEW),
        _counter("frames_dropped", "Frames that were lost, by reason.", *_VIEW, "reason"),
        _gauge("frames_in_per_second", "Over the last ten seconds.", *_VIEW),
        _gauge("frames_used_per_second", "Over the last ten seconds.", *_VIEW),
        _gauge("frame_age_seconds", "Since the newest frame came.", *_VIEW),
        _counter("camera_restarts", "Of the camera's process.", *_VIEW),
        _gauge("vital_raised", "1 while this is wrong with the pictures.", *_VIEW, "vital"),
        _gauge("step_seconds", "Of one pipeline step, quantiles since the start.", *_VIEW, "step", "quantile"),
        _counter("shadow_chosen", "Parts meant for a candidate: compared, skipped, or on their way.", *_CANDIDATE),
        _counter("shadow_compared", "Parts that a candidate has judged too.", *_CANDIDATE),
        _counter("shadow_disagreed", "Of those, parts that it gave another verdict.", *_CANDIDATE),
        _counter(
            "shadow_skipped", "Parts meant for a candidate that it has not judged, by reason.", *_CANDIDATE, "reason"
        ),
        _counter("output_sent", "Verdicts that an output got through.", "station", "output"),
        _counter("output_dropped", "Verdicts that found no room in an output's queue.", "station", "output"),
        _counter("output_failed", "Verdicts that an output could not get through.", "station", "output"),
    )
}

_Sample = tuple[str, Mapping[str, str], float | None]


def metrics(health: Health, status: Status) -> str:
    """Return all metrics as text; what the device cannot tell is left out, since 0 would be a figure.

    Args:
        health: of the device and its stations.
        status: the rest; its stations may be absent.
    """
    samples: dict[str, list[str]] = {name: [] for name in METRICS}
    for name, labels, value in _samples(health, status):
        if value is not None:
            samples[f"lineside_{name}"].append(f"lineside_{name}{_labels(labels)} {_number(value)}\n")
    return "".join(
        f"# HELP {name} {METRICS[name].help}\n# TYPE {name} {METRICS[name].kind}\n{''.join(lines)}"
        for name, lines in samples.items()
        if lines
    )


def _samples(health: Health, status: Status) -> Iterator[_Sample]:
    yield "info", {"device": status.device, "version": status.agent_version}, 1
    yield "uptime_seconds", {}, health.uptime_s
    yield "fleet_connected", {}, status.connected
    yield "desired_revision", {}, status.desired_revision
    for model in status.models:
        labels = {"model": model.model, "digest": model.digest or "", "provider": model.provider or ""}
        yield "model_info", labels, 1
        if model.shadow_digest is not None:
            yield "shadow_info", {"model": model.model, "digest": model.shadow_digest}, 1
    yield "outbox_records", {}, health.outbox_unsettled
    yield "outbox_bytes", {}, health.outbox_bytes
    for lane, count in health.outbox_dropped_by_lane.items():
        yield "outbox_dropped_total", {"lane": lane}, count
    yield "pictures_waiting", {}, status.pictures_waiting
    yield "disk_free_bytes", {}, health.disk_free_bytes
    yield "disk_free_ratio", {}, health.disk_free_fraction
    yield "temperature_celsius", {}, health.temperature_c
    yield "throttled", {}, health.throttled
    yield "clock_offset_seconds", {}, _seconds(health.clock_offset_ms)
    for process in health.processes:
        name = {"process": process.name}
        yield "process_resident_bytes", name, process.rss_bytes
        yield "process_private_bytes", name, process.private_bytes
        yield "process_cpu_ratio", name, process.cpu_fraction
    for thread in health.threads_stalled:
        yield "thread_stalled", {"thread": thread}, 1
    for station in status.stations:
        yield from _of_station(station)


def _of_station(status: StationStatus) -> Iterator[_Sample]:
    health = status.health
    station = {"station": health.station}
    yield "station_ready", station, status.ready
    if health.recipe is not None:
        yield "station_recipe_info", station | {"recipe": health.recipe}, 1
    yield "line_connected", station, not status.line_trouble
    yield "triggers_total", station, health.triggers
    yield "trigger_repeats_total", station, health.repeats
    for verdict, count in status.verdicts.items():
        yield "verdicts_total", station | {"verdict": verdict}, count
    for reason, count in status.without_verdict.items():
        yield "parts_without_verdict_total", station | {"reason": reason}, count
    yield "parts_missed_total", station, status.missed
    yield "parts_unrecorded_total", station, status.unrecorded
    yield "deadline_misses_total", station, health.deadline_misses
    yield "verdict_latency_seconds", station | {"quantile": "0.5"}, _seconds(health.latency_p50_ms)
    yield "verdict_latency_seconds", station | {"quantile": "0.99"}, _seconds(health.latency_p99_ms)
    for view in health.views:
        yield from _of_view(station | {"view": view.view}, view)
    for shadow in health.shadows:
        labels = station | {"model": shadow.model, "digest": shadow.digest}
        yield "shadow_chosen_total", labels, shadow.chosen
        yield "shadow_compared_total", labels, shadow.compared
        yield "shadow_disagreed_total", labels, shadow.disagreed
        for reason, count in shadow.skipped.items():
            yield "shadow_skipped_total", labels | {"reason": reason}, count
    for output in status.outputs:
        labels = station | {"output": output.name}
        yield "output_sent_total", labels, output.sent
        yield "output_dropped_total", labels, output.dropped
        yield "output_failed_total", labels, output.failed


def _of_view(labels: Mapping[str, str], view: ViewHealth) -> Iterable[_Sample]:
    yield "view_connected", labels, view.connected
    yield "frames_in_total", labels, view.frames_in
    yield "frames_used_total", labels, view.frames_used
    yield "frames_not_triggered_total", labels, view.frames_not_triggered
    for reason, count in view.frames_dropped.items():
        yield "frames_dropped_total", {**labels, "reason": reason}, count
    yield "frames_in_per_second", labels, view.fps_in
    yield "frames_used_per_second", labels, view.fps_used
    yield "frame_age_seconds", labels, _seconds(view.frame_age_ms)
    yield "camera_restarts_total", labels, view.restarts
    for vital in Vital:
        yield "vital_raised", {**labels, "vital": vital.value}, vital.value in view.vitals
    for step, (p50_ms, p99_ms) in view.steps_ms.items():
        yield "step_seconds", {**labels, "step": step, "quantile": "0.5"}, p50_ms / 1000
        yield "step_seconds", {**labels, "step": step, "quantile": "0.99"}, p99_ms / 1000


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """Return whole numbers whole: a counter of ten million parts must not lose its last digits."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _seconds(milliseconds: float | None) -> float | None:
    return milliseconds / 1000 if milliseconds is not None else None
