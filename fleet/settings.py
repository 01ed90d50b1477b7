"""The fleet's settings: one frozen value from defaults, then a TOML file, then flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from fleet.deployments.timeouts import Limits
from wire import strict_toml
from wire.enrolment import Port
from wire.errors import LinesideError

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
BrokerChoice = Literal["auto", "embedded", "mosquitto", "external"]
IngestChoice = Literal["inside", "elsewhere"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings:
    """What the TOML file may hold; each key also has a default and most have a flag.

    Args:
        data_dir: folder of the database, the blobs and the broker's files.
        host: address the API listens on.
        broker: `external` uses a broker that runs already; the others start one.
        ingest: `inside` takes the devices' messages in the process of `serve`; `elsewhere` leaves them to
            `lineside-fleet ingest`.
        mqtt_host: address the broker listens on, or is found at where it is external.
        mqtt_advertised_host: address devices are told at enrolment; the default is `mqtt_host`.
        session_hours: how long a browser stays signed in.
        max_picture_bytes: the largest blob a device may upload.
        deployment_silent_days: how long nothing may be heard of an open deployment before it is `timed_out`.
        deployment_not_taken_up_days: how long a connected device may leave a deployment untouched.
    """

    data_dir: str = "fleet-data"
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    broker: BrokerChoice = "auto"
    ingest: IngestChoice = "inside"
    mqtt_host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)] = "127.0.0.1"
    mqtt_port: Port = 1883
    mqtt_advertised_host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)] | None = None
    session_hours: Annotated[int, msgspec.Meta(ge=1, le=720)] = 12
    max_picture_bytes: Annotated[int, msgspec.Meta(ge=1024, le=268_435_456)] = 16 * 1024 * 1024
    deployment_silent_days: Annotated[float, msgspec.Meta(ge=1.0, le=365.0)] = 14.0
    deployment_not_taken_up_days: Annotated[float, msgspec.Meta(ge=0.05, le=365.0)] = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """The settings in force; `FileSettings` says what each means."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    broker: BrokerChoice = "auto"
    ingest: IngestChoice = "inside"
    mqtt_host: str = "127.0.0.1"
    mqtt_port: int = 1883
    mqtt_advertised_host: str | None = None
    session_hours: int = 12
    max_picture_bytes: int = 16 * 1024 * 1024
    deployment_silent_days: float = 14.0
    deployment_not_taken_up_days: float = 3.0

    @property
    def database_path(self) -> Path:
        return self.data_dir / "fleet.db"

    @property
    def blobs_dir(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def broker_dir(self) -> Path:
        return self.data_dir / "broker"

    @property
    def deployment_limits(self) -> Limits:
        """How long the fleet waits for deployments."""
        return Limits(
            silent=timedelta(days=self.deployment_silent_days),
            not_taken_up=timedelta(days=self.deployment_not_taken_up_days),
        )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the API and the broker."""
        return self.host in LOOPBACK and self.mqtt_host in LOOPBACK


def load(config: Path | None, flags: Mapping[str, Any]) -> FleetSettings:
    """Build the settings.

    Args:
        config: a TOML file, None where there is none.
        flags: values from the command line by the name of the setting; None means not given.

    Raises:
        LinesideError: `config.*` naming file, line and key, or `usage.invalid` naming the flag.
    """
    values = strict_toml.read(config).value_of(FileSettings) if config is not None else FileSettings()
    merged = {name: getattr(values, name) for name in FileSettings.__dataclass_fields__}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        checked = msgspec.convert(merged | {name: _plain(value) for name, value in given.items()}, FileSettings)
    except msgspec.ValidationError as error:
        raise LinesideError("usage.invalid", f"A flag has a wrong value: {error}.", "See --help.") from error
    final = {name: getattr(checked, name) for name in FileSettings.__dataclass_fields__}
    folder = Path(final.pop("data_dir")).expanduser()
    if config is not None and "data_dir" not in given and not folder.is_absolute():
        folder = config.parent / folder  # a path in a file is meant from where that file stands
    return FleetSettings(data_dir=folder.resolve(), **final)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
