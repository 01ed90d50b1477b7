"""A worker's sign of life in the database, so that the API can tell of ingest wherever it runs."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Engine, delete, exc
from sqlalchemy.dialects import sqlite

from fleet import clock, db
from fleet.ingest.shards import Share
from fleet.ingest.tables import IngestWorkerRow
from fleet.inspections import moments
from wire import codec

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0
FORGOTTEN_AFTER_US: Final = 24 * 3600 * 1_000_000
_TABLE: Final = IngestWorkerRow.__table__  # type: ignore[attr-defined]
_insert = sqlite.insert(_TABLE)
_UPSERT: Final = _insert.on_conflict_do_update(
    index_elements=["share"],
    set_={column.name: _insert.excluded[column.name] for column in _TABLE.columns if not column.primary_key},
)


class Beat:
    """Writes one row, called by the worker's own thread: a worker that hangs stops beating.

    Args:
        status: gives the counters.
    """

    def __init__(self, engine: Engine, share: Share, status: Callable[[], dict[str, Any]], *, now: clock.Now) -> None:
        self._engine = engine
        self._share = str(share)
        self._status = status
        self._now = now
        self._started_us = moments.to_us(now())
        self._next = 0.0

    def tell(self, *, last: bool = False) -> None:
        """Write the row where it is time; a database that does not take it is the commits' business to report.

        Args:
            last: whether the worker ends now.
        """
        if time.monotonic() < self._next and not last:
            return
        self._next = time.monotonic() + EVERY_S
        now_us = moments.to_us(self._now())
        row = {
            "share": self._share,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at_us": self._started_us,
            "seen_at_us": now_us,
            "ended": last,
            "status": codec.encode(self._status()).decode(),
        }
        try:
            with db.write_session(self._engine) as session:
                session.connection().execute(_UPSERT, [row])
                session.connection().execute(delete(_TABLE).where(_TABLE.c.seen_at_us < now_us - FORGOTTEN_AFTER_US))
        except exc.SQLAlchemyError:
            log.debug("Ingest could not tell that it works.", exc_info=True)
