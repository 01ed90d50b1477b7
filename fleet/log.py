"""Logging for the fleet: one line per change of state, on standard error."""

from __future__ import annotations

import logging
import sys
import time


class EventFormatter(logging.Formatter):
    """Writes `time LEVEL event: sentence`, times in UTC."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return time.strftime(datefmt or "%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))

    def format(self, record: logging.LogRecord) -> str:
        record.event_part = f"{record.event}: " if hasattr(record, "event") else ""
        return super().format(record)


def set_up(*, verbose: bool = False) -> None:
    """Send all log lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        EventFormatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(event_part)s%(message)s", "%Y-%m-%dT%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for noisy in ("alembic", "amqtt", "httpcore", "httpx", "uvicorn", "uvicorn.error", "uvicorn.access", "transitions"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
