"""A station with real models, a real outbox and a real spool, and candidates that are shown its parts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from agent.capture.encode import PictureKeeper, PictureOfPart
from agent.capture.feed import Feed
from agent.capture.frame import Frame, TimeClass
from agent.capture.settings import SourceSettings
from agent.clock import SystemClock
from agent.inspection.records import TimeQuality
from agent.inspection.setup import StationSetup, ViewSetup
from agent.inspection.shadow import Shadows
from agent.inspection.shadow_candidate import Candidate, CandidateSession
from agent.inspection.stations import Stations
from agent.inspection.turns import Turns
from agent.inspection.worker import StationWorker
from agent.line.settings import LineSettings
from agent.line.trigger import Trigger
from agent.settings import StationSettings, ViewSettings
from agent.threads import Worker
from agent.uplink.outbox import Outbox
from agent.uplink.picture_spool import PictureSpool
from agent.vision import runtime
from agent.vision.runtime import RuntimeOptions
from tests.support import tiny_models
from tests.support.station import ListSource, ScriptedLine, trigger
from wire import codec
from wire.desired import Recipe, ViewRecipe
from wire.inspection import Inspection, TimeSource
from wire.messages import Lane, ShadowHealth, ShadowPair
from wire.mint import Mint
from wire.package import Package
from wire.sampling import SamplingPlan

MODEL = "colors"
COLOURS = {"blue": (200, 0, 0), "green": (0, 200, 0), "red": (0, 0, 200)}


class OfferingSpool:
    """Puts pictures into a spool as the uploader does."""

    def __init__(self, spool: PictureSpool) -> None:
        self.spool = spool

    def offer(self, digest: str, data: bytes, part: PictureOfPart) -> bool:
        return self.spool.take(digest, data, part.draw, part.at, gate_rate=part.gate_rate)


class SlowSession:
    """Takes so long for each run; it can be ended meanwhile, or not, as a hanging operator."""

    def __init__(self, session: runtime.OnnxSession, run_s: float, *, stubborn: bool = False) -> None:
        self._session = session
        self._run_s = run_s
        self._stubborn = stubborn
        self._interrupted = False
        self.runs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def interrupt(self) -> None:
        self._interrupted = True
        self._session.interrupt()

    def resume(self) -> None:
        self._interrupted = False
        self._session.resume()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        self.runs += 1
        until = time.monotonic() + self._run_s
        while time.monotonic() < until and (self._stubborn or not self._interrupted):
            time.sleep(0.001)
        return self._session.run(inputs)


class ShadowStand:
    """A station `gauge`, one view `top`; parts are carried by the calling thread (`show`)."""

    def __init__(
        self, folder: Path, *, places: int = 2, floor_rate: float = 1e-9, views: tuple[str, ...] = ("top",)
    ) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.outbox = Outbox(folder / "outbox.db", self.clock, device="press-1")
        self.spool = PictureSpool(folder / "pictures", max_bytes=10**7)
        self.turns = Turns(places, self.clock)
        offering = OfferingSpool(self.spool)
        self.shadows = Shadows(turns=self.turns, outbox=self.outbox, spool=offering, clock=self.clock)
        self.line = ScriptedLine()
        self.inspections: list[Inspection] = []
        recipe = Recipe(id="default", revision=0, views={view: ViewRecipe(model=MODEL) for view in views})
        self.sources = {view: ListSource([]) for view in views}
        self.feeds = {view: Feed(source, policy="every", capacity=64) for view, source in self.sources.items()}
        for feed in self.feeds.values():
            feed.open()
        self.worker = StationWorker(
            device="press-1",
            settings=StationSettings(
                id="gauge",
                line=LineSettings(kind="simulated", address="127.0.0.1:1"),
                views=tuple(
                    ViewSettings(id=view, model=MODEL, source=SourceSettings(kind="simulated", address="127.0.0.1:1"))
                    for view in views
                ),
                deadline_ms=500.0,
            ),
            line=self.line,
            feeds=self.feeds,
            time_classes=dict.fromkeys(views, TimeClass.HARDWARE_TRIGGERED),
            setup=StationSetup(
                recipe=recipe,
                sampling=SamplingPlan(revision=0, salt="00" * 16, floor_rate=floor_rate),
                views=tuple(ViewSetup(view=view, model=MODEL) for view in views),
            ),
            outbox=self.outbox,
            pictures=PictureKeeper(offering),
            mint=Mint(),
            clock=self.clock,
            time_quality=lambda: TimeQuality(source=TimeSource.FREE_RUNNING),
            turns=self.turns,
            shadows=self,
        )
        self.stations = Stations({"gauge": self.worker}, RuntimeOptions(), lambda _model, _digest: None)
        self.worker.ended.set()  # nobody runs the worker's own loop: catalogues are taken at once
        self._thread = Worker("shadow", self.shadows.run)
        self._thread.start()
        self._count = 0

    def offer(self, part: Any, inspection: Inspection) -> None:
        """Stand between the station and the candidates."""
        self.inspections.append(inspection)
        self.shadows.offer(part, inspection)

    def version(self, kind: str = "good", release: int = 1, **more: Any) -> Package:
        return tiny_models.make(self.folder / f"{kind}-{release}", kind, release=release, **more)

    def candidate(
        self,
        package: Package,
        rate: float = 1.0,
        wrap: Callable[[runtime.OnnxSession], Any] = lambda session: session,
    ) -> Candidate:
        """Load a package and show it parts from now on."""
        session = cast("CandidateSession", wrap(runtime.load(package, RuntimeOptions())))
        found = Candidate(package, session, rate, lambda _station, _view: None)
        self.shadows.begin(found)
        return found

    def show(self, colour: str = "green", *, at: Trigger | None = None) -> Inspection:
        """Carry one part of a colour through the station."""
        self._count += 1
        event = at or trigger(self._count)
        for source in self.sources.values():
            source._frames.append(_frame(event, colour, self._count))
        self.worker.inspect(event)
        return self.inspections[-1]

    def idle(self) -> None:
        """Wait until no part is with a candidate."""
        until = time.monotonic() + 20
        while self.waiting():
            assert time.monotonic() < until, self.accounts()
            time.sleep(0.002)

    def waiting(self) -> int:
        return sum(one.chosen - one.compared - sum(one.skipped.values()) for one in self.accounts())

    def accounts(self) -> tuple[ShadowHealth, ...]:
        return self.shadows.health("gauge")

    def pairs(self) -> list[ShadowPair]:
        """Return all pairs that wait for the fleet, as they go over the wire."""
        until = time.monotonic() + 5
        found: dict[int, ShadowPair] = {}
        while len(found) < self.outbox.stats().unsettled_by_lane[Lane.SHADOW]:
            assert time.monotonic() < until
            batch = self.outbox.next_batch(Lane.SHADOW, 10**6)
            for entry in batch.entries if batch is not None else ():
                found[entry.seq] = codec.decode(bytes(entry.body), ShadowPair)
            time.sleep(0.01)
        return [found[seq] for seq in sorted(found)]

    def close(self) -> None:
        self.shadows.close()
        assert self._thread.join(5)
        for feed in self.feeds.values():
            feed.close()
        self.outbox.close()


@contextlib.contextmanager
def stand(folder: Path, **options: Any) -> Iterator[ShadowStand]:
    """Build a stand and take it down; every lease must have been given back by then."""
    made = ShadowStand(folder, **options)
    try:
        yield made
    finally:
        made.close()
    for feed in made.feeds.values():
        counts = feed.counts()
        assert counts.waiting == 0, "a frame was not given back"


def _frame(event: Trigger, colour: str, number: int) -> Frame:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:] = COLOURS[colour]
    return Frame(camera="cam", number=number, exposed_utc=event.at_utc, exposed_ns=event.at_ns, image_bgr=image)
