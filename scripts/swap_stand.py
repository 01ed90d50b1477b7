"""A running station for `soak swaps`: a line in this process, real sessions, a real outbox, and books on every part.

Two versions answer differently on every picture that is shown. What each says of each picture is found beforehand, on
sessions of their own; so a record whose answer is one version's and whose digest is the other's cannot hide.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.capture.encode import PictureKeeper
from agent.capture.feed import Feed
from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass
from agent.capture.settings import SourceSettings
from agent.clock import SystemClock
from agent.inspection.records import TimeQuality
from agent.inspection.setup import StationSetup, ViewSetup
from agent.inspection.stations import Stations
from agent.inspection.worker import StationWorker
from agent.line.settings import LineSettings
from agent.line.trigger import Answer, LineEvent, RecipeRequest, StationState, Trigger
from agent.settings import StationSettings, ViewSettings
from agent.threads import Worker
from agent.uplink.outbox import Outbox
from agent.vision import runtime
from agent.vision.candidates import Unusable
from agent.vision.pipeline import Pipeline
from tests.support.station import KeptPictures
from wire.desired import Recipe, ViewRecipe
from wire.inspection import Finding, Inspection, TimeSource, Verdict
from wire.manifest import parameters_of
from wire.messages import Lane
from wire.mint import Mint
from wire.package import Package
from wire.sampling import SamplingPlan

VIEW: Final = "top"
STATION: Final = "gauge"
# Both far from what a busy machine does: a stall is no fault of a swap. Frames are exposed at their very trigger.
DEADLINE_MS: Final = 20_000.0
TOLERANCE_MS: Final = 5.0
_RUN: Final = "r1"
_PARTS_AFTER: Final = 10
_TICK_NS: Final = 500_000_000
_MIB: Final = 1024 * 1024
Picture = NDArray[np.uint8]
Answered = tuple[tuple[str, float, tuple[float, float, float, float] | None], ...]


class SwapLine:
    """Triggers without end, each with its frame: so many a second, or the next one as soon as it is asked for."""

    def __init__(self, pictures: Sequence[Picture], rate: float | None) -> None:
        self.triggered_ns = array("q")
        self.answered_ns = array("q")
        self.answers: Counter[int] = Counter()
        self.running = threading.Event()
        self.source = _Source()
        self._pictures = pictures
        self._period_ns = int(1e9 / rate) if rate else 0
        self._due_ns = 0

    def take(self, timeout_s: float) -> LineEvent | None:
        now_ns = time.monotonic_ns()
        if not self.running.is_set():
            time.sleep(min(timeout_s, 0.01))
            return None
        at_ns = now_ns
        if self._period_ns:
            self._due_ns = self._due_ns or now_ns
            wait_s = (self._due_ns - now_ns) / 1e9
            if wait_s > timeout_s:
                time.sleep(timeout_s)
                return None
            time.sleep(max(0.0, wait_s))
            # A part that came while another was in work has waited since then.
            at_ns = self._due_ns
            self._due_ns += self._period_ns
        sequence = len(self.triggered_ns) + 1
        self.triggered_ns.append(at_ns)
        self.answered_ns.append(0)
        at_utc = datetime.now(UTC)
        self.source.give(
            Frame(
                camera="cam",
                number=sequence,
                exposed_utc=at_utc,
                exposed_ns=at_ns,
                image_bgr=self._pictures[sequence % len(self._pictures)],
            )
        )
        return Trigger(id=f"{_RUN}-{sequence}", run=_RUN, sequence=sequence, at_ns=at_ns, at_utc=at_utc)

    def answer(self, answer: Answer) -> None:
        sequence = answer.trigger.sequence or 0
        self.answered_ns[sequence - 1] = time.monotonic_ns()
        self.answers[sequence] += 1

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        pass

    def set_state(self, state: StationState) -> None:
        pass

    def close(self) -> None:
        pass


class _Source:
    """Gives each frame once, as soon as the line has it."""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._some = threading.Condition()

    def give(self, frame: Frame) -> None:
        with self._some:
            self._frames.append(frame)
            self._some.notify()

    def open(self) -> SourceInfo:
        return SourceInfo(camera="cam", time_class=TimeClass.HARDWARE_TRIGGERED, live=True)

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        with self._some:
            if self._some.wait_for(lambda: bool(self._frames), timeout_s):
                return self._frames.popleft()
        return NoFrame(reason="none yet")

    def close(self) -> None:
        pass


@dataclass
class Books:
    """Looks at every record as it is written, and passes it on to a real outbox.

    Args:
        expected: what each version says of each picture.
    """

    outbox: Outbox
    expected: dict[str, list[Answered]]
    records: Counter[int] = field(default_factory=Counter)
    judged_by: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    changes: int = 0
    last: str = ""

    def put_inspection(self, inspection: Inspection, *, line_run: str | None) -> int:
        seq = self.outbox.put_inspection(inspection, line_run=line_run)
        self._note(inspection)
        return seq

    def put_inspections(self, inspections: Sequence[Inspection], *, line_run: str | None) -> int:
        return [self.put_inspection(inspection, line_run=line_run) for inspection in inspections][-1]

    def last_trigger(self, station: str) -> tuple[str, int] | None:
        return self.outbox.last_trigger(station)

    def meta_get(self, key: str) -> str | None:
        return self.outbox.meta_get(key)

    def meta_set(self, key: str, value: str) -> None:
        self.outbox.meta_set(key, value)

    def put(self, lane: Lane, body: object) -> int:
        return self.outbox.put(lane, body)

    def _note(self, inspection: Inspection) -> None:
        sequence, view = inspection.trigger_sequence or 0, inspection.views[0]
        self.records[sequence] += 1
        self.verdicts[f"{inspection.verdict} {view.reason}".strip()] += 1
        digest = view.model_digest or ""
        if inspection.verdict is Verdict.NO_VERDICT:
            return
        self.judged_by[digest] += 1
        self.changes += bool(self.last) and digest != self.last
        self.last = digest
        answers = self.expected.get(digest)
        if answers is None or answered(view.findings) != answers[sequence % len(answers)]:
            theirs = [
                name for name, known in self.expected.items() if answered(view.findings) == known[sequence % len(known)]
            ]
            self.wrong.append(f"Part {sequence} names {digest[:12]}, and its answer is that of {theirs or 'nobody'}.")


def answered(findings: tuple[Finding, ...]) -> Answered:
    """Return what was found, to the last digit."""
    return tuple(
        (
            found.label,
            found.score,
            None if found.box is None else (found.box.x1_px, found.box.y1_px, found.box.x2_px, found.box.y2_px),
        )
        for found in findings
    )


def answers_of(package: Package, pictures: Sequence[Picture], options: runtime.RuntimeOptions) -> list[Answered]:
    """Return what a version says of each picture, from a session of its own that is closed again."""
    parameters, _ = parameters_of(package.manifest, {})
    pipeline = Pipeline(runtime.load(package, options), package, parameters)
    found = []
    for picture in pictures:
        findings = pipeline.look(picture).findings
        if isinstance(findings, Unusable):
            raise SystemExit(f"{package.manifest.name}: {findings.reason}")
        found.append(answered(findings))
    pipeline.close()
    return found


class SwapStand:
    """A station of one view whose two versions take turns.

    Args:
        folder: for outbox and cache.
        rate: triggers a second; None: as fast as the station takes them.
    """

    def __init__(
        self,
        folder: Path,
        packages: Sequence[Package],
        pictures: Sequence[Picture],
        *,
        rate: float | None,
        threads: int = 1,
    ) -> None:
        clock = SystemClock()
        options = runtime.RuntimeOptions(cache_dir=folder / "cache")
        self.packages = packages
        self.pictures = [pictures[number] for number in telling(packages, pictures, options)]
        self.line = SwapLine(self.pictures, rate)
        self.outbox = Outbox(folder / "outbox.db", clock, device="soak-1", max_bytes=2048 * _MIB)
        expected = {package.digest: answers_of(package, self.pictures, options) for package in packages}
        self.books = Books(self.outbox, expected)
        feed = Feed(self.line.source, policy="every")
        feed.open()
        self.feed = feed
        self.worker = StationWorker(
            device="soak-1",
            settings=_settings(packages[0].manifest.name),
            line=self.line,
            feeds={VIEW: feed},
            time_classes={VIEW: TimeClass.HARDWARE_TRIGGERED},
            setup=_setup(packages[0].manifest.name),
            outbox=self.books,
            pictures=PictureKeeper(KeptPictures(full=True)),
            mint=Mint(),
            clock=clock,
            time_quality=lambda: TimeQuality(source=TimeSource.FREE_RUNNING),
            thread_count=threads,
        )
        self.stations = Stations({STATION: self.worker}, options, lambda _model, _digest: None)
        self.tidied: list[tuple[int, int]] = []
        self._ticked_ns = 0
        self._threads = [
            Worker(f"station-{number}", lambda thread, number=number: self.worker.run(thread, number))
            for number in range(threads)
        ]

    def start(self) -> None:
        """Load the first version, then let the line run."""
        for thread in self._threads:
            thread.start()
        self.stations.activate(self.packages[0])
        self.line.running.set()

    def await_parts(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until so many more parts have their records."""
        until, goal = time.monotonic() + timeout_s, len(self.books.records) + count
        while len(self.books.records) < goal:
            if time.monotonic() > until:
                raise SystemExit(f"No {count} parts in {timeout_s:g} s: {dict(self.books.verdicts)}")
            self._tick()
            time.sleep(0.005)

    def await_tidy(self, timeout_s: float = 30.0) -> None:
        """Wait until the memory of the last swap has been given back, and a few parts have taken what they need."""
        until = time.monotonic() + timeout_s
        while not self.stations.is_tidy and time.monotonic() < until:
            self._tick()
            time.sleep(0.005)
        self.await_parts(_PARTS_AFTER)

    def _tick(self) -> None:
        """Give memory back as the keeper's thread does, at its pace."""
        now_ns = time.monotonic_ns()
        if now_ns - self._ticked_ns >= _TICK_NS:
            self._ticked_ns = now_ns
            if self.stations.tidy():
                self.tidied.append((now_ns, time.monotonic_ns()))

    def await_answers(self, timeout_s: float = 10.0) -> None:
        """Wait until every trigger has its verdict, or the time is over."""
        until = time.monotonic() + timeout_s
        while len(self.line.answers) < len(self.line.triggered_ns) and time.monotonic() < until:
            time.sleep(0.01)

    def stop(self) -> None:
        """End the line, let the last parts leave, close everything."""
        self.line.running.clear()
        self.await_answers()
        for thread in self._threads:
            thread.join(5)
        self.feed.close()
        self.outbox.close()

    def accounts(self, swaps: int) -> dict[str, Any]:
        """Return the books, and a sentence for each thing in them that must not be."""
        triggers, line, books = len(self.line.triggered_ns), self.line, self.books
        wanted = range(1, triggers + 1)
        faults = books.wrong[:5]
        for what, counted in (("verdict", line.answers), ("record", books.records)):
            off = [number for number in wanted if counted[number] != 1]
            if off or len(counted) != triggers:
                faults.append(f"{len(off)} triggers have not exactly one {what}, the first is {off[:1]}.")
        without = {name: count for name, count in books.verdicts.items() if name.startswith("NO_VERDICT")}
        if without:
            faults.append(f"Parts without a verdict: {without}.")
        if books.changes != swaps:
            faults.append(f"The records change their version {books.changes} times in {swaps} swaps.")
        return {
            "triggers": triggers,
            "verdicts": dict(books.verdicts),
            "judged_by": {digest[:12]: count for digest, count in books.judged_by.items()},
            "wrong_answers": len(books.wrong),
            "changes": books.changes,
            "faults": faults,
        }


def telling(packages: Sequence[Package], pictures: Sequence[Picture], options: runtime.RuntimeOptions) -> list[int]:
    """Return which pictures tell the versions apart: what they say of them differs, and is not nothing."""
    first, second = (answers_of(package, pictures, options) for package in packages)
    found = [number for number, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]]
    if not found:
        raise SystemExit("The two versions say the same of every picture: nothing could be proven.")
    return found


def _setup(model: str) -> StationSetup:
    return StationSetup(
        recipe=Recipe(id="default", revision=0, views={VIEW: ViewRecipe(model=model)}),
        sampling=SamplingPlan(revision=0, salt="00" * 16, floor_rate=0.0),
        views=(ViewSetup(view=VIEW, model=model),),
    )


def _settings(model: str) -> StationSettings:
    nowhere = "127.0.0.1:1"
    return StationSettings(
        id=STATION,
        line=LineSettings(kind="simulated", address=nowhere),
        views=(ViewSettings(id=VIEW, model=model, source=SourceSettings(kind="simulated", address=nowhere)),),
        deadline_ms=DEADLINE_MS,
        frame_tolerance_ms=TOLERANCE_MS,
    )


def swap_in_turn(
    stand: SwapStand,
    swaps: int,
    *,
    parts_between: int,
    tidy: bool = False,
    note: Callable[[int, int], None] = lambda _from, _to: None,
) -> None:
    """Let the two versions take turns; each judges some parts before the next one comes.

    Args:
        tidy: nothing of a swap is left when the next one comes; otherwise they come as fast as they can.
        note: told the monotonic nanoseconds at which each activation began and ended.
    """
    for number in range(swaps):
        stand.await_parts(parts_between)
        if tidy:
            stand.await_tidy()
        began_ns = time.monotonic_ns()
        stand.stations.activate(stand.packages[(number + 1) % len(stand.packages)])
        note(began_ns, time.monotonic_ns())
    stand.await_parts(parts_between)
