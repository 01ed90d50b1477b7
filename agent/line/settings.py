"""Settings of what triggers a station and of who is told its verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from wire.ids import Name

Positive = Annotated[float, msgspec.Meta(gt=0.0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0.0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
LineKind = Literal["simulated", "each_frame", "interval", "part_gate", "modbus", "http", "mqtt", "gpio"]
ModeName = Literal["production", "setup", "challenge", "replay"]
Topic = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModbusSettings:
    """The PLC's registers (docs/reference/register-map.md).

    Args:
        role: `client` connects to a PLC that holds the registers; `server` holds them for a PLC that connects to us.
        address: host:port of the PLC, or to listen on.
        unit: the device id on the wire.
        base: first holding register of the map.
        timeout_ms: for one answer of the PLC; then the connection is made anew.
        cycle_ms: how often the registers are read and written (client).
        fail_safe_ms: a PLC that has not changed its heartbeat for so long is taken to be gone (0: it has none).
        max_results: results that wait for their acknowledgement; beyond, parts have no verdict (overrun).
    """

    role: Literal["client", "server"] = "client"
    address: str
    unit: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    base: Annotated[int, msgspec.Meta(ge=0, le=65000)] = 0
    cycle_ms: Positive = 10.0
    timeout_ms: Positive = 500.0
    fail_safe_ms: NotNegative = 2000.0
    max_results: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttLineSettings:
    """A broker of the line, which need not be the fleet's.

    Args:
        address: host:port.
        topic: triggers come here (line), or verdicts go here (output).
        verdict_topic: of a line: verdicts go here.
        credentials_file: a file with one line USER:PASSWORD.
        ca_file: turns TLS on.
    """

    address: str
    topic: Topic
    verdict_topic: Topic | None = None
    credentials_file: str | None = None
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpioLineSettings:
    """A line of the device's own GPIO as a trigger.

    Args:
        chip: for example /dev/gpiochip0.
        line: its number.
        edge: which edge is a part.
        debounce_ms: edges closer together are one.
    """

    chip: str
    line: Annotated[int, msgspec.Meta(ge=0)]
    edge: Literal["rising", "falling"] = "rising"
    debounce_ms: NotNegative = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartGateSettings:
    """Finds the parts on a free-running belt in one view's own frames.

    Args:
        view: whose frames are looked at.
        direction: in which the parts move through the picture.
        position: of the virtual line, as a share of the picture along the direction.
        band: height of the strip that is looked at across the belt, as shares from and to.
        on_share: share of changed pixels at the line at which a part begins.
        off_share: share of changed pixels at the line below which it ends.
        threshold: grey levels by which a pixel must differ from the empty belt.
        min_pitch_px: parts are at least this far apart along the direction, in pixels of the source.
    """

    view: Name
    direction: Literal["right", "left", "down", "up"] = "right"
    position: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.5
    band: tuple[float, float] = (0.0, 1.0)
    on_share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.2
    off_share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.1
    threshold: Annotated[int, msgspec.Meta(ge=1, le=254)] = 30
    min_pitch_px: NotNegative = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSettings:
    """What triggers a station; each kind but simulated, each_frame and http has a table of its own name.

    Args:
        kind: `simulated` takes triggers from a simulated line; `each_frame` makes every frame a part; `interval` the
            next frame every `interval_s`; `part_gate` finds the parts in a view's frames; `modbus` is a PLC; `http`
            takes them at the agent's local address; `mqtt` from a broker; `gpio` from a wire.
        address: host:port of the simulated line.
        mode: of the inspections of `each_frame` and `interval`; only `production` enters statistics.
        interval_s: between two parts of `interval`.
        counter: where `part_gate` has the line's own count from: a PLC (modbus), whose triggers are then not used.
    """

    kind: LineKind
    address: str | None = None
    mode: ModeName = "replay"
    interval_s: Positive = 1.0
    modbus: ModbusSettings | None = None
    mqtt: MqttLineSettings | None = None
    gpio: GpioLineSettings | None = None
    part_gate: PartGateSettings | None = None
    counter: ModbusSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOutputSettings:
    """Each verdict as a POST of JSON.

    Args:
        url: http:// or https://.
        timeout_s: for one answer; a verdict that does not get through is counted as failed.
        credentials_file: a file with one line USER:PASSWORD, sent as basic authentication.
    """

    url: str
    timeout_s: Positive = 2.0
    credentials_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpioOutputSettings:
    """A line of the device's own GPIO that tells a verdict.

    Args:
        chip: for example /dev/gpiochip0.
        line: its number.
        width_ms: of a pulse.
        routes: parts that go there make the line active; the default is everything that is not accepted.
        action: `level` holds until the next verdict, `pulse` lasts `width_ms`.
        delay_ms: from the trigger to the beginning of a pulse: only for lines of constant speed.
        fail_safe_active: level of the line when the agent stops or is not ready.
        active_low: the line's electrical sense.
    """

    chip: str
    line: Annotated[int, msgspec.Meta(ge=0)]
    routes: tuple[Literal["accept", "reject", "divert"], ...] = ("reject", "divert")
    action: Literal["level", "pulse"] = "level"
    delay_ms: NotNegative = 0.0
    width_ms: Positive = 50.0
    fail_safe_active: bool = True
    active_low: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSettings:
    """Somebody else who is told each verdict; the table of the same name says how.

    Args:
        kind: `http` calls an address, `mqtt` publishes, `gpio` drives a wire of this device.
        queue: verdicts that may wait for a slow output; beyond, they are dropped and counted.
    """

    kind: Literal["http", "mqtt", "gpio"]
    http: HttpOutputSettings | None = None
    mqtt: MqttLineSettings | None = None
    gpio: GpioOutputSettings | None = None
    queue: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
