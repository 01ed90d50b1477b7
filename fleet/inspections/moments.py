"""Moments and ids in the form the database keeps them: microseconds since 1970, UTC, and 16 bytes."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EARLIEST_US: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LATEST_US: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
MINUTE_US: Final = 60_000_000
ID_BYTES: Final = 16


def to_us(moment: datetime) -> int:
    """Return an aware moment as microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """Return microseconds since 1970 as an aware moment in UTC; what no date can hold becomes the nearest date."""
    return _EPOCH + timedelta(microseconds=min(max(us, _EARLIEST_US), _LATEST_US))


def id_bytes(text: str) -> bytes:
    """Return a UUID in its 36-character form as 16 bytes."""
    return bytes.fromhex(text.replace("-", ""))


def id_text(data: bytes) -> str:
    """Return 16 bytes as a UUID in its 36-character form."""
    return str(uuid.UUID(bytes=data))
