"""The agent's settings: one frozen value from defaults < TOML file < environment < flags."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from agent.capture.settings import SourceSettings, VitalsSettings
from agent.line.settings import LineSettings, OutputSettings
from wire import ids, strict_toml
from wire.desired import CameraSettings
from wire.errors import LinesideError
from wire.ids import Name
from wire.manifest import ThresholdName

Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
# What a technician may set without touching the file: environment variable -> key of [device] or [fleet].
ENVIRONMENT: Final = {
    "LINESIDE_DEVICE_ID": ("device", "id"),
    "LINESIDE_DATA_DIR": ("device", "data_dir"),
    "LINESIDE_FLEET_URL": ("fleet", "url"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """Which device this is, and where it keeps its files."""

    id: Name
    data_dir: str = "/var/lib/lineside"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Where the fleet's API is and how often to ask it when nobody wakes us."""

    url: str = "http://127.0.0.1:8080"
    poll_interval_s: Positive = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """The broker; host and port come from enrolment unless they are set here.

    Args:
        resend_after_s: a record the fleet has not acknowledged by then is sent again.
    """

    host: str | None = None
    port: Port | None = None
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    resend_after_s: Positive = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How models are run.

    Args:
        threads: for one operator; more than one pays only for big graphs (`lineside model bench` tells).
        station_threads: how many parts one station may have in work; by default 1 for a line, all usable cores (at
            most 4) for clips.
    """

    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    station_threads: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    provider: str = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """How often health is reported."""

    interval_s: Annotated[float, msgspec.Meta(ge=1.0, le=3600.0)] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxSettings:
    """How much the device keeps while the fleet is away."""

    max_mb: Annotated[int, msgspec.Meta(ge=8)] = 256
    pictures_max_mb: Annotated[int, msgspec.Meta(ge=1)] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSettings:
    """A camera looking at the part, and the model that judges its frames unless a recipe says otherwise.

    Args:
        settings: what the camera is locked to, unless a recipe says otherwise.
    """

    id: Name
    model: Name
    source: SourceSettings
    parameters: dict[ThresholdName, float] = dataclasses.field(default_factory=dict)
    settings: CameraSettings | None = None
    vitals: VitalsSettings = dataclasses.field(default_factory=VitalsSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class StationSettings:
    """A place where parts are judged.

    Args:
        deadline_ms: from the trigger to the verdict; later is NO_VERDICT.
        frame_wait_ms: how long a frame is waited for after the trigger, so that a view that gives none leaves time for
            the verdict of the others; half the deadline unless it is set.
        frame_tolerance_ms: a frame belongs to a trigger when its exposure is at most this far from it.
        floor_rate: the least share of parts whose pictures are kept, unless the fleet sends a sampling plan.
        unsure: where UNSURE parts go, unless a recipe says otherwise.
        standstill: the part stands still in front of the cameras until its verdict, unless a recipe says otherwise.
        outputs: who else is told each verdict.
    """

    id: Name
    line: LineSettings
    views: Annotated[tuple[ViewSettings, ...], msgspec.Meta(min_length=1, max_length=16)]
    deadline_ms: Positive = 500.0
    frame_wait_ms: Positive | None = None
    frame_tolerance_ms: Positive = 50.0
    floor_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.01
    unsure: Literal["accept", "reject", "divert"] = "divert"
    standstill: bool = False
    outputs: Annotated[tuple[OutputSettings, ...], msgspec.Meta(max_length=16)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """The agent's own address for the person beside the machine, HTTP triggers and metrics.

    Args:
        host: a loopback address unless `allow_network` is set: there are no passwords here.
        port: 0 picks a free one; `lineside status` tells it.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8090
    enabled: bool = True
    allow_network: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one agent."""

    device: DeviceSettings
    stations: Annotated[tuple[StationSettings, ...], msgspec.Meta(min_length=1, max_length=32)]
    fleet: FleetSettings = FleetSettings()
    mqtt: MqttSettings = MqttSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    health: HealthSettings = HealthSettings()
    outbox: OutboxSettings = OutboxSettings()
    local: LocalSettings = LocalSettings()

    @property
    def data_dir(self) -> Path:
        return Path(self.device.data_dir)


def load(path: Path, environment: Mapping[str, str] = os.environ, data_dir: str | None = None) -> Settings:
    """Read the settings file and lay environment and flags over it.

    Args:
        path: the TOML file.
        environment: variables named in `ENVIRONMENT` win over the file.
        data_dir: a flag; wins over everything.

    Raises:
        LinesideError: `config.*`, naming file, line, key, what is allowed, and the nearest right key.
    """
    document = strict_toml.read(path)
    settings = document.value_of(Settings)
    for variable, (table, key) in ENVIRONMENT.items():
        if variable in environment:
            inner = dataclasses.replace(getattr(settings, table), **{key: environment[variable]})
            settings = dataclasses.replace(settings, **{table: inner})
    if data_dir is not None:
        settings = dataclasses.replace(settings, device=dataclasses.replace(settings.device, data_dir=data_dir))
    if not ids.is_name(settings.device.id):
        raise LinesideError(
            "config.invalid_value",
            f"LINESIDE_DEVICE_ID: {settings.device.id!r} cannot name a device.",
            "Use small letters, digits and hyphens, at most 64.",
        )
    for key, sentence, next_step in _problems_of(settings):
        if key == "fleet.url" and "LINESIDE_FLEET_URL" in environment:
            raise LinesideError("config.invalid_value", f"LINESIDE_FLEET_URL: {sentence}", next_step)
        raise document.error("config.invalid_value", key, sentence, next_step)
    return settings


def host_port(address: str) -> tuple[str, int]:
    """Take `host:port` apart; raises ValueError."""
    host, _, port = address.rpartition(":")
    number = int(port)
    if not host or not 1 <= number <= 65535:
        raise ValueError(address)
    return host, number


def _problems_of(settings: Settings) -> list[tuple[str, str, str]]:
    """Return what types cannot say, as (key, sentence, next step)."""
    found = _url_problems(settings.fleet.url)
    names = [station.id for station in settings.stations]
    for number, station in enumerate(settings.stations):
        place = f"stations[{number}]"
        if names.index(station.id) != number:
            found.append((f"{place}.id", f"the station {station.id!r} stands twice.", "Give each station its own id."))
        if station.line.kind == "simulated":
            found += _address_problems(f"{place}.line", station.line.address)
        views = [view.id for view in station.views]
        for index, view in enumerate(station.views):
            key = f"{place}.views[{index}]"
            if views.index(view.id) != index:
                found.append((f"{key}.id", f"the view {view.id!r} stands twice.", "Give each view its own id."))
            found += _source_problems(f"{key}.source", view.source)
        live = {view.source.kind == "simulated" for view in station.views}
        if station.line.kind == "each_frame" and live != {False}:
            found.append(
                (f"{place}.line.kind", "each_frame needs files as sources.", "Use a source of kind video or folder.")
            )
    return found


def _url_problems(url: str) -> list[tuple[str, str, str]]:
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        is_right = False
    if is_right and parts.path in {"", "/"} and not parts.query and not parts.fragment:
        return []
    return [("fleet.url", f"{url!r} is not the address of a fleet.", 'Use the form url = "http://server:8080".')]


def _source_problems(key: str, source: SourceSettings) -> list[tuple[str, str, str]]:
    if source.kind == "simulated":
        return _address_problems(key, source.address)
    if source.path is None:
        return [(f"{key}.path", f"a source of kind {source.kind} needs a path.", 'Add path = "...".')]
    if not Path(source.path).exists():
        return [(f"{key}.path", f"{source.path} does not exist.", "Correct the path.")]
    return []


def _address_problems(key: str, address: str | None) -> list[tuple[str, str, str]]:
    try:
        host_port(address or "")
    except ValueError:
        return [(f"{key}.address", f"{address!r} is no address.", 'Use the form address = "127.0.0.1:7001".')]
    return []
