"""Settings of deployments on this device: when versions may be swapped, and how long anything is waited for."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from agent.deploy.probation import ProbationLimits
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
class ProbationSettings:
    """How a version that was just made active is watched, and when it is taken back.

    Args:
        parts: that it must have judged before it may pass.
        minutes: for which it must have been watched before it may pass.
        hours_max: after which it is taken back where too few parts came.
        latency_factor: it is taken back where its looks take longer than the former version's by more than this.
        no_verdict_share: of its parts may be without a verdict by its fault; twice the former version's share where
            that is more.
        shift_odds: how much better the verdicts must be explained by another mix than by the former version's, before a
            person is asked.
        memory_growth_mb: by which the agent's memory may grow while it is watched, in 2**20 bytes.
    """

    parts: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 100
    minutes: Annotated[float, msgspec.Meta(ge=0.0, le=10_080.0)] = 10.0
    hours_max: Hours = 192.0
    latency_factor: Annotated[float, msgspec.Meta(gt=1.0, le=1000.0)] = 3.0
    no_verdict_share: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.05
    shift_odds: Annotated[float, msgspec.Meta(ge=10.0, le=1e12)] = 1000.0
    memory_growth_mb: Annotated[float, msgspec.Meta(gt=0.0)] = 128.0

    @property
    def limits(self) -> ProbationLimits:
        """What a version is held against, in seconds."""
        return ProbationLimits(
            parts=self.parts,
            watch_s=self.minutes * 60,
            most_s=self.hours_max * 3600,
            latency_factor=self.latency_factor,
            no_verdict_share=self.no_verdict_share,
            shift_odds=self.shift_odds,
            memory_growth_mb=self.memory_growth_mb,
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
        awaiting_confirmation_h: hours for which a person's confirmation is waited for.
        confirm: a person confirms each swap, with `lineside models confirm`.
        keep_free_mb: of the disk, in 2**20 bytes, that downloads leave free for records and pictures.
        probation: how a version that was just made active is watched.
    """

    timezone: str = "UTC"
    windows: Annotated[tuple[WindowSettings, ...], msgspec.Meta(max_length=32)] = ()
    attempt_h: Hours = 24.0
    maintenance_window_h: Hours = 192.0
    line_busy_h: Hours = 24.0
    no_space_h: Hours = 24.0
    awaiting_confirmation_h: Hours = 168.0
    confirm: bool = False
    keep_free_mb: Annotated[int, msgspec.Meta(ge=0)] = 128
    probation: ProbationSettings = ProbationSettings()


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
    if deploy.probation.minutes > deploy.probation.hours_max * 60:
        return [
            Problem(
                "deploy.probation.minutes",
                "a version would be taken back before it could pass: minutes is more than hours_max.",
                "Shorten minutes, or lengthen hours_max.",
            )
        ]
    return []
