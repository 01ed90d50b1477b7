"""A device at which a person stands: the real store, journal and runner on a thread, a status file, no stations."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from agent import status
from agent.clock import SystemClock
from agent.deploy import inventory
from agent.deploy.attempt import Attempt
from agent.deploy.journal import Journal
from agent.deploy.orders import Orders
from agent.deploy.outlook import Rules
from agent.deploy.probation import ProbationLimits
from agent.deploy.runner import Runner, RunnerOptions, Tester
from agent.deploy.store import Store
from agent.status import Status
from tests.support.deploying import DEVICE, MODEL, FakeActivator, MemoryFleet, passes
from wire import codec, package
from wire.deployment import DeploymentReport, HoldReason
from wire.desired import Desired, DesiredModel
from wire.messages import RunningModel

AT_ONCE = ProbationLimits(parts=0, watch_s=0.0)


class DeviceAtHand:
    """The files are those of a real agent; `begin` and `end` start and stop its deployments.

    Args:
        root: gets the data folder `data`.
    """

    def __init__(self, root: Path) -> None:
        self.data_dir = root / "data"
        self.root = self.data_dir / "models"
        self.data_dir.mkdir()
        self.fleet = MemoryFleet()
        self.activator = FakeActivator()
        self.reports: list[DeploymentReport] = []
        self.desired: Desired | None = None
        self.tester: Tester = passes
        self.not_now: Callable[[], HoldReason | None] = lambda: None
        self.rules = Rules(probation=AT_ONCE)
        self.busy = threading.Event()  # while it is set, no step is taken
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def install(self, *packages: package.Package) -> None:
        """Have the fleet deploy these, one after the other, each to its end."""
        for found in packages:
            self.fleet.publish(found)
            self.ask_for(found)
            runner = self._boot()
            for _ in range(100):
                if not runner.step(self.desired):
                    break

    def ask_for(self, found: package.Package) -> None:
        """Have the fleet's desired document ask for a version."""
        entry = DesiredModel(
            model=found.manifest.name,
            active=found.digest,
            release=found.manifest.release,
            deployment_id=f"00000000-0000-7000-8000-{found.manifest.release:012d}",
        )
        self.desired = Desired(device="press-7", revision=found.manifest.release, models=(entry,))
        (self.data_dir / "desired.json").write_bytes(codec.encode(self.desired))

    def begin(self) -> None:
        """Start the agent's deployments."""
        runner = self._boot()
        self._stop.clear()
        self._write_status()
        self._thread = threading.Thread(target=self._run, args=(runner,))
        self._thread.start()

    def end(self) -> None:
        """Stop them, as an agent that is stopped; its last word is old at once."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._write_status(datetime(2026, 1, 1, tzinfo=UTC))

    def attempt(self, model: str = MODEL) -> Attempt | None:
        """Return the latest attempt, read from the disk."""
        return inventory.read_journal(self.root / "journal" / f"{model}.json").attempt

    def _boot(self) -> Runner:
        self.store = Store(self.root)
        self.store.room_bytes = lambda: 1 << 40  # type: ignore[method-assign]
        self.orders = Orders(self.root / "orders")
        runner = Runner(
            store=self.store,
            journal=Journal(self.root / "journal", SystemClock()),
            api=self.fleet,
            activator=self.activator,
            reports=self.reports.append,
            clock=SystemClock(),
            device=DEVICE,
            tester=self.tester,
            options=RunnerOptions(pause_s=0.05, pause_max_s=0.1, keep_free_bytes=0, rules=self.rules),
            rng=random.Random(7),
            not_now=self.not_now,
            available_mb=lambda: None,
        )
        runner.recover()
        self.activator.versions.clear()
        for model in runner.models_in_use():
            first = next(runner.boot_choices(model), None)
            self.activator.versions[model] = first.digest if first else None
        return runner

    def _run(self, runner: Runner) -> None:
        while not self._stop.is_set():
            if not self.busy.is_set():
                runner.step(self.desired)
            self._write_status()
            self._stop.wait(0.02)

    def _write_status(self, at: datetime | None = None) -> None:
        in_use = self.activator.in_use
        status.write(
            self.data_dir,
            Status(
                device="press-7",
                pid=os.getpid() if at is None else 2**22 + 1,
                at=at or datetime.now(UTC),
                agent_version="0.1.0",
                connected=False,
                mqtt_protocol=None,
                desired_revision=1,
                outbox_unsettled=0,
                outbox_dropped=0,
                pictures_waiting=3,
                models=(RunningModel(model=MODEL, digest=in_use),),
            ),
        )
