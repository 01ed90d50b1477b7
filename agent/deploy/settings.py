"""Settings of deployments on this device: when versions may be swapped, and how long anything is waited for."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from agent.settings_checks import Problem

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Start = Annotated[str, msgspec.Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="HH:MM")]
End = Annotated[str, msgspec.Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", description="HH:MM")]
Hours = Annotated[float, msgspec.Meta(gt=0.0, le=8760.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    """A time of the week in which versions may be swapped, by the clock on the site's wall.

    Args:
        days: on which it begins.
        start: when it opens.
        end: when it closes, up to 24:00; a time that is not after `start` is on the next day.
    """

    start: Start
    end: End
    days: Annotated[tuple[Day, ...], msgspec.Meta(min_length=1, max_length=7)] = (
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploySettings:
    """When versions may be swapped, and how long is waited before a deployment is given up.

    Args:
        timezone: of the site, as in the IANA time zone database.
        windows: maintenance windows; a version is swapped in these only. Without any, at all times.
        attempt_h: hours in which a deployment must be tested and ready, holds aside; so long an absent fleet is waited
            for.
        maintenance_window_h: hours for which a window is waited for.
        line_busy_h: hours for which a busy line is waited for.
        no_space_h: hours for which room on the disk is waited for.
        keep_free_mb: of the disk, in 2**20 bytes, that downloads leave free for records and pictures.
    """

    timezone: str = "UTC"
    windows: Annotated[tuple[WindowSettings, ...], msgspec.Meta(max_length=32)] = ()
    attempt_h: Hours = 24.0
    maintenance_window_h: Hours = 192.0
    line_busy_h: Hours = 24.0
    no_space_h: Hours = 24.0
    keep_free_mb: Annotated[int, msgspec.Meta(ge=0)] = 128


def problems_of(deploy: DeploySettings) -> list[Problem]:
    """Return what types cannot say."""
    try:
        zoneinfo.ZoneInfo(deploy.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return [
            Problem(
                "deploy.timezone",
                f"this device knows no time zone {deploy.timezone!r}.",
                'Write it as in "Europe/Berlin"; where the system has no time zones, install its package tzdata.',
            )
        ]
    return []
