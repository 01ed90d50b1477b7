"""The fleet's wall clock, as a function that tests replace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Now = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the server's time, aware, UTC."""
    return datetime.now(UTC)
