"""One part judged by two versions: whether a candidate is meant to see it, and what the fleet is told of it. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.inspection import judge
from agent.inspection.judge import Judgement
from wire import codec, sampling, topics
from wire.inspection import Finding, Inspection, Mode, Reason, Verdict, ViewRecord
from wire.messages import Lane, ShadowPair, ShadowView

FINDINGS_MOST: Final = 20
# The batch around one entry: device, epoch, lane and sequence number.
_ENVELOPE_BYTES: Final = 512
MAX_BYTES: Final = topics.TABLE[Lane.SHADOW.value].max_bytes - _ENVELOPE_BYTES


class Skip(enum.StrEnum):
    """Why a part that was chosen for a candidate was not compared."""

    BUSY = "busy"  # another part was with a candidate
    NO_CORE = "no_core"  # no core was idle for long enough, or the candidate rests after it had to yield many times
    YIELDED = "yielded"  # the active version wanted the core while the candidate looked
    NO_FRAME = "no_frame"  # a view of the part has no picture
    NO_VERDICT_OF_ACTIVE = "no_verdict_of_active"
    NOT_PRODUCTION = "not_production"  # a part shown on purpose: it enters no statistics
    OUT_OF_BOUNDS = "out_of_bounds"  # the recipe's parameters do not fit the candidate's manifest
    NO_ROOM = "no_room"  # the outbox did not take the pair
    STOPPED = "stopped"  # the candidate was stopped meanwhile
    ERROR = "error"  # a fault of ours; the log says which


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a candidate makes of one view."""

    judgement: Judgement
    findings: tuple[Finding, ...] = ()


def is_chosen(digest: str, inspection_id: str, rate: float) -> bool:
    """Tell whether a candidate is meant to see a part; the fleet computes the same from the part's id.

    Args:
        digest: the candidate's.
        rate: share of the parts, above 0.
    """
    return sampling.uniform(digest, inspection_id) < rate


def views_of(inspection: Inspection, model: str) -> tuple[ViewRecord, ...]:
    """Return the views of a part that name a model."""
    return tuple(view for view in inspection.views if view.model == model)


def why_not(inspection: Inspection, model: str) -> Skip | None:
    """Return why a part says nothing about a candidate, None where it does: both must judge the same pictures."""
    if inspection.mode is not Mode.PRODUCTION:
        return Skip.NOT_PRODUCTION
    if inspection.verdict is Verdict.NO_VERDICT:
        return Skip.NO_VERDICT_OF_ACTIVE
    for view in views_of(inspection, model):
        if view.verdict is Verdict.NO_VERDICT:
            return Skip.NO_FRAME if view.width_px is None else Skip.NO_VERDICT_OF_ACTIVE
    return None


def pair_of(inspection: Inspection, *, model: str, digest: str, rate: float, sights: Mapping[str, Sight]) -> ShadowPair:
    """Set what a candidate says of a part beside what the line was told.

    Args:
        inspection: of the active version, with a verdict.
        digest: the candidate's, read from its session.
        sights: of each view that names the model.
    """
    mine = views_of(inspection, model)
    joined = judge.join(
        [
            sights[view.view].judgement
            if view.model == model
            else Judgement(verdict=view.verdict, score=view.score, reason=view.reason)
            for view in inspection.views
        ]
    )
    return ShadowPair(
        inspection_id=inspection.id,
        at=inspection.judged_at,
        station=inspection.station,
        recipe=inspection.recipe,
        model=model,
        active_digest=mine[0].model_digest or "",
        digest=digest,
        rate=rate,
        active_verdict=inspection.verdict,
        verdict=joined.verdict,
        views=tuple(_view(view, sights[view.view]) for view in mine),
    )


def differing(pair: ShadowPair) -> tuple[str, ...]:
    """Return the views of which the two versions say different things."""
    return tuple(view.view for view in pair.views if view.verdict is not view.active_verdict)


def with_pictures(pair: ShadowPair, digests: Mapping[str, str | None]) -> ShadowPair:
    """Name the pictures that were kept, by view."""
    views = tuple(dataclasses.replace(view, picture_digest=digests.get(view.view)) for view in pair.views)
    return dataclasses.replace(pair, views=views)


def fitted(pair: ShadowPair, max_bytes: int = MAX_BYTES) -> ShadowPair:
    """Return the pair as it is where it fits, else without the outlines of its findings, else without the findings."""
    for less in (_without_outlines, _without_findings):
        if len(codec.encode(pair)) <= max_bytes:
            break
        pair = dataclasses.replace(pair, views=tuple(less(view) for view in pair.views))
    return pair


def _view(active: ViewRecord, sight: Sight) -> ShadowView:
    judgement = sight.judgement
    has_verdict = judgement.verdict is not Verdict.NO_VERDICT
    ranked = sorted(sight.findings, key=lambda finding: -finding.score)[:FINDINGS_MOST]
    return ShadowView(
        view=active.view,
        active_verdict=active.verdict,
        verdict=judgement.verdict,
        active_score=active.score,
        score=judgement.score if has_verdict else None,
        reason=Reason.NONE if has_verdict else judgement.reason,
        findings=tuple(ranked) if judgement.verdict is not active.verdict else (),
    )


def _without_outlines(view: ShadowView) -> ShadowView:
    findings = tuple(dataclasses.replace(found, mask_rle=None, polygon_px=None) for found in view.findings)
    return dataclasses.replace(view, findings=findings)


def _without_findings(view: ShadowView) -> ShadowView:
    return dataclasses.replace(view, findings=())
