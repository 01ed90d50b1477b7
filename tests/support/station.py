"""A station worker with everything around it faked: a scripted line, a camera that follows it, an outbox in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np

from agent.capture.encode import PictureKeeper, PictureOfPart
from agent.capture.feed import Feed
from agent.capture.frame import Ended, Frame, NoFrame, Source, SourceInfo, TimeClass
from agent.capture.settings import SourceSettings
from agent.clock import SystemClock
from agent.inspection.judge import ActiveRule, JudgeRules
from agent.inspection.records import TimeQuality
from agent.inspection.setup import StationSetup, ViewSetup
from agent.inspection.worker import StationWorker
from agent.line.settings import LineSettings
from agent.line.trigger import Answer, LineEvent, Output, RecipeRequest, StationState, Trigger
from agent.settings import StationSettings, ViewSettings
from agent.vision.candidates import Unusable
from agent.vision.pipeline import Look, Pipeline
from wire.desired import Recipe, ViewRecipe
from wire.errors import LinesideError
from wire.inspection import Finding, Inspection, Reason, Route, TimeSource, Verdict
from wire.messages import Lane
from wire.mint import Mint
from wire.sampling import SamplingPlan

DIGEST = "a" * 64
CLOCK = SystemClock()
JUDGE_RULES = JudgeRules(rules=(ActiveRule(name="scratch", labels=frozenset({"scratch"}), ng_at=0.5, unsure_at=0.3),))


class ScriptedLine:
    """Gives the events it was made with, and remembers the answers in the order they came."""

    def __init__(self, *events: LineEvent) -> None:
        self.events: deque[LineEvent] = deque(events)
        self.answers: list[tuple[str, Verdict]] = []
        self.ready = False
        self.state = StationState(ready=False)
        self.recipes_answered: list[tuple[RecipeRequest, str]] = []
        self.log: list[str] = []

    def take(self, timeout_s: float) -> LineEvent | None:
        return self.events.popleft() if self.events else None

    def answer(self, answer: Answer) -> None:
        self.log.append("answer")
        self.answers.append((answer.trigger.id, answer.verdict))

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        self.recipes_answered.append((request, refusal))

    def set_state(self, state: StationState) -> None:
        self.state = state
        self.ready = state.ready

    def close(self) -> None:
        pass


class ListSource:
    """Gives frames from a list, then nothing."""

    def __init__(self, frames: list[Frame], *, live: bool = True) -> None:
        self._frames = deque(frames)
        self._live = live

    def open(self) -> SourceInfo:
        return SourceInfo(camera="cam", time_class=TimeClass.HARDWARE_TRIGGERED, live=self._live)

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        if self._frames:
            return self._frames.popleft()
        time.sleep(min(timeout_s, 0.005))
        return NoFrame(reason="none left")

    def close(self) -> None:
        pass


class MemoryOutbox:
    """Keeps records in a list; `fails` makes every put of an inspection raise."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.inspections: list[Inspection] = []
        self.meta: dict[str, str] = {}
        self.fails = False
        self._log = log if log is not None else []
        self._last: dict[str, tuple[str, int]] = {}

    def put_inspection(self, inspection: Inspection, *, line_run: str | None) -> int:
        if self.fails:
            raise LinesideError("storage.full", "No room.")
        self._log.append("record")
        self.inspections.append(inspection)
        if line_run is not None and inspection.trigger_sequence is not None:
            self._last[inspection.station] = (line_run, inspection.trigger_sequence)
        return len(self.inspections)

    def put_inspections(self, inspections: Sequence[Inspection], *, line_run: str | None) -> int:
        return [self.put_inspection(inspection, line_run=line_run) for inspection in inspections][-1]

    def last_trigger(self, station: str) -> tuple[str, int] | None:
        return self._last.get(station)

    def meta_get(self, key: str) -> str | None:
        return self.meta.get(key)

    def meta_set(self, key: str, value: str) -> None:
        self.meta[key] = value

    def put(self, lane: Lane, body: object) -> int:
        return 1


@dataclass
class FakePipeline:
    """Says of each picture what its first pixel asks for: its value in percent is the score of a scratch."""

    digest: str = DIGEST
    unusable: bool = False

    def look(self, image_bgr: Any) -> Look:
        score = float(image_bgr[0, 0, 0]) / 100
        findings = Unusable(reason="NaN") if self.unusable else (Finding(label="scratch", score=score),)
        return Look(findings=findings, preprocess_ms=0.1, run_ms=0.2, decode_ms=0.1)


@dataclass
class KeptPictures:
    """Takes every picture, or none."""

    full: bool = False
    offered: dict[str, bytes] = field(default_factory=dict)

    def offer(self, digest: str, data: bytes, part: PictureOfPart) -> bool:
        if not self.full:
            self.offered[digest] = data
        return not self.full


def trigger(sequence: int, *, run: str = "r1", age_ms: float = 0.0) -> Trigger:
    """A trigger of now, or of `age_ms` ago."""
    at_ns = CLOCK.monotonic_ns() - int(age_ms * 1e6)
    return Trigger(id=f"{run}-{sequence}", run=run, sequence=sequence, at_ns=at_ns, at_utc=datetime.now(UTC))


def answer_to(event: Trigger, verdict: Verdict) -> Answer:
    """What a station says of a trigger's part."""
    return Answer(
        trigger=event,
        inspection_id="01932f5e-7a10-7abc-8def-0123456789ab",
        verdict=verdict,
        reason=Reason.NONE,
        route=Route.ACCEPT if verdict is Verdict.OK else Route.DIVERT,
        recipe="default",
        judged_ns=CLOCK.monotonic_ns(),
    )


def frame_of(event: Trigger, *, score_percent: int, apart_ms: float = 0.0) -> Frame:
    """The frame exposed by a trigger; its pixels ask FakePipeline for a scratch of this score."""
    image = np.full((24, 32, 3), score_percent, np.uint8)
    exposed_ns = event.at_ns + int(apart_ms * 1e6)
    return Frame(
        camera="cam", number=event.sequence or 0, exposed_utc=event.at_utc, exposed_ns=exposed_ns, image_bgr=image
    )


def setup_of(
    *views: str, pipeline: FakePipeline | None = None, floor_rate: float = 1.0, ready: bool = True
) -> StationSetup:
    """A setup with the recipe `default`."""
    names = views or ("top",)
    loaded = cast("Pipeline", pipeline or FakePipeline())
    return StationSetup(
        recipe=Recipe(id="default", revision=0, views={name: ViewRecipe(model="demo-parts") for name in names}),
        sampling=SamplingPlan(revision=0, salt="00" * 16, floor_rate=floor_rate),
        views=tuple(
            ViewSetup(
                view=name,
                model="demo-parts",
                pipelines=(loaded,) * 2 if ready else (),
                rules=JUDGE_RULES if ready else None,
            )
            for name in names
        ),
    )


def worker_of(
    line: ScriptedLine,
    frames: dict[str, list[Frame]],
    *,
    outbox: MemoryOutbox | None = None,
    pictures: KeptPictures | None = None,
    setup: StationSetup | None = None,
    deadline_ms: float = 200.0,
    live: bool = True,
    outputs: Sequence[Output] = (),
    source: Source | None = None,
) -> StationWorker:
    """A worker whose views see the given frames; with a source, they see what that gives."""
    settings = StationSettings(
        id="gauge",
        line=LineSettings(kind="simulated", address="127.0.0.1:1"),
        views=tuple(
            ViewSettings(id=view, model="demo-parts", source=SourceSettings(kind="simulated", address="127.0.0.1:1"))
            for view in frames
        ),
        deadline_ms=deadline_ms,
    )
    feeds = {view: Feed(source or ListSource(list(items), live=live), policy="every") for view, items in frames.items()}
    for feed in feeds.values():
        feed.open()
    return StationWorker(
        device="press-1",
        settings=settings,
        line=line,
        feeds=feeds,
        time_classes=dict.fromkeys(frames, TimeClass.HARDWARE_TRIGGERED),
        setup=setup or setup_of(*frames),
        outbox=outbox or MemoryOutbox(),
        pictures=PictureKeeper(pictures or KeptPictures()),
        mint=Mint(),
        clock=CLOCK,
        time_quality=lambda: TimeQuality(source=TimeSource.FREE_RUNNING),
        outputs=outputs,
    )
