"""The quarantine: the newest 10,000 refusals, kept small, counted where they come again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, select
from sqlalchemy.dialects import sqlite
from sqlmodel import Session

from fleet.ingest.route import EXCERPT_BYTES, TEXT_CHARACTERS, Reject
from fleet.ingest.tables import QuarantineRow
from fleet.inspections import moments

MAX_ROWS: Final = 10_000
_TABLE: Final = QuarantineRow.__table__  # type: ignore[attr-defined]
_insert = sqlite.insert(_TABLE)
_UPSERT: Final = _insert.on_conflict_do_update(
    index_elements=["fingerprint"],
    set_={"times": _TABLE.c.times + 1, "last_at_us": _insert.excluded.last_at_us},
)


def keep(session: Session, rejects: Sequence[Reject], now: datetime, max_rows: int = MAX_ROWS) -> None:
    """Write refusals in the session's open transaction, and drop the oldest over the bound."""
    if not rejects:
        return
    connection = session.connection()
    connection.execute(_UPSERT, [_columns(reject, moments.to_us(now)) for reject in rejects[-max_rows:]])
    oldest = select(_TABLE.c.row).order_by(_TABLE.c.row.desc()).offset(max_rows).limit(1).scalar_subquery()
    connection.execute(delete(_TABLE).where(_TABLE.c.row <= oldest))


def _columns(reject: Reject, now_us: int) -> dict[str, Any]:
    place, seqs = reject.place, reject.seqs
    mark = "\0".join(
        [
            reject.topic,
            reject.code,
            place.epoch if place else "",
            f"{seqs.first}-{seqs.last}" if seqs else "",
            str(reject.payload_bytes),
        ]
    )
    return {
        "fingerprint": hashlib.sha256(mark.encode(errors="replace") + b"\0" + reject.excerpt).digest()[:16],
        "received_at_us": now_us,
        "last_at_us": now_us,
        "times": 1,
        "topic": reject.topic,
        "device": reject.device,
        "epoch": place.epoch if place else None,
        "lane": place.lane.value if place else None,
        "first_seq": seqs.first if seqs else None,
        "last_seq": seqs.last if seqs else None,
        "code": reject.code,
        "text": reject.text[:TEXT_CHARACTERS],
        "payload_bytes": reject.payload_bytes,
        "excerpt": reject.excerpt[:EXCERPT_BYTES],
    }
