"""What ingest brings: each pair becomes one row, however often it is sent; the oldest parts make room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.dialects import sqlite
from sqlmodel import Session, col, delete, func, select

from fleet.absorb import Absorbed, Received
from fleet.inspections import moments
from fleet.shadow.tables import ShadowPairRow
from wire import codec
from wire.messages import ShadowPair

PAIRS_KEPT: Final = 20_000  # of one device and candidate: about 8 MB, and up to 3 KB more for each disagreement
CANDIDATES_KEPT: Final = 8  # of one device: those whose newest part is newest
PRUNE_EVERY: Final = 64
# One row in the statement and many sets of values: it is compiled once. A candidate may bring a pair for each part.
_INSERT: Final = sqlite.insert(ShadowPairRow.__table__).on_conflict_do_nothing(  # type: ignore[attr-defined]
    index_elements=["digest", "device", "inspection_id"]
)


class ShadowSlice:
    """Takes the lane `shadow`."""

    def __init__(self, pairs_kept: int = PAIRS_KEPT, candidates_kept: int = CANDIDATES_KEPT) -> None:
        self._pairs_kept = pairs_kept
        self._candidates_kept = candidates_kept

    def absorb(self, session: Session, messages: Sequence[Received]) -> Absorbed:
        """Insert the pairs that are new, and now and then drop what is over the bound."""
        if not messages:
            return Absorbed(accepted=0)
        rows = [_row_of(message) for message in messages]
        new = max(0, session.connection().execute(_INSERT, rows).rowcount)
        due = {message.device for message in messages if message.seq % PRUNE_EVERY == 0}
        for device in sorted(due):
            _drop_candidates(session, device, self._candidates_kept)
        for device, digest in sorted({(one.device, one.body.digest) for one in messages if one.device in due}):
            _drop_pairs(session, device, digest, self._pairs_kept)
        return Absorbed(accepted=len(messages), duplicates=len(messages) - new)


def _row_of(message: Received) -> dict[str, Any]:
    pair: ShadowPair = message.body
    disagreed = pair.active_verdict is not pair.verdict
    return {
        "device": message.device,
        "model": pair.model,
        "digest": pair.digest,
        "active_digest": pair.active_digest,
        "inspection_id": moments.id_bytes(pair.inspection_id),
        "at_us": moments.to_us(pair.at),
        "received_at_us": moments.to_us(message.received_at),
        "station": pair.station,
        "recipe": pair.recipe,
        "rate": pair.rate,
        "active_verdict": pair.active_verdict.value,
        "verdict": pair.verdict.value,
        "disagreed": disagreed,
        "body": codec.encode(pair).decode() if disagreed else None,
    }


def _drop_pairs(session: Session, device: str, digest: str, kept: int) -> None:
    part = col(ShadowPairRow.inspection_id)
    edge = session.exec(
        select(part)
        .where(ShadowPairRow.digest == digest)
        .where(ShadowPairRow.device == device)
        .order_by(part.desc())
        .offset(kept)
        .limit(1)
    ).first()
    if edge is not None:
        session.exec(
            delete(ShadowPairRow)
            .where(col(ShadowPairRow.digest) == digest)
            .where(col(ShadowPairRow.device) == device)
            .where(part <= edge)
        )


def _drop_candidates(session: Session, device: str, kept: int) -> None:
    digest, newest = col(ShadowPairRow.digest), func.max(ShadowPairRow.inspection_id)
    old = session.exec(
        select(digest).where(ShadowPairRow.device == device).group_by(digest).order_by(newest.desc()).offset(kept)
    ).all()
    if old:
        session.exec(delete(ShadowPairRow).where(col(ShadowPairRow.device) == device).where(digest.in_(old)))
