"""A worker's sign of life in the database, so that the API can tell of ingest wherever it runs."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Engine, delete, exc
from sqlalchemy.dialects import sqlite
from sqlmodel import Session, select

from fleet import clock, db
from fleet.ingest import listening, shards
from fleet.ingest.listening import Listening
from fleet.ingest.shards import Share
from fleet.ingest.tables import IngestWorkerRow
from fleet.inspections import moments
from wire import codec
from wire.errors import LinesideError

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
        self._listening: Listening | None = None
        self._is_resumed = False

    def tell(self, *, last: bool = False) -> None:
        """Write the row where it is time; a database that does not take it is the commits' business to report.

        Args:
            last: whether the worker ends now.
        """
        if time.monotonic() < self._next and not last:
            return
        self._next = time.monotonic() + EVERY_S
        now = self._now()
        now_us = moments.to_us(now)
        status = self._status()
        row = {
            "share": self._share,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started_at_us": self._started_us,
            "seen_at_us": now_us,
            "ended": last,
        }
        try:
            account = self._account(now, connected=bool(status.get("connected")))
            row["status"] = codec.encode({**status, "listening": account}).decode()
            with db.write_session(self._engine) as session:
                session.connection().execute(_UPSERT, [row])
                session.connection().execute(delete(_TABLE).where(_TABLE.c.seen_at_us < now_us - FORGOTTEN_AFTER_US))
            self._listening = account  # only what is written: while the database takes nothing, nobody listens
        except exc.SQLAlchemyError:
            log.debug("Ingest could not tell that it works.", exc_info=True)

    def _account(self, now: datetime, *, connected: bool) -> Listening | None:
        if not self._is_resumed:
            with db.read_session(self._engine) as session:
                row = session.get(IngestWorkerRow, self._share)
            self._listening = _listening_of(row) if row is not None else None
            self._is_resumed = True
        return listening.after(self._listening, now) if connected else self._listening


def heard(session: Session, now: datetime) -> dict[str, Listening]:
    """Return since when the fleet takes in what devices send, by shard; a shard nobody listens to is left out."""
    found: dict[str, Listening] = {}
    for row in session.exec(select(IngestWorkerRow).order_by(IngestWorkerRow.share)):
        account = listening.at(_listening_of(row), now)
        if account is None:
            continue
        for number in shards.parse(row.share).shards:
            other = found.get(f"{number:02x}")
            found[f"{number:02x}"] = account if other is None or account.since < other.since else other
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    listening: Listening | None = None


def _listening_of(row: IngestWorkerRow) -> Listening | None:
    try:
        return codec.decode(row.status.encode(), _Told).listening
    except LinesideError:
        return None  # another version's word
