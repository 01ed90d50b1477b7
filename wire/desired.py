"""The desired document: what one device should run and how; read over HTTP with an ETag."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from wire.ids import Count, Digest, Name, Uuid
from wire.inspection import Route
from wire.messages import SCHEMA, SchemaVersion
from wire.sampling import Rate, SamplingPlan

Code = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredModel:
    """Which version of one model a device should run.

    Args:
        shadow: a candidate that sees the same frames beside the active version; its verdicts go to nobody on the line.
        shadow_rate: share of parts it is meant to see: those with `sampling.uniform(shadow, inspection id)` below it.
    """

    model: Name
    active: Digest
    release: Count
    deployment_id: Uuid
    shadow: Digest | None = None
    shadow_rate: Rate = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSettings:
    """What a camera is locked to and must read back; None leaves a setting as it is.

    Args:
        exposure_us: in microseconds.
        gain_db: in decibels.
        white_balance_k: colour temperature in kelvins.
        tolerance: share by which the value read back may differ.
    """

    exposure_us: Annotated[float, msgspec.Meta(gt=0.0)] | None = None
    gain_db: float | None = None
    white_balance_k: Annotated[float, msgspec.Meta(gt=0.0)] | None = None
    tolerance: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRecipe:
    """What one view needs: a model by name, its parameters within the manifest's bounds, the camera's settings."""

    model: Name
    parameters: dict[Name, float] = field(default_factory=dict)
    camera: CameraSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a product variant needs at a station.

    Args:
        revision: 0 is the device's own setting; the fleet's start at 1.
        number: by which a PLC asks for it; unique at the station.
        codes: texts (of a barcode, a message) that ask for it; one that ends in * stands for all that begin so.
        unsure: where UNSURE parts go.
        standstill: the part stands still in front of the camera until its verdict; only then may a source that knows
            no exposure times be used with part triggers.
    """

    id: Name
    revision: Count
    views: dict[Name, ViewRecipe]
    number: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    codes: Annotated[tuple[Code, ...], msgspec.Meta(max_length=100)] = ()
    unsure: Route = Route.DIVERT
    standstill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredStation:
    """Recipes and sampling of one station; a station that is not named keeps the device's own settings."""

    station: Name
    recipes: tuple[Recipe, ...] = ()
    sampling: SamplingPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredSettings:
    """Settings the fleet may change; what stands in the device's own file is the default."""

    health_interval_s: Annotated[float, msgspec.Meta(ge=1.0, le=3600.0)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """All a device should be, at one revision."""

    schema: SchemaVersion = SCHEMA
    device: Name
    revision: Count
    models: Annotated[tuple[DesiredModel, ...], msgspec.Meta(max_length=64)] = ()
    stations: Annotated[tuple[DesiredStation, ...], msgspec.Meta(max_length=32)] = ()
    settings: DesiredSettings = DesiredSettings()
