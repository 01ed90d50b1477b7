"""Candidates beside the active version, over HTTP: how they compare, and the parts on which they disagree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query

from fleet.auth.guard import Viewer
from fleet.inspections import moments
from fleet.registry import service as registry
from fleet.shadow import service
from fleet.shadow.absorb import PAIRS_KEPT
from fleet.shadow.tables import ShadowPairRow
from fleet.web import Fleet, Page, Paged, Reading, TheFleet, url_pattern, write_cursor
from wire import ids
from wire.errors import LinesideError

router = APIRouter(tags=["shadow"])
_Release = Annotated[int, Path(ge=1, le=2**53)]
_Device = Annotated[str | None, Query(max_length=64)]
_Digest = Annotated[str | None, Query(pattern=url_pattern(ids.DIGEST_PATTERN))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate beside the active versions.

    Args:
        against: paired results, for each active version it ran beside.
        evidence: for each device, what was meant for the candidate and what became of it.
        pairs_kept: how many of the newest parts of one device are kept; the matrices are of these.
    """

    model: str
    release: int
    digest: str
    against: list[service.Against]
    evidence: list[service.Evidence]
    pairs_kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOfPair:
    """A picture of one view; `here` tells whether it has arrived."""

    view: str
    digest: str
    path: str
    here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """One part to which the two versions gave different verdicts; `pair` is `wire.messages.ShadowPair`."""

    inspection: str
    device: str
    station: str
    at: datetime
    received_at: datetime
    active_digest: str
    active_verdict: str
    verdict: str
    pictures: list[PictureOfPair]
    pair: dict[str, Any]


@router.get("/models/{model}/versions/{release}/shadow")
def show_shadow(_actor: Viewer, session: Reading, model: str, release: _Release, device: _Device = None) -> Comparison:
    """Show how a version compares with the active ones it ran beside, in all and by device."""
    version = registry.version(session, model, release)
    return Comparison(
        model=model,
        release=release,
        digest=version.digest,
        against=service.against(session, version.digest, device),
        evidence=service.evidence(session, model, version.digest, device),
        pairs_kept=PAIRS_KEPT,
    )


@router.get("/models/{model}/versions/{release}/shadow/disagreements")
def list_disagreements(
    _actor: Viewer,
    fleet: TheFleet,
    session: Reading,
    page: Paged,
    model: str,
    release: _Release,
    device: _Device = None,
    active_digest: _Digest = None,
) -> Page[Disagreement]:
    """List the parts on which a version and the active one disagree, the newest part first."""
    if page.after is not None and not _is_place(page.after):
        raise LinesideError("request.invalid", "The cursor is not one of this list.", "Begin without a cursor.")
    rows, following = service.disagreements(
        session,
        registry.version(session, model, release).digest,
        device=device,
        active_digest=active_digest,
        limit=page.limit,
        after=page.after,
    )
    return Page(
        items=[_view(row, fleet) for row in rows], next_cursor=None if following is None else write_cursor(following)
    )


def _is_place(after: tuple[str | int, ...]) -> bool:
    try:
        part, device = after
        return isinstance(part, str) and isinstance(device, str) and len(moments.id_bytes(part)) == moments.ID_BYTES
    except ValueError:
        return False


def _view(row: ShadowPairRow, fleet: Fleet) -> Disagreement:
    pair: dict[str, Any] = msgspec.json.decode(row.body or "{}")
    pictures = [
        PictureOfPair(
            view=view["view"], digest=digest, path=f"/blobs/{digest}", here=fleet.blobs.stat(digest) is not None
        )
        for view in pair.get("views", [])
        if (digest := view.get("picture_digest")) is not None
    ]
    return Disagreement(
        inspection=moments.id_text(row.inspection_id),
        device=row.device,
        station=row.station,
        at=moments.from_us(row.at_us),
        received_at=moments.from_us(row.received_at_us),
        active_digest=row.active_digest,
        active_verdict=row.active_verdict,
        verdict=row.verdict,
        pictures=pictures,
        pair=pair,
    )
