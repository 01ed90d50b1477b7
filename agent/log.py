"""Logging for people: one sentence a line, with the dotted name of what happened."""

from __future__ import annotations

import logging
import sys
from typing import Final

_FORMAT: Final = "%(asctime)s %(levelname)-7s %(event)s %(message)s"


class _EventFilter(logging.Filter):
    """Gives records of other libraries, which know no events, their logger's name in that place."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "event"):
            record.event = record.name
        return True


def start(level: str = "INFO") -> None:
    """Log to standard error; results go to standard output."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_EventFilter())
    handler.setFormatter(logging.Formatter(_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
