"""The agent's settings: one frozen value from defaults < TOML file < environment < flags."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from agent import settings_checks
from agent.capture.settings import SourceSettings, VitalsSettings
from agent.deploy import settings as deploy_settings
from agent.deploy.settings import DeploySettings
from agent.line.settings import LineSettings, OutputSettings
from agent.settings_checks import Problem
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
    """Which device this is, and where it keeps its files.

    Args:
        id: its name in the fleet, for ever.
        data_dir: models, outbox, pictures that wait, status.
    """

    id: Name
    data_dir: str = "/var/lib/lineside"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Where the fleet's API is and how often to ask it when nobody wakes us.

    Args:
        url: of the fleet's HTTP server.
        poll_interval_s: between two looks at the desired document; a wake-up by MQTT comes at once.
    """

    url: str = "http://127.0.0.1:8080"
    poll_interval_s: Positive = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """The broker; host and port come from enrolment unless they are set here.

    Args:
        host, port: of the broker, where they are not those of the enrolment.
        protocol: `auto` takes 5 and falls back.
        ca_file: turns TLS on: the broker's certificate must be signed by an authority in this file (PEM).
        certificate_file, key_file: the device's own, where the broker asks for one (PEM).
        compress: send batches compressed with zlib, for thin links; costs processor time.
        resend_after_s: a record the fleet has not acknowledged by then is sent again.
    """

    host: str | None = None
    port: Port | None = None
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    compress: bool = False
    resend_after_s: Positive = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How models are run.

    Args:
        threads: for one operator; more than one pays only for big graphs (`lineside model bench` tells).
        station_threads: how many parts one station may have in work; by default 1 for a line, 2 behind a part gate,
            all usable cores (at most 4) for clips.
        provider: of onnxruntime.
    """

    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    station_threads: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    provider: str = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """How often health is reported.

    Args:
        interval_s: between two reports, unless the fleet asks for another pace.
    """

    interval_s: Annotated[float, msgspec.Meta(ge=1.0, le=3600.0)] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxSettings:
    """How much the device keeps while the fleet is away.

    Args:
        max_mb: of records, in 2**20 bytes; a record takes about 1.3 kB, so that the default holds some 800,000. When it
            is full, pictures give way first.
        pictures_max_mb: of pictures, in 2**20 bytes.
    """

    max_mb: Annotated[int, msgspec.Meta(ge=8)] = 1024
    pictures_max_mb: Annotated[int, msgspec.Meta(ge=1)] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSettings:
    """A camera looking at the part, and the model that judges its frames unless a recipe says otherwise.

    Args:
        id: unique in the station.
        model: by name; which version of it runs is the fleet's business.
        parameters: thresholds of the model's rules, within its manifest's bounds.
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
        id: unique on the device.
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
        enabled: whether there is one.
        allow_network: lets `host` be reached from the network.
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
    deploy: DeploySettings = dataclasses.field(default_factory=DeploySettings)

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
    for problem in _problems_of(settings):
        if problem.key == "fleet.url" and "LINESIDE_FLEET_URL" in environment:
            raise LinesideError("config.invalid_value", f"LINESIDE_FLEET_URL: {problem.sentence}", problem.next_step)
        raise document.error("config.invalid_value", problem.key, problem.sentence, problem.next_step)
    return settings


def _problems_of(settings: Settings) -> list[Problem]:
    """Return what types cannot say."""
    found = settings_checks.of_fleet_url(settings.fleet.url)
    mqtt = settings.mqtt
    found += settings_checks.of_tls(mqtt.ca_file, mqtt.certificate_file, mqtt.key_file)
    found += settings_checks.of_local(settings.local.host, allow_network=settings.local.allow_network)
    found += deploy_settings.problems_of(settings.deploy)
    names = [station.id for station in settings.stations]
    for number, station in enumerate(settings.stations):
        place = f"stations[{number}]"
        if names.index(station.id) != number:
            sentence = f"the station {station.id!r} stands twice."
            found.append(Problem(f"{place}.id", sentence, "Give each station its own id."))
        found += settings_checks.of_line(place, station.line, station.views, local_enabled=settings.local.enabled)
        found += settings_checks.of_views(place, station.views)
        found += settings_checks.of_standstill(
            place, station.line, station.views, deadline_ms=station.deadline_ms, standstill=station.standstill
        )
        found += settings_checks.of_outputs(place, station.outputs, deadline_ms=station.deadline_ms)
    return found
