"""Builds the outputs of a station from its settings."""

from __future__ import annotations

from agent.clock import Clock
from agent.line.gpio_chip import ChipOpener, GpiodChip
from agent.line.gpio_output import GpioOutput
from agent.line.http_output import HttpOutput
from agent.line.mqtt_output import MqttOutput
from agent.line.settings import OutputSettings
from agent.line.trigger import Output
from agent.settings import StationSettings
from wire.errors import LinesideError


def outputs_of(
    station: StationSettings, clock: Clock, *, device: str, open_chip: ChipOpener = GpiodChip
) -> tuple[Output, ...]:
    """Return the station's outputs, each with its thread running; none waits for its other side.

    Args:
        open_chip: opens a GPIO chip by its path; tests give a fake.
    """
    return tuple(
        _output(settings, station.id, f"{station.id}-{settings.kind}-{number}", clock, device, open_chip)
        for number, settings in enumerate(station.outputs, start=1)
    )


def _output(
    settings: OutputSettings, station: str, name: str, clock: Clock, device: str, open_chip: ChipOpener
) -> Output:
    if settings.kind == "http" and settings.http is not None:
        return HttpOutput(settings.http, clock, name=name, device=device, station=station, capacity=settings.queue)
    if settings.kind == "mqtt" and settings.mqtt is not None:
        return MqttOutput(settings.mqtt, name=name, device=device, station=station, capacity=settings.queue)
    if settings.kind == "gpio" and settings.gpio is not None:
        return GpioOutput(settings.gpio, clock, name=name, capacity=settings.queue, open_chip=open_chip)
    raise LinesideError(
        "config.missing_key", f"Output {name} has no table {settings.kind}.", f"Add outputs.{settings.kind}."
    )
