"""Makes inspection records from what was seen (pure)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

from agent.capture.frame import Frame
from agent.inspection import judge
from agent.inspection.setup import StationSetup, ViewSetup
from agent.line.trigger import Answer, Trigger
from wire.inspection import Inspection, Reason, Route, TimeSource, Verdict, ViewRecord
from wire.sampling import Draw


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeQuality:
    """What the wall clock is worth just now."""

    source: TimeSource
    uncertainty_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one view contributed to a part.

    Args:
        waited_ms: of its look, for a core that other work had.
    """

    record: ViewRecord
    judgement: judge.Judgement
    waited_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an inspection happens."""

    device: str
    station: str


def view_without_verdict(view: ViewSetup, reason: Reason, frame: Frame | None = None) -> ViewRecord:
    """Return the record of a view that says nothing, with its frame where there was one."""
    record = ViewRecord(
        view=view.view,
        camera=view.view,
        verdict=Verdict.NO_VERDICT,
        reason=reason,
        model=view.model,
        model_digest=view.digest,
        deployment_id=view.deployment_id,
    )
    if frame is None:
        return dataclasses.replace(record, model_digest=None, deployment_id=None)
    height, width = frame.image_bgr.shape[:2]
    return dataclasses.replace(
        record,
        camera=frame.camera,
        frame_number=frame.number,
        frame_at=frame.exposed_utc,
        width_px=width,
        height_px=height,
    )


def route_of(verdict: Verdict, unsure: Route) -> Route:
    """Return where the line shall send a part; without a verdict it is diverted, never accepted."""
    if verdict is Verdict.UNSURE:
        return unsure
    return {Verdict.OK: Route.ACCEPT, Verdict.NG: Route.REJECT}.get(verdict, Route.DIVERT)


def nothing(reason: Reason) -> judge.Judgement:
    """Return the judgement of a view that says nothing."""
    return judge.Judgement(verdict=Verdict.NO_VERDICT, reason=reason)


def inspection_of(
    *,
    inspection_id: str,
    place: Place,
    setup: StationSetup,
    trigger: Trigger,
    seen: list[Seen],
    draw: Draw,
    quality: TimeQuality,
    now: datetime,
    total_ms: float,
    late: bool,
) -> Inspection:
    """Join the views of one part into its record.

    Args:
        draw: with `kept` as it came out.
        total_ms: from the trigger to now.
        late: the deadline is over: whatever was seen, the line can no longer use it.
    """
    joined = judge.join([one.judgement for one in seen])
    if late and joined.verdict is not Verdict.NO_VERDICT:
        joined = dataclasses.replace(joined, verdict=Verdict.NO_VERDICT, reason=Reason.DEADLINE)
    return Inspection(
        id=inspection_id,
        device=place.device,
        station=place.station,
        recipe=setup.recipe.id,
        recipe_revision=setup.recipe.revision,
        parameters_revision=setup.recipe.revision,
        trigger_id=trigger.id,
        trigger_sequence=trigger.sequence,
        lot=trigger.lot,
        part_id=trigger.part_id,
        mode=trigger.mode,
        triggered_at=trigger.at_utc,
        judged_at=now,
        time_source=quality.source,
        time_uncertainty_ms=quality.uncertainty_ms,
        verdict=joined.verdict,
        score=joined.score,
        reason=joined.reason if joined.verdict is not Verdict.OK else Reason.NONE,
        rule_fired=joined.fired,
        views=tuple(one.record for one in seen),
        sampling=draw,
        total_ms=total_ms,
        route=route_of(joined.verdict, setup.recipe.unsure),
    )


def missed_inspection(
    *,
    inspection_id: str,
    place: Place,
    setup: StationSetup,
    trigger_id: str,
    sequence: int | None,
    reason: Reason,
    draw: Draw,
    now: datetime,
) -> Inspection:
    """Return the record of a part that passed while nobody was looking; nobody was told a route."""
    return Inspection(
        id=inspection_id,
        device=place.device,
        station=place.station,
        recipe=setup.recipe.id,
        recipe_revision=setup.recipe.revision,
        trigger_id=trigger_id,
        trigger_sequence=sequence,
        triggered_at=now,
        judged_at=now,
        time_source=TimeSource.SUSPECT,  # when the part passed is not known, only that it did
        verdict=Verdict.NO_VERDICT,
        reason=reason,
        sampling=dataclasses.replace(draw, kept=False),
    )


def as_unrecorded(inspection: Inspection) -> Inspection:
    """Return the record of a part that the line was told to divert because its verdict could not be recorded."""
    return dataclasses.replace(inspection, verdict=Verdict.NO_VERDICT, reason=Reason.NOT_RECORDED, route=Route.DIVERT)


def answer_of(
    inspection: Inspection, trigger: Trigger, setup: StationSetup, *, recorded: bool, judged_ns: int
) -> Answer:
    """Return what the line is told of a part: what stands in its record.

    Args:
        recorded: the record was kept; otherwise `inspection` is the one that says so (`as_unrecorded`).
        judged_ns: monotonic.
    """
    return Answer(
        trigger=trigger,
        inspection_id=inspection.id if recorded else "",
        verdict=inspection.verdict,
        reason=inspection.reason,
        route=route_of(inspection.verdict, setup.recipe.unsure),
        recipe=inspection.recipe,
        score=inspection.score,
        rule_fired=inspection.rule_fired,
        judged_ns=judged_ns,
    )
