"""The one place where a station's settings become its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.capture.feed import Feed
from agent.clock import Clock
from agent.line.each_frame import EachFrame
from agent.line.gpio_chip import ChipOpener, GpiodChip
from agent.line.gpio_line import GpioLine
from agent.line.http_trigger import HttpLine
from agent.line.interval import Interval
from agent.line.modbus_client import ModbusClientLine
from agent.line.modbus_server import ModbusServerLine
from agent.line.mqtt_line import MqttLine
from agent.line.part_gate import PartGate
from agent.line.settings import LineSettings, ModbusSettings
from agent.line.simulated import SimulatedController
from agent.line.trigger import Line
from agent.settings import StationSettings
from agent.settings_checks import host_port
from wire.errors import LinesideError
from wire.inspection import Mode
from wire.mint import Mint


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltLine:
    """A station's line, its threads running.

    Args:
        words: what it is, for people.
        trouble: why it cannot be reached now, empty where it can.
        http: the line itself where triggers come in at the local address.
    """

    line: Line
    words: str
    trouble: Callable[[], str]
    http: HttpLine | None = None


def line_of(
    station: StationSettings,
    feeds: Mapping[str, Feed],
    clock: Clock,
    mint: Mint,
    *,
    device: str,
    open_chip: ChipOpener = GpiodChip,
) -> BuiltLine:
    """Build a station's line; it returns at once, whether or not anybody is at its other end.

    Args:
        feeds: of the station's views; the part gate looks at one of them.
        open_chip: opens a GPIO chip by its path; tests give a fake.

    Raises:
        LinesideError: `config.missing_extra` where a package is not installed, `config.missing_key`.
    """
    settings = station.line
    match settings.kind:
        case "each_frame":
            return _silent(EachFrame(clock, mint, Mode(settings.mode)), "each frame")
        case "interval":
            words = f"every {settings.interval_s:g} s"
            return _silent(Interval(settings.interval_s, Mode(settings.mode), clock, mint), words)
        case "simulated":
            host, port = host_port(settings.address or "")
            return _silent(SimulatedController(host, port, clock, station.id), f"simulated line {host}:{port}")
        case "http":
            http = HttpLine(clock, mint, deadline_ms=station.deadline_ms, name=station.id)
            return BuiltLine(line=http, words="HTTP at the local address", trouble=_none, http=http)
        case "modbus" if settings.modbus is not None:
            # A part whose moment is less certain than a frame may be off would be judged by its neighbour's picture.
            plc = _plc(settings.modbus, clock, station.id, trust_ms=station.frame_tolerance_ms)
            return BuiltLine(line=plc, words=_plc_words(settings.modbus), trouble=lambda: plc.account().trouble)
        case "mqtt" if settings.mqtt is not None:
            mqtt = MqttLine(settings.mqtt, clock, mint, device=device, station=station.id)
            words = f"MQTT {settings.mqtt.address} {settings.mqtt.topic}"
            return BuiltLine(line=mqtt, words=words, trouble=lambda: mqtt.counts().trouble)
        case "gpio" if settings.gpio is not None:
            gpio = GpioLine(settings.gpio, clock, mint, name=station.id, open_chip=open_chip)
            words = f"GPIO {settings.gpio.chip} line {settings.gpio.line}"
            return BuiltLine(line=gpio, words=words, trouble=lambda: gpio.trouble)
        case "part_gate" if settings.part_gate is not None:
            return _gate(settings, station, feeds, clock, mint)
        case _:
            raise LinesideError(
                "config.missing_key",
                f"Station {station.id}: a line of kind {settings.kind} needs a table of its own.",
                f"Add [stations.line.{settings.kind}].",
            )


def _gate(
    settings: LineSettings, station: StationSettings, feeds: Mapping[str, Feed], clock: Clock, mint: Mint
) -> BuiltLine:
    if settings.part_gate is None:
        raise LinesideError("config.missing_key", f"Station {station.id} has no [stations.line.part_gate].")
    counter = None if settings.counter is None else _plc(settings.counter, clock, f"{station.id}-counter", counter=True)
    gate = PartGate(feeds[settings.part_gate.view], settings.part_gate, clock, mint, counter=counter)
    words = f"part gate in view {settings.part_gate.view}"
    if counter is None or settings.counter is None:
        return _silent(gate, words)
    words += f", counted by {_plc_words(settings.counter)}"
    return BuiltLine(line=gate, words=words, trouble=lambda: counter.account().trouble)


def _plc(
    settings: ModbusSettings, clock: Clock, name: str, *, counter: bool = False, trust_ms: float | None = None
) -> ModbusClientLine | ModbusServerLine:
    if settings.role == "server":
        return ModbusServerLine(settings, clock, name, counter=counter)
    return ModbusClientLine(settings, clock, name, counter=counter, trust_ms=trust_ms)


def _plc_words(settings: ModbusSettings) -> str:
    return f"PLC at {settings.address}" if settings.role == "client" else f"PLC connects to {settings.address}"


def _silent(line: Line, words: str) -> BuiltLine:
    return BuiltLine(line=line, words=words, trouble=_none)


def _none() -> str:
    return ""
