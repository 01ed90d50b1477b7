"""Tells whether the times of a record can be believed. Pure. A record is never refused for them, only marked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from fleet.inspections import moments
from wire.inspection import TimeSource

SLACK_US: Final = 2 * moments.MINUTE_US  # between the device's clock and ours, and on the way
# Before there was anything of Lineside: a clock that lost its battery tells 1970, 2000 or the day of its firmware.
EARLIEST_US: Final = moments.to_us(datetime(2024, 1, 1, tzinfo=UTC))


def is_suspect(source: TimeSource, triggered_at_us: int, judged_at_us: int, received_at_us: int) -> bool:
    """Tell whether a record's times are doubtful: by the device's own word, from the future, or from before Lineside.

    An old time alone is none: a device may have been offline for weeks.
    """
    return (
        source is TimeSource.SUSPECT
        or triggered_at_us < EARLIEST_US
        or judged_at_us < EARLIEST_US
        or triggered_at_us > received_at_us + SLACK_US
        or judged_at_us > received_at_us + SLACK_US
    )
