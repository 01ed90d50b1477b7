"""What is counted for a version while real parts go through a station, and what is not."""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, cast

import pytest

from agent.deploy import probation
from agent.deploy.figures import LOT_PARTS, Figures
from agent.deploy.probation import LEAST_LOOKS
from agent.inspection import core_wait
from agent.inspection import stations as station_module
from agent.inspection.growth import SETTLED_LOOKS, Growth, rss_mb
from agent.inspection.setup import StationSetup, ViewSetup
from agent.inspection.stations import Stations
from agent.inspection.version_watch import WINDOW_PARTS, VersionWatch
from agent.inspection.worker import StationWorker
from agent.vision.pipeline import Look, Pipeline
from agent.vision.runtime import RuntimeOptions
from tests.support import tiny_models
from tests.support.station import (
    DIGEST,
    FakePipeline,
    MemoryOutbox,
    ScriptedLine,
    frame_of,
    setup_of,
    trigger,
    worker_of,
)
from wire.desired import Recipe, ViewRecipe
from wire.errors import LinesideError
from wire.inspection import Inspection, Mode, Reason, Verdict
from wire.package import read_folder
from wire.sampling import SamplingPlan

MODEL = "demo-parts"
OTHER = "b" * 64
MODELS = Path(__file__).resolve().parents[2] / "models"


class SlowPipeline(FakePipeline):
    def look(self, image_bgr: Any) -> Look:
        time.sleep(0.08)
        return super().look(image_bgr)


class BrokenPipeline(FakePipeline):
    def look(self, image_bgr: Any) -> Look:
        raise LinesideError("model.run_failed", "Injected.")


class CrashingPipeline(FakePipeline):
    def look(self, image_bgr: Any) -> Look:
        raise IndexError("a decoder that trusts its outputs")


def judge_one(
    pipeline: FakePipeline | None = None, *, score_percent: int = 10, deadline_ms: float = 200.0, **how: Any
) -> StationWorker:
    """Carry one part through a station."""
    event = dataclasses.replace(trigger(1, age_ms=how.pop("age_ms", 0.0)), **how)
    frame = frame_of(event, score_percent=score_percent)
    worker = worker_of(
        ScriptedLine(), {"top": [frame]}, setup=setup_of("top", pipeline=pipeline), deadline_ms=deadline_ms
    )
    worker.inspect(event)
    return worker


@pytest.mark.parametrize(("score_percent", "verdict"), [(10, "OK"), (40, "UNSURE"), (90, "NG")])
def test_a_part_counts_for_the_version_that_judged_it_with_its_look(score_percent: int, verdict: str) -> None:
    found = judge_one(score_percent=score_percent).watch.figures(MODEL, DIGEST)
    assert (found.verdicts, found.faults, found.parts) == ({verdict: 1}, {}, 1)
    assert found.look_count == 1
    assert found.look_p95_ms == pytest.approx(0.4, rel=0.05), "preprocess, run and decode, not the waiting"


@dataclasses.dataclass
class TimedPipeline(FakePipeline):
    """Says that its looks take so long, whatever they do take."""

    run_ms: float = 80.0

    def look(self, image_bgr: Any) -> Look:
        return dataclasses.replace(super().look(image_bgr), run_ms=self.run_ms)


@pytest.fixture(autouse=True)
def wait(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """So many ns the station's thread waits for a core from one question for that to the next; none unless told."""
    found, total_ns = [0], 0

    def waited() -> int:
        nonlocal total_ns
        total_ns += found[0]
        return total_ns

    monkeypatch.setattr(core_wait, "waited_ns", waited)
    return found


def test_what_a_look_waited_for_a_core_is_not_the_versions(wait: list[int]) -> None:
    wait[0] = 60_000_000
    found = judge_one(TimedPipeline()).watch.figures(MODEL, DIGEST)
    assert found.look_p95_ms == pytest.approx(20.2, rel=0.05)
    wait[0] = 90_000_000
    assert judge_one(TimedPipeline()).watch.figures(MODEL, DIGEST).look_count == 1, "it has looked, though"


def test_a_busy_machine_takes_no_version_back_and_one_that_is_slow_on_it_goes_back(wait: list[int]) -> None:
    def looks(run_ms: float) -> Figures:
        parts = [judge_one(TimedPipeline(run_ms=run_ms)).watch.figures(MODEL, DIGEST) for _ in range(LEAST_LOOKS)]
        return functools.reduce(Figures.plus, parts)

    def found(seen: Figures) -> probation.Finding:
        limits = probation.ProbationLimits()
        return probation.judge(seen, before, limits, watched_s=1.0, confirmed=False, memory_limit_mb=64.0)

    before = looks(20.0)
    wait[0] = 80_000_000
    assert found(looks(100.0)) == probation.Watching(), "20 ms of each were its own"
    slow = found(looks(180.0))
    assert isinstance(slow, probation.Faulty)
    assert slow.code == "deployment.too_slow"


def test_a_look_without_usable_output_is_the_versions_fault() -> None:
    found = judge_one(FakePipeline(unusable=True)).watch.figures(MODEL, DIGEST)
    assert (found.verdicts, found.faults, found.look_count) == ({}, {"unusable_output": 1}, 1)


def test_a_look_that_fails_is_the_versions_fault() -> None:
    assert judge_one(BrokenPipeline()).watch.figures(MODEL, DIGEST).faults == {"runtime_error": 1}


def test_a_look_that_ends_the_thread_is_the_versions_fault_although_its_record_names_none() -> None:
    event = trigger(1)
    outbox = MemoryOutbox()
    worker = worker_of(
        ScriptedLine(),
        {"top": [frame_of(event, score_percent=10)]},
        setup=setup_of("top", pipeline=CrashingPipeline()),
        outbox=outbox,
    )
    with pytest.raises(IndexError):
        worker.inspect(event)
    assert outbox.inspections[0].views[0].model_digest is None
    assert worker.watch.figures(MODEL, DIGEST).faults == {"runtime_error": 1}


def test_a_verdict_that_came_too_late_is_a_fault_and_no_verdict() -> None:
    found = judge_one(SlowPipeline(), deadline_ms=50.0).watch.figures(MODEL, DIGEST)
    assert (found.verdicts, found.faults) == ({}, {"deadline": 1})
    assert judge_one(age_ms=500.0).watch.figures(MODEL, DIGEST).faults == {"deadline": 1}, "there was no turn in time"


@pytest.mark.parametrize(
    ("mode", "parts"), [(Mode.PRODUCTION, 1), (Mode.REPLAY, 1), (Mode.SETUP, 0), (Mode.CHALLENGE, 0)]
)
def test_parts_shown_on_purpose_are_not_counted_those_of_a_clip_are(mode: Mode, parts: int) -> None:
    assert judge_one(mode=mode).watch.figures(MODEL, DIGEST).parts == parts


def test_a_part_whose_picture_is_missing_or_black_says_nothing_of_the_version() -> None:
    event = trigger(1)
    worker = worker_of(ScriptedLine(), {"top": []}, deadline_ms=30)
    worker.inspect(event)
    assert worker.watch.figures(MODEL, DIGEST).parts == 0
    watch, record = VersionWatch(), seen(Verdict.OK)
    black = dataclasses.replace(record.views[0], verdict=Verdict.NO_VERDICT, reason=Reason.FRAME_BLACK)
    watch.note(setup_of("top"), dataclasses.replace(record, views=(black,)))
    assert watch.figures(MODEL, DIGEST).parts == 0


def seen(
    *verdicts: Verdict, digest: str = DIGEST, total: Verdict = Verdict.OK, reason: Reason = Reason.NONE
) -> Inspection:
    """A part as some station recorded it, one view for each verdict."""
    event, outbox = trigger(1), MemoryOutbox()
    names = [f"view-{number}" for number in range(len(verdicts))]
    worker = worker_of(
        ScriptedLine(),
        {name: [frame_of(event, score_percent=10)] for name in names},
        outbox=outbox,
        setup=setup_of(*names),
        deadline_ms=60_000.0,  # a part that is late on a busy machine was not looked at
    )
    worker.inspect(event)
    views = tuple(
        dataclasses.replace(view, verdict=verdict, model_digest=digest)
        for view, verdict in zip(outbox.inspections[0].views, verdicts, strict=True)
    )
    return dataclasses.replace(outbox.inspections[0], views=views, verdict=total, reason=reason)


def test_views_of_one_model_are_one_part_and_any_ng_is_ng() -> None:
    watch = VersionWatch()
    setup = setup_of("view-0", "view-1")
    watch.note(setup, seen(Verdict.OK, Verdict.NG))
    watch.note(setup, seen(Verdict.UNSURE, Verdict.OK))
    found = watch.figures(MODEL, DIGEST)
    assert (found.verdicts, found.look_count) == ({"NG": 1, "UNSURE": 1}, 4)


def test_views_of_two_models_are_counted_for_each_by_what_it_said_itself() -> None:
    both = setup_of("view-0", "view-1")
    other = dataclasses.replace(
        both.views[1], model="screws", pipelines=(cast("Pipeline", FakePipeline(digest=OTHER)),)
    )
    setup: StationSetup = dataclasses.replace(both, views=(both.views[0], other))
    part = seen(Verdict.OK, Verdict.NG, total=Verdict.NG)
    part = dataclasses.replace(part, views=(part.views[0], dataclasses.replace(part.views[1], model_digest=OTHER)))
    watch = VersionWatch()
    watch.note(setup, part)
    assert watch.figures(MODEL, DIGEST).verdicts == {"OK": 1}
    assert watch.figures("screws", OTHER).verdicts == {"NG": 1}


def test_a_part_that_was_taken_before_the_swap_counts_for_the_version_that_judged_it() -> None:
    watch = VersionWatch()
    watch.begin(MODEL, DIGEST)
    watch.begin(MODEL, OTHER)
    watch.note(setup_of("view-0"), seen(Verdict.NG))
    assert watch.figures(MODEL, OTHER).parts == 0
    assert watch.figures(MODEL, DIGEST).verdicts == {"NG": 1}


def test_a_second_use_counts_from_its_start_and_what_a_version_did_lately_is_kept() -> None:
    watch, part = VersionWatch(), seen(Verdict.OK)
    watch.begin(MODEL, DIGEST)
    for _ in range(3):
        watch.note(setup_of("view-0"), part)
    watch.begin(MODEL, OTHER)
    watch.begin(MODEL, DIGEST)
    assert watch.figures(MODEL, DIGEST).parts == 0
    assert watch.recent_figures(MODEL, DIGEST).parts == 3


def test_what_a_version_did_lately_is_bounded_and_recent() -> None:
    watch, ok, bad = VersionWatch(), seen(Verdict.OK), seen(Verdict.NG)
    setup = setup_of("view-0")
    for _ in range(5 * WINDOW_PARTS):
        watch.note(setup, ok)
    for _ in range(WINDOW_PARTS + 1):
        watch.note(setup, bad)
    lately = watch.recent_figures(MODEL, DIGEST)
    assert lately.verdicts == {"NG": WINDOW_PARTS + 1}, "what was weeks ago is forgotten"
    assert watch.figures(MODEL, DIGEST).parts == 6 * WINDOW_PARTS + 1
    assert lately.lots == WINDOW_PARTS // LOT_PARTS
    assert lately.lot_squares == {"NG": lately.lots * LOT_PARTS**2}


def test_versions_long_gone_are_forgotten() -> None:
    watch, part = VersionWatch(), seen(Verdict.OK)
    watch.begin(MODEL, DIGEST)
    watch.note(setup_of("view-0"), part)
    for other in "bcd":
        watch.begin(MODEL, other * 64)
    assert watch.recent_figures(MODEL, DIGEST).parts == 0


def test_the_stations_add_up_what_the_version_in_use_did_on_all_of_them() -> None:
    workers = {
        name: worker_of(ScriptedLine(), {"top": []}, setup=setup_of("top", ready=False)) for name in ("one", "two")
    }
    for worker in workers.values():
        worker.ended.set()  # its thread does not run here, and is not waited for
    stations = Stations(workers, RuntimeOptions(), lambda _model, _digest: None)
    assert stations.figures(MODEL) is None
    digest = stations.activate(read_folder(MODELS / "demo-parts-1"))
    for worker in workers.values():
        worker.watch.note(worker.setup, seen(Verdict.OK, digest=digest))
    found, lately = stations.figures(MODEL), stations.recent_figures(MODEL)
    assert found is not None
    assert lately is not None
    assert (found.digest, found.verdicts, found.look_count) == (digest, {"OK": 2}, 2)
    assert found.rss_mb == pytest.approx(rss_mb(), rel=0.2)
    assert lately.parts == 2
    assert stations.activate(read_folder(MODELS / "demo-parts-2")) != digest
    assert stations.activate(read_folder(MODELS / "demo-parts-1")) == digest
    found, lately = stations.figures(MODEL), stations.recent_figures(MODEL)
    assert found is not None
    assert lately is not None
    assert (found.parts, lately.parts) == (0, 2), "this use of it begins anew; what it did lately is known"


@pytest.fixture
def of_two_models(tmp_path: Path) -> tuple[Stations, StationWorker]:
    """Two stations with a model each, both loaded; returns the worker of the first one, too."""
    workers = {
        model: worker_of(ScriptedLine(), {"top": []}, setup=_setup_without(model)) for model in (MODEL, "colors")
    }
    for worker in workers.values():
        worker.ended.set()  # its thread does not run here, and is not waited for
    made = Stations(workers, RuntimeOptions(), lambda _model, _digest: None)
    made.activate(read_folder(MODELS / "demo-parts-1"))
    made.activate(tiny_models.make(tmp_path / "colors-1"))
    return made, workers[MODEL]


def _setup_without(model: str) -> StationSetup:
    return StationSetup(
        recipe=Recipe(id="default", revision=0, views={"top": ViewRecipe(model=model)}),
        sampling=SamplingPlan(revision=0, salt="00" * 16),
        views=(ViewSetup(view="top", model=model),),
    )


def finding(stations: Stations, baseline: Figures | None) -> probation.Finding:
    found = stations.figures(MODEL)
    assert found is not None
    return probation.judge(
        found, baseline, probation.ProbationLimits(), watched_s=1.0, confirmed=False, memory_limit_mb=64.0
    )


def test_another_models_session_is_not_blamed_on_the_version_in_probation(
    of_two_models: tuple[Stations, StationWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stations, worker = of_two_models
    used_mb = 100.0
    monkeypatch.setattr(station_module, "rss_mb", lambda: used_mb)
    baseline = stations.recent_figures(MODEL)
    digest = stations.activate(read_folder(MODELS / "demo-parts-2"))
    used_mb = 293.0
    found = finding(stations, baseline)
    assert isinstance(found, probation.Faulty), "nothing else was built: it is its own"
    assert "uses 293 MB, 100 MB before" in found.reason
    used_mb = 110.0
    for _ in range(SETTLED_LOOKS):
        worker.watch.note(worker.setup, seen(Verdict.OK, digest=digest))
    assert finding(stations, baseline) == probation.Watching()

    stations.activate(tiny_models.make(tmp_path / "colors-2", release=2))
    used_mb = 400.0
    assert finding(stations, baseline) == probation.Watching()
    used_mb = 529.0
    found = finding(stations, baseline)
    assert isinstance(found, probation.Faulty), "what it leaks from then on is noticed still"
    assert "grew by 129 MB" in found.reason


def test_what_the_closed_session_gives_back_hides_no_leak(
    of_two_models: tuple[Stations, StationWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    stations, worker = of_two_models
    used_mb = 350.0  # both sessions
    monkeypatch.setattr(station_module, "rss_mb", lambda: used_mb)
    digest = stations.activate(read_folder(MODELS / "demo-parts-2"))
    for _ in range(SETTLED_LOOKS):
        worker.watch.note(worker.setup, seen(Verdict.OK, digest=digest))
    assert finding(stations, None) == probation.Watching()
    while stations.tidy():
        pass
    used_mb = 150.0
    assert finding(stations, None) == probation.Watching()
    used_mb = 279.0
    found = finding(stations, None)
    assert isinstance(found, probation.Faulty)
    assert "grew by 129 MB" in found.reason


def test_a_version_of_another_model_that_could_not_be_taken_is_not_blamed_on_the_one_in_probation(
    of_two_models: tuple[Stations, StationWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stations, worker = of_two_models
    used_mb = 100.0
    monkeypatch.setattr(station_module, "rss_mb", lambda: used_mb)
    baseline = stations.recent_figures(MODEL)
    digest = stations.activate(read_folder(MODELS / "demo-parts-2"))
    for _ in range(SETTLED_LOOKS):
        worker.watch.note(worker.setup, seen(Verdict.OK, digest=digest))
    assert finding(stations, baseline) == probation.Watching()
    with pytest.raises(LinesideError):
        stations.activate(tiny_models.make(tmp_path / "colors-2", "nan", release=2))
    used_mb = 400.0
    assert finding(stations, baseline) == probation.Watching()


def test_memory_is_compared_with_what_it_was_when_the_version_had_settled_in() -> None:
    growth = Growth()
    assert growth.measure(MODEL, DIGEST, SETTLED_LOOKS - 1, 100.0) == 0.0
    assert growth.measure(MODEL, DIGEST, SETTLED_LOOKS, 300.0) == 0.0
    assert growth.measure(MODEL, DIGEST, SETTLED_LOOKS + 9, 340.0) == 40.0
    assert growth.measure(MODEL, DIGEST, SETTLED_LOOKS + 9, 290.0) == 0.0
    assert growth.measure(MODEL, OTHER, SETTLED_LOOKS, 400.0) == 0.0
    growth.restart()
    assert growth.measure(MODEL, OTHER, SETTLED_LOOKS, 700.0) == 0.0, "another session was built meanwhile"
