"""A device on which a real runner deploys real models to a real station, fed part by part; only its clock is a fake."""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass
from agent.clock import FakeClock
from agent.deploy import selftest
from agent.deploy.attempt import Attempt
from agent.deploy.journal import Journal
from agent.deploy.outlook import Rules
from agent.deploy.probation import ProbationLimits
from agent.deploy.runner import Runner, RunnerOptions
from agent.deploy.store import Store
from agent.inspection.stations import Stations
from agent.line.trigger import LineEvent
from agent.threads import Worker
from agent.uplink.ending import Ending
from agent.vision.runtime import RuntimeOptions
from tests.support import bad_models
from tests.support.deploying import DEVICE, MemoryFleet, check_reports, wanted
from tests.support.station import MemoryOutbox, ScriptedLine, setup_of, trigger, worker_of
from wire.deployment import ENDS, DeploymentReport, DeploymentState, HoldReason
from wire.desired import Desired
from wire.inspection import Inspection
from wire.package import Package

_STEPS_MOST = 60
_ANSWER_S = 20.0


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


class Stand:
    """Use it in a `with` statement.

    Args:
        limits: of probation.
    """

    def __init__(self, root: Path, limits: ProbationLimits | None = None, *, crashed: bool = False) -> None:
        self.clock = FakeClock()
        self.reports: list[DeploymentReport] = []
        self.fleet = MemoryFleet()
        self.outbox = MemoryOutbox()
        self._line, self._camera = _Line(), _Camera()
        self.worker = worker_of(
            self._line,
            {"top": []},
            source=self._camera,
            outbox=self.outbox,
            setup=setup_of("top", ready=False, floor_rate=0.001),
            deadline_ms=10_000.0,  # a busy machine is no slow model
        )
        self._thread = Worker("station-gauge", self.worker.run)
        self.store = Store(root / "store")
        self.journal = Journal(root / "journal", self.clock)
        self.stations = Stations(
            {"gauge": self.worker}, RuntimeOptions(cache_dir=root / "cache"), lambda _model, _digest: None
        )
        self.runner = Runner(
            store=self.store,
            journal=self.journal,
            api=self.fleet,
            activator=self.stations,
            reports=self.reports.append,
            clock=self.clock,
            device=DEVICE,
            tester=lambda package, go_on: selftest.self_test(package, selftest.SelfTestOptions(), go_on=go_on),
            options=RunnerOptions(
                keep_free_bytes=0,
                rules=Rules(probation=limits or ProbationLimits(watch_s=0.0), keep_free_memory_mb=0.0),
            ),
        )
        self.runner.recover(ended=Ending.KILLED if crashed else Ending.CLEAN)
        self._desired = Desired(device="edge-1", revision=1)
        self._sequence = 0

    def __enter__(self) -> Self:
        self._thread.start()
        for model in self.runner.models_in_use():
            first = next(self.runner.boot_choices(model), None)
            if first is not None:
                self.stations.activate(first)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread.join(5.0)
        check_reports(self.reports)

    @property
    def attempt(self) -> Attempt:
        found = self.journal.of(bad_models.MODEL).attempt
        assert found is not None
        return found

    @property
    def state(self) -> DeploymentState:
        return self.attempt.state

    @property
    def end(self) -> tuple[DeploymentState, str, str]:
        """State, code and reason of the latest report."""
        return self.reports[-1].state, self.reports[-1].code, self.reports[-1].reason

    @property
    def question(self) -> str:
        """What a person is asked; empty where nobody is."""
        hold = self.attempt.hold
        return hold.text if hold is not None and hold.reason is HoldReason.AWAITING_CONFIRMATION else ""

    def deploy(self, package: Package) -> DeploymentState:
        """Have a version on probation, or see it end before that."""
        self.fleet.publish(package)
        self._desired = wanted(package)
        self._step_until(lambda: self._is_current() and self.state in {DeploymentState.PROBATION, *ENDS})
        return self.state

    def go_on(self, package: Package) -> None:
        """After a start, ask for what was asked for before it, and do what is to be done at once."""
        self.fleet.publish(package)
        self._desired = wanted(package)
        self.settle()

    def install(self, package: Package, parts: Iterable[NDArray[np.uint8]]) -> None:
        """Have a version in use that passed its probation on these parts."""
        assert self.deploy(package) is DeploymentState.PROBATION, self.end
        for picture in parts:
            self.show(picture)
        self.settle()
        assert self.end[0] is DeploymentState.SUCCEEDED, self.end

    def judge(self, parts: Iterable[NDArray[np.uint8]]) -> int:
        """Show parts until the attempt ends or a person is asked; return how many it took."""
        count = 0
        for picture in parts:
            self.show(picture)
            count += 1
            self.settle()
            if self.state is not DeploymentState.PROBATION or self.question:
                break
        return count

    def show(self, picture: NDArray[np.uint8]) -> Inspection:
        """Carry one part through the station."""
        self._sequence += 1
        event = trigger(self._sequence)
        frame = Frame(
            camera="cam", number=self._sequence, exposed_utc=event.at_utc, exposed_ns=event.at_ns, image_bgr=picture
        )
        before = len(self.outbox.inspections)
        self._camera.frames.put(frame)
        self._line.triggers.put(event)
        deadline = time.monotonic() + _ANSWER_S
        while self.worker.tally.answered <= before:
            assert time.monotonic() < deadline, "the part has no verdict"
            time.sleep(0.0002)
        return self.outbox.inspections[-1]

    def verdicts(self, parts: Iterable[NDArray[np.uint8]]) -> Counter[str]:
        """Show parts, and count what is said of them."""
        return Counter(self.show(picture).verdict.value for picture in parts)

    def _is_current(self) -> bool:
        attempt = self.journal.of(bad_models.MODEL).attempt
        return attempt is not None and attempt.deployment_id == self._desired.models[0].deployment_id

    def settle(self) -> None:
        """Do all that is to be done now."""
        for _ in range(_STEPS_MOST):
            if not self.runner.step(self._desired):
                return
        raise AssertionError(f"The runner does not come to rest: {self.reports[-1]}")

    def _step_until(self, done: Callable[[], bool]) -> None:
        for _ in range(_STEPS_MOST):
            if done():
                return
            if not self.runner.step(self._desired):
                self.clock.advance(5.0)
        raise AssertionError(f"The deployment does not get there: {self.reports[-1:]}")
