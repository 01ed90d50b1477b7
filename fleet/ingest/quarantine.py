"""The quarantine: the newest 10,000 refusals, kept small, counted where they come again.

What an unknown device sends is one row for each lane of its outbox, however much it is: it comes again and again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import sqlite
from sqlmodel import Session

from fleet.ingest.route import EXCERPT_BYTES, TEXT_CHARACTERS, UNKNOWN_DEVICE, Reject
from fleet.ingest.tables import QuarantineRow
from fleet.inspections import moments

MAX_ROWS: Final = 10_000
_TABLE: Final = QuarantineRow.__table__  # type: ignore[attr-defined]
_insert = sqlite.insert(_TABLE)
_UPSERT: Final = _insert.on_conflict_do_update(
    index_elements=["fingerprint"],
    set_={
        "times": _TABLE.c.times + 1,
        "last_at_us": _insert.excluded.last_at_us,
        "first_seq": func.min(_TABLE.c.first_seq, _insert.excluded.first_seq),
        "last_seq": func.max(_TABLE.c.last_seq, _insert.excluded.last_seq),
    },
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
    return {
        "fingerprint": _fingerprint(reject),
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


def _fingerprint(reject: Reject) -> bytes:
    """Return 16 bytes that are equal for what counts as the same again."""
    marks = [reject.topic, reject.code, reject.place.epoch if reject.place else ""]
    if reject.code == UNKNOWN_DEVICE:
        return hashlib.sha256("\0".join(marks).encode(errors="replace")).digest()[:16]
    marks += [f"{reject.seqs.first}-{reject.seqs.last}" if reject.seqs else "", str(reject.payload_bytes)]
    return hashlib.sha256("\0".join(marks).encode(errors="replace") + b"\0" + reject.excerpt).digest()[:16]
