"""The desired document: what one device should run and how; read over HTTP with an ETag."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from wire.ids import Count, Digest, Name, Uuid
from wire.messages import SCHEMA, SchemaVersion
from wire.sampling import SamplingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredModel:
    """Which version of one model a device should run."""

    model: Name
    active: Digest
    release: Count
    deployment_id: Uuid
    shadow: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRecipe:
    """What one view needs: a model by name, and parameters of its rules within the manifest's bounds."""

    model: Name
    parameters: dict[Name, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a product variant needs at a station.

    Args:
        revision: 0 is the device's own setting; the fleet's start at 1.
    """

    id: Name
    revision: Count
    views: dict[Name, ViewRecipe]


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
