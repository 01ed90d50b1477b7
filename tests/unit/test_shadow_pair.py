"""What is said of a part that two versions judged, and which parts say nothing about a candidate. Values only."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.inspection import shadow_pair
from agent.inspection.judge import Judgement
from agent.inspection.shadow_pair import Sight, Skip
from wire import codec, sampling
from wire.inspection import Box, Finding, Inspection, Mode, Reason, TimeSource, Verdict, ViewRecord
from wire.messages import ShadowPair
from wire.sampling import Draw

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CANDIDATE = "c" * 64
ID = "01932f5e-7a10-7abc-8def-0123456789ab"


def view(name: str, verdict: Verdict = Verdict.OK, *, model: str = "parts", frame: bool = True) -> ViewRecord:
    return ViewRecord(
        view=name,
        camera=name,
        verdict=verdict,
        score=0.25,
        width_px=64 if frame else None,
        height_px=64 if frame else None,
        model=model,
        model_digest="a" * 64 if frame else None,
    )


def inspection(*views: ViewRecord, verdict: Verdict = Verdict.OK, mode: Mode = Mode.PRODUCTION) -> Inspection:
    return Inspection(
        id=ID,
        device="press-1",
        station="gauge",
        recipe="default",
        recipe_revision=0,
        trigger_id="r1-1",
        mode=mode,
        triggered_at=NOW,
        judged_at=NOW,
        time_source=TimeSource.FREE_RUNNING,
        verdict=verdict,
        views=views,
        sampling=Draw(plan_revision=0, stratum="all", pi=0.5, u=0.75, kept=False),
    )


def says(verdict: Verdict, score: float = 0.9, findings: tuple[Finding, ...] = (), why: str = "") -> Sight:
    reason = Reason.UNUSABLE_OUTPUT if verdict is Verdict.NO_VERDICT else Reason.NONE
    return Sight(judgement=Judgement(verdict=verdict, score=score, reason=reason, why=why), findings=findings)


def pair_of(record: Inspection, **sights: Sight) -> ShadowPair:
    return shadow_pair.pair_of(record, model="parts", digest=CANDIDATE, rate=0.5, sights=sights)


def test_a_part_is_chosen_by_the_sampling_formula_and_at_rate_one_always() -> None:
    drawn = sampling.uniform(CANDIDATE, ID)
    assert shadow_pair.is_chosen(CANDIDATE, ID, drawn + 1e-12)
    assert not shadow_pair.is_chosen(CANDIDATE, ID, drawn)
    assert shadow_pair.is_chosen(CANDIDATE, ID, 1.0)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (inspection(view("top")), None),
        (inspection(view("top", Verdict.NG), view("side"), verdict=Verdict.NG), None),
        (inspection(view("top"), mode=Mode.CHALLENGE), Skip.NOT_PRODUCTION),
        (inspection(view("top"), mode=Mode.SETUP), Skip.NOT_PRODUCTION),
        (inspection(view("top"), verdict=Verdict.NO_VERDICT), Skip.NO_VERDICT_OF_ACTIVE),
        (
            inspection(view("top", Verdict.NG), view("side", Verdict.NO_VERDICT, frame=False), verdict=Verdict.NG),
            Skip.NO_FRAME,
        ),
        (
            inspection(view("top", Verdict.NG), view("side", Verdict.NO_VERDICT), verdict=Verdict.NG),
            Skip.NO_VERDICT_OF_ACTIVE,
        ),
        (
            inspection(view("top", Verdict.NG), view("side", Verdict.NO_VERDICT, model="other"), verdict=Verdict.NG),
            None,
        ),
    ],
    ids=[
        "judged",
        "judged in both views",
        "a challenge part",
        "a part of setting up",
        "late, or not recorded",
        "a view without frame",
        "a view whose picture is bad",
        "another model's view is bad",
    ],
)
def test_only_parts_whose_pictures_the_active_version_judged_say_something(
    record: Inspection, why: Skip | None
) -> None:
    assert shadow_pair.why_not(record, "parts") is why


def test_views_of_other_models_count_as_they_were() -> None:
    record = inspection(view("top"), view("side", Verdict.UNSURE, model="other"), verdict=Verdict.UNSURE)
    pair = pair_of(record, top=says(Verdict.OK))
    assert (pair.active_verdict, pair.verdict) == (Verdict.UNSURE, Verdict.UNSURE)
    assert [one.view for one in pair.views] == ["top"]
    assert pair_of(record, top=says(Verdict.NG)).verdict is Verdict.NG
    assert pair_of(record, top=says(Verdict.NO_VERDICT)).verdict is Verdict.NO_VERDICT


def test_a_candidate_without_verdict_says_why_and_has_no_score() -> None:
    (one,) = pair_of(inspection(view("top")), top=says(Verdict.NO_VERDICT, why="NaN")).views
    assert (one.verdict, one.score, one.reason) == (Verdict.NO_VERDICT, None, Reason.UNUSABLE_OUTPUT)
    (other,) = pair_of(inspection(view("top")), top=says(Verdict.OK)).views
    assert (other.score, other.active_score, other.reason) == (0.9, 0.25, Reason.NONE)


def test_findings_stand_only_where_the_views_disagree_and_the_highest_scores_first() -> None:
    found = tuple(Finding(label="scratch", score=n / 100) for n in range(30))
    record = inspection(view("top"), view("side"))
    pair = pair_of(record, top=says(Verdict.NG, findings=found), side=says(Verdict.OK, findings=found))
    top, side = pair.views
    assert [finding.score for finding in top.findings] == [n / 100 for n in range(29, 9, -1)]
    assert side.findings == ()
    assert shadow_pair.differing(pair) == ("top",)


def test_what_does_not_fit_the_lane_loses_outlines_first_and_findings_last() -> None:
    outline = Finding(
        label="scratch",
        score=0.5,
        box=Box(x1_px=0.0, y1_px=0.0, x2_px=9.0, y2_px=9.0),
        mask_rle=tuple(range(50)),
        polygon_px=tuple((float(n), float(n)) for n in range(64)),
    )
    pair = pair_of(inspection(view("top")), top=says(Verdict.NG, findings=(outline,) * 20))
    assert shadow_pair.fitted(pair) is pair
    lighter = shadow_pair.fitted(pair, 5000)
    assert len(codec.encode(lighter)) <= 5000
    assert len(lighter.views[0].findings) == 20
    assert {(one.mask_rle, one.polygon_px) for one in lighter.views[0].findings} == {(None, None)}
    lightest = shadow_pair.fitted(pair, 1000)
    assert lightest.views[0].findings == ()
    assert len(codec.encode(lightest)) <= 1000


def test_the_largest_pair_there_can_be_fits_its_lane() -> None:
    finding = Finding(
        label="\u4e2d" * 100,
        score=0.123456789012345,
        mask_rle=tuple(range(10_000, 10_200)),
        polygon_px=tuple((1234.123456, 1234.123456) for _ in range(64)),
    )
    views = tuple(view(f"view-{n}") for n in range(16))
    sights = {one.view: says(Verdict.NG, findings=(finding,) * 300) for one in views}
    pair = shadow_pair.pair_of(inspection(*views), model="parts", digest=CANDIDATE, rate=1.0, sights=sights)
    named = shadow_pair.with_pictures(pair, {one.view: "b" * 64 for one in views})
    fitted = shadow_pair.fitted(named)
    assert len(codec.encode(named)) > shadow_pair.MAX_BYTES >= len(codec.encode(fitted))
    assert all(one.picture_digest == "b" * 64 for one in fitted.views)
    assert codec.decode(codec.encode(fitted), ShadowPair) == fitted
