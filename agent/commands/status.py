"""`lineside status`: what the running agent does, for the person beside the machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from agent.commands import models_scene, running
from wire import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.commands.running import LastWord
    from agent.status import DeploymentStatus, StationStatus
    from wire.deployment import ProbationReport
    from wire.messages import Health, ShadowHealth


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("status", help="show what the agent on this device does")
    running.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="write the status as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the status; 7 where no agent runs, 9 where one runs that has nothing to say."""
    from wire import codec

    word = running.read(args)
    if args.json:
        print(codec.encode(word.status).decode())
    else:
        for line in _lines(word):
            command_line.show(line)
    return word.end()


def _lines(word: LastWord) -> Iterator[str]:
    found = word.status
    if word.is_silent:
        link = "SILENT; this was its last word"
    elif not word.is_fresh:
        link = "NOT RUNNING; this was its last word"
    else:
        link = f"connected (MQTT {found.mqtt_protocol})" if found.connected else "NOT connected to the broker"
    yield f"{found.device}   {link}   {running.words_of_s(word.age_s)} ago"
    yield f"outbox      {found.outbox_unsettled} records wait for the fleet, {found.outbox_dropped} dropped"
    yield f"pictures    {found.pictures_waiting} wait for the fleet"
    if found.health is not None:
        yield f"device      {_device(found.health)}"
    if found.local_address is not None:
        yield f"local       http://{found.local_address}"
    for model in found.models:
        digest = model.digest[:12] if model.digest else "none active"
        yield f"model       {model.model}: {digest}  on {model.provider or '-'}"
        if model.shadow_digest is not None:
            yield f"shadow      {model.model}: {model.shadow_digest[:12]} is shown the parts too"
        if model.shadow_trouble:
            yield f"SHADOW      {model.model}: {model.shadow_trouble}"
    for deployment in found.deployments:
        yield from _deployment(deployment)
    for station in found.stations:
        yield from _station(station)
    yield from (f"refused     {sentence}" for sentence in found.refusals)
    yield from (f"STALLED     thread {name}" for name in found.threads_stalled)


def _device(health: Health) -> str:
    words = [f"{health.cpu_fraction:.0%} of a core", f"{health.rss_bytes / 1e6:.0f} MB"]
    cameras = [process for process in health.processes[1:] if process.private_bytes is not None]
    if cameras:
        words.append(f"cameras {sum(process.private_bytes or 0 for process in cameras) / 1e6:.0f} MB more")
    words.append(f"disk {health.disk_free_fraction:.0%} free")
    if health.temperature_c is not None:
        words.append(f"{health.temperature_c:.0f} °C")
    if health.throttled:
        words.append("THROTTLED by heat or a weak supply")
    if health.clock_offset_ms is not None:
        words.append(f"clock {health.clock_offset_ms:+.1f} ms")
    return ", ".join(words)


def _deployment(deployment: DeploymentStatus) -> Iterator[str]:
    hold, state = deployment.hold, deployment.state.replace("_", " ")
    words = f"deploying   {deployment.model}: {deployment.digest[:12]}  {state}"
    if deployment.by:
        words += f", asked for at this device by {deployment.by}"
    if deployment.probation is not None:
        words += f", {_probation(deployment.probation)}"
    if hold is not None:
        until = f"{hold.deadline.astimezone():%Y-%m-%d %H:%M}"
        yield f"{words}, WAITS: {hold.reason.replace('_', ' ')}, at most until {until}"
        if hold.text:
            yield f"            {hold.text}"
    elif deployment.trouble:
        yield f"{words}, {models_scene.then_words(deployment.state)}: {deployment.trouble}"
    else:
        yield words


def _shadow(shadow: ShadowHealth) -> str:
    skipped = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in shadow.skipped.items())
    differ = f"{shadow.disagreed} of {shadow.compared} parts differ"
    return f"{shadow.digest[:12]}  {differ}; {shadow.chosen} chosen" + (f", left out: {skipped}" if skipped else "")


def _probation(probation: ProbationReport) -> str:
    words = [f"{probation.parts} of {probation.parts_needed} parts judged"]
    if probation.faults:
        words.append(f"{probation.faults} of them without verdict")
    if probation.look_p95_ms is not None:
        former = probation.former_look_p95_ms
        before = f", {former:.0f} ms before" if former is not None else ""
        words.append(f"95 % of looks within {probation.look_p95_ms:.0f} ms{before}")
    return "; ".join(words)


def _station(station: StationStatus) -> Iterator[str]:
    health = station.health
    verdicts = "  ".join(f"{name} {count}" for name, count in station.verdicts.items())
    p50, p99 = health.latency_p50_ms, health.latency_p99_ms
    latency = f"  p50 {p50:.1f} ms, p99 {p99:.1f} ms" if p50 is not None and p99 is not None else ""
    state = "ready" if station.ready else f"NOT ready ({(health.not_ready or 'no model').rstrip('.')})"
    recipe = f", recipe {health.recipe}" if health.recipe is not None else ""
    yield f"station     {health.station}: {state}{recipe}  {verdicts}  missed {station.missed}{latency}"
    for shadow in health.shadows:
        yield f"shadow      {health.station}/{shadow.model}: {_shadow(shadow)}"
    if station.line_trouble:
        yield f"LINE        {health.station}: {station.line_trouble}"
    for view in health.views:
        for sentence in running.troubles_of(view):
            yield f"CAMERA      {health.station}/{view.view}: {sentence}"
    for output in station.outputs:
        if output.trouble:
            yield f"OUTPUT      {health.station}/{output.name}: {output.trouble}"
