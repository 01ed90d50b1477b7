"""A device that judges patches of bare boards with two versions of one model, made of two shared classifiers.

Runner, keeper of candidates, station, sessions, outbox and orders are the product's; the fleet is one in memory, and
the clock of deployments can be set forward.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Self

from agent.capture.encode import PictureKeeper
from agent.capture.feed import Feed
from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass
from agent.capture.settings import SourceSettings
from agent.clock import FakeClock, SystemClock
from agent.deploy import selftest
from agent.deploy.journal import Journal
from agent.deploy.orders import Answer, Order, OrderKind, Orders
from agent.deploy.outlook import Rules
from agent.deploy.probation import ProbationLimits
from agent.deploy.runner import Runner, RunnerOptions
from agent.deploy.shadow_keeper import ShadowKeeper, Surroundings
from agent.deploy.shadow_memory import ShadowMemory
from agent.deploy.store import Store
from agent.inspection.records import TimeQuality
from agent.inspection.setup import StationSetup, ViewSetup
from agent.inspection.shadow import Shadows
from agent.inspection.shadow_stage import ShadowStage
from agent.inspection.stations import Stations
from agent.inspection.turns import Turns
from agent.inspection.worker import StationWorker
from agent.line.settings import LineSettings
from agent.line.trigger import LineEvent
from agent.settings import StationSettings, ViewSettings
from agent.threads import Worker
from agent.uplink.outbox import Outbox
from agent.uplink.picture_spool import PictureSpool
from agent.vision.runtime import RuntimeOptions
from tests.support import pcb, shared_packages
from tests.support.deploying import DEVICE, MemoryFleet, check_reports
from tests.support.shadowing import OfferingSpool
from tests.support.station import ScriptedLine, trigger
from wire import codec
from wire.deployment import ENDS, DeploymentReport, DeploymentState
from wire.desired import Desired, DesiredModel, DesiredStation, Recipe, ViewRecipe
from wire.inspection import Inspection, TimeSource
from wire.messages import Lane, ShadowPair
from wire.mint import Mint
from wire.package import Package, read_folder
from wire.sampling import SamplingPlan

MODEL: Final = "pcb-patches"
VIEW: Final = "top"
STATION: Final = "gauge"
DEADLINE_MS: Final = 20_000.0  # a busy machine is no slow model
PARTS: Final = 30
_STEPS_MOST: Final = 80
_WAIT_S: Final = 30.0


def version(source: str, release: int, shared_data: Path, into: Path, *, ng_most: float = 1.0) -> Package:
    """Return a shared classifier as a release of the model `pcb-patches`.

    Args:
        ng_most: the highest threshold from which on a recipe may call a patch NG.
    """
    folder = shared_packages.assemble(source, shared_data, into / f"release-{release}")
    manifest = (folder / "manifest.toml").read_text(encoding="utf-8")
    manifest = manifest.replace(f'name = "{source}"', f'name = "{MODEL}"', 1)
    manifest = manifest.replace("release = 1", f"release = {release}", 1)
    manifest = manifest.replace("max = 1.0", f"max = {ng_most}", 1)
    (folder / "manifest.toml").write_text(manifest, encoding="utf-8")
    return read_folder(folder)


class _Line(ScriptedLine):
    def __init__(self) -> None:
        super().__init__()
        self.triggers: queue.Queue[LineEvent] = queue.Queue()

    def take(self, timeout_s: float) -> LineEvent | None:
        try:
            return self.triggers.get(timeout=min(timeout_s, 0.02))
        except queue.Empty:
            return None


class _Camera:
    def __init__(self) -> None:
        self.frames: queue.Queue[Frame] = queue.Queue()

    def open(self) -> SourceInfo:
        return SourceInfo(camera="cam", time_class=TimeClass.HARDWARE_TRIGGERED, live=True)

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        try:
            return self.frames.get(timeout=min(timeout_s, 0.02))
        except queue.Empty:
            return NoFrame(reason="none left")

    def close(self) -> None:
        pass


class PairStand:
    """Use it in a `with` statement; `show` carries one patch through the station."""

    def __init__(self, root: Path) -> None:
        self.clock, clock = FakeClock(), SystemClock()
        self.reports: list[DeploymentReport] = []
        self.fleet = MemoryFleet()
        self.outbox = Outbox(root / "outbox.db", clock, device="edge-1")
        self.line, self._camera = _Line(), _Camera()
        self._spool = OfferingSpool(PictureSpool(root / "pictures", max_bytes=10**7))
        turns = Turns(2, clock)
        self.shadows = Shadows(turns=turns, outbox=self.outbox, spool=self._spool, clock=clock)
        self._feed = Feed(self._camera, policy="every")
        self._feed.open()
        self.inspections: list[Inspection] = []
        self.worker = StationWorker(
            device="edge-1",
            settings=_settings(),
            line=self.line,
            feeds={VIEW: self._feed},
            time_classes={VIEW: TimeClass.HARDWARE_TRIGGERED},
            setup=_setup(),
            outbox=self.outbox,
            pictures=PictureKeeper(self._spool),
            mint=Mint(),
            clock=clock,
            time_quality=lambda: TimeQuality(source=TimeSource.FREE_RUNNING),
            turns=turns,
            shadows=self,
        )
        options = RuntimeOptions(cache_dir=root / "cache")
        tester = selftest.tester_of(selftest.SelfTestOptions(cache_dir=root / "cache"))
        self.stations = Stations({STATION: self.worker}, options, lambda _model, _digest: None)
        self.store = Store(root / "store")
        self.journal = Journal(root / "journal", self.clock)
        self.orders = Orders(root / "store" / "orders", clock=self.clock)
        self.runner = Runner(
            store=self.store,
            journal=self.journal,
            api=self.fleet,
            activator=self.stations,
            reports=self.reports.append,
            clock=self.clock,
            device=DEVICE,
            tester=tester,
            orders=self.orders,
            options=RunnerOptions(
                keep_free_bytes=0,
                rules=Rules(probation=ProbationLimits(parts=PARTS, watch_s=0.0), keep_free_memory_mb=0.0),
            ),
        )
        self.runner.recover()
        self.keeper = ShadowKeeper(
            store=self.store,
            memory=ShadowMemory(root / "store"),
            api=self.fleet,
            stage=ShadowStage(self.shadows, options, lambda _station, _view: None),
            around=Surroundings(
                active=self.stations.inferring,
                models=lambda: self.stations.models,
                is_busy=lambda: False,
                is_short=lambda: False,
                fits=lambda _mb: True,
                tell=lambda _name, _severity, _text: None,
                on_change=lambda: None,
            ),
            device=DEVICE,
            tester=tester,
            clock=self.clock,
            keep_free_bytes=0,
        )
        self.keeper.recover(killed=False)
        self.desired = Desired(device="edge-1", revision=1)
        self._threads = [Worker("station-gauge", self.worker.run), Worker("shadow", self.shadows.run)]
        self._orders_given = self._shown = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shadows.close()
        for thread in self._threads:
            assert thread.join(5.0)
        self._feed.close()
        self.outbox.close()
        check_reports(self.reports)

    def offer(self, part: object, inspection: Inspection) -> None:
        """Stand between the station and the candidates."""
        self.inspections.append(inspection)
        self.shadows.offer(part, inspection)  # type: ignore[arg-type]

    # What is asked for

    def want(self, active: Package, number: int, *, shadow: Package | None = None, **parameters: float) -> None:
        """Desire a version, perhaps a candidate at every part, and a recipe with these parameters."""
        for package in (active, shadow):
            if package is not None:
                self.fleet.publish(package)
        model = DesiredModel(
            model=MODEL,
            active=active.digest,
            release=active.manifest.release,
            deployment_id=f"00000000-0000-7000-8000-{number:012d}",
            shadow=shadow.digest if shadow is not None else None,
            shadow_rate=1.0,
        )
        recipe = Recipe(id="default", revision=1, views={VIEW: ViewRecipe(model=MODEL, parameters=dict(parameters))})
        stations = (DesiredStation(station=STATION, recipes=(recipe,)),) if parameters else ()
        self.desired = Desired(device="edge-1", revision=number, models=(model,), stations=stations)

    def roll_back(self) -> Answer:
        """Ask for the version before, as a technician does, and wait for the answer."""
        self._orders_given += 1
        order_id = f"00000000-0000-7000-8000-9{self._orders_given:011d}"
        self.orders.give(
            Order(id=order_id, kind=OrderKind.ROLLBACK, model=MODEL, by="technician", at=self.clock.now_utc())
        )
        self.settle()
        answer = self.orders.answer_of(order_id)
        assert answer is not None
        return answer

    # What comes of it

    def settle(self) -> None:
        """Do all that is to be done now, recipes and candidates included."""
        for _ in range(_STEPS_MOST):
            moved = self.keeper.tend(self.desired)
            moved |= self.runner.step(self.desired) or self.keeper.step(self.desired, lambda: True)
            self.stations.apply(self.desired)
            if not moved:
                return
        raise AssertionError(f"It does not come to rest: {self.reports[-1:]}")

    def deploy(self, patches: Iterable[pcb.Patch]) -> DeploymentReport:
        """Carry the desired deployment to its end, showing patches while it is on probation."""
        wanted, shown = self.desired.models[0].deployment_id, iter(patches)
        for _ in range(10 * _STEPS_MOST):
            self.settle()
            ended = [one for one in self.reports if one.deployment_id == wanted and one.state in ENDS]
            if ended:
                return ended[0]
            attempt = self.journal.of(MODEL).attempt
            if attempt is not None and attempt.state is DeploymentState.PROBATION:
                self.show(next(shown))
            else:
                self.clock.advance(5.0)
        raise AssertionError(f"It does not end: {self.reports[-1:]}")

    def show(self, patch: pcb.Patch) -> Inspection:
        """Carry one patch through the station, and wait until a candidate has seen it, too."""
        self._shown += 1
        number, seen = self._shown, len(self.inspections)
        event = trigger(number)
        frame = Frame(
            camera="cam", number=number, exposed_utc=event.at_utc, exposed_ns=event.at_ns, image_bgr=patch.image_bgr
        )
        self._camera.frames.put(frame)
        self.line.triggers.put(event)
        _await(lambda: len(self.inspections) > seen)
        _await(lambda: not self._with_a_candidate())
        return self.inspections[-1]

    def _with_a_candidate(self) -> bool:
        return any(one.chosen > one.compared + sum(one.skipped.values()) for one in self.shadows.health(STATION))

    def pairs(self) -> list[ShadowPair]:
        """Return what the fleet will be told of both versions' answers."""
        _await(lambda: self.outbox.stats().unsettled_by_lane[Lane.SHADOW] > 0)
        found: dict[int, ShadowPair] = {}
        while len(found) < self.outbox.stats().unsettled_by_lane[Lane.SHADOW]:
            batch = self.outbox.next_batch(Lane.SHADOW, 10**6)
            for entry in batch.entries if batch is not None else ():
                found[entry.seq] = codec.decode(bytes(entry.body), ShadowPair)
        return [found[seq] for seq in sorted(found)]


def _await(done: Callable[[], bool]) -> None:
    until = time.monotonic() + _WAIT_S
    while not done():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.0005)


def _settings() -> StationSettings:
    nowhere = "127.0.0.1:1"
    return StationSettings(
        id=STATION,
        line=LineSettings(kind="simulated", address=nowhere),
        views=(ViewSettings(id=VIEW, model=MODEL, source=SourceSettings(kind="simulated", address=nowhere)),),
        deadline_ms=DEADLINE_MS,
    )


def _setup() -> StationSetup:
    return StationSetup(
        recipe=Recipe(id="default", revision=0, views={VIEW: ViewRecipe(model=MODEL)}),
        sampling=SamplingPlan(revision=0, salt="00" * 16, floor_rate=1e-9),
        views=(ViewSetup(view=VIEW, model=MODEL),),
    )
