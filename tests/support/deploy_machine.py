"""The device of test_deploy_machine.py: what may be done to it, and what must hold whatever is done."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from agent.deploy import bundle
from agent.deploy.attempt import Attempt
from agent.deploy.bundle_search import search
from agent.deploy.facts import Installed
from agent.deploy.figures import Figures, looks_of
from agent.deploy.orders import Order, OrderKind
from agent.deploy.outlook import Rules
from agent.deploy.pins import Pins
from agent.deploy.probation import ProbationLimits
from agent.deploy.runner import RunnerOptions
from agent.deploy.selftest import SelfTestResult
from agent.uplink.ending import Ending
from tests.support.deploying import MODEL, FakeActivator, MemoryFleet, TestDevice, check_reports, deployment_id, wanted
from tests.support.losing_disk import Watch, write_image
from wire import deployment, package
from wire.deployment import DeploymentReport, HoldReason
from wire.deployment import DeploymentState as S
from wire.desired import Desired
from wire.errors import LinesideError

DAY_S: Final = 86400.0
PROBATION: Final = ProbationLimits(parts=20, watch_s=600.0, most_s=2 * DAY_S)
# Longer than all that a deployment may take, each wait at its longest.
PATIENCE_DAYS: Final = 40
BAD_RELEASE: Final = 4  # its self-test fails
_WRITES: Final = ("write ", "fill ", "sync ", "rename ", "link ", "open ", "make folder ")


class KilledError(BaseException):
    """Stands for the end of the process at a boundary."""


class Device:
    """One device and all that may happen to it. Its files outlive its processes; nothing else does.

    Args:
        packages: by release.
        seed: of what a power cut leaves.
    """

    def __init__(self, folder: Path, packages: dict[int, package.Package], seed: int) -> None:
        self.root = folder / "device"
        self.root.mkdir(parents=True)
        self.packages = packages
        self.rng = random.Random(seed)
        self.number = self.orders = 0
        self.desired: Desired | None = Desired(device="edge-1", revision=1, models=())
        self.said: list[DeploymentReport] = []
        self.fleet = MemoryFleet([])
        for found in packages.values():
            self.fleet.publish(found)
        self.is_away = False
        self.is_full = False
        self.takes_nothing = False
        self.busy: HoldReason | None = None
        self.memory_mb: float | None = None
        self.damaged: set[str] = set()
        self.pinned: set[str] = set()
        self.dies_at = self.full_at = 0
        self._boundaries = 0
        self.is_dead = False
        self.device = TestDevice(
            root=self.root,
            fleet=self.fleet,
            activator=FakeActivator([]),
            tester=self._tests,
            take=self._take,
            before=self._boundary,
            not_now=lambda: self.busy,
            room_bytes=lambda: 0 if self.is_full else 1 << 40,
            available_mb=lambda: self.memory_mb,
            options=RunnerOptions(
                pause_s=1.0, pause_max_s=60.0, keep_free_bytes=0, rules=Rules(probation=PROBATION, has_windows=True)
            ),
        )
        self._fetch = self.fleet.fetch_blob
        self.fleet.fetch_blob = self._fetches  # type: ignore[method-assign]
        self.boot()

    # What happens

    def boot(self, *, crashed: bool = False, ended: Ending = Ending.CLEAN) -> None:
        """Start a process on what lies on disk."""
        self.is_dead, self.dies_at, self.full_at = False, 0, 0
        self.device.boot(crashed=crashed, ended=ended)
        self._check_boot()

    def step(self) -> bool:
        """Let the process take one step; what cannot be written now is tried again later."""
        try:
            return self.device.runner.step(self.desired)
        except LinesideError as error:
            if error.code != "storage.full":
                raise
            return False

    def steps(self, count: int) -> None:
        """Let the process take some steps, seconds passing."""
        for _ in range(count):
            if not self.step():
                self.device.clock.advance(5.0)

    def steps_without_room(self, count: int) -> None:
        """Let the process take some steps while the disk takes nothing; what is at fault judges no parts for that."""
        before, activator = self.attempt, self.device.activator
        goes_well = not activator.outcomes
        self.takes_nothing = True
        self.steps(count)
        self.takes_nothing = False
        attempt = self.attempt
        if before is None or before.state is not S.PROBATION or before.fault is not None:
            return
        assert attempt is not None
        assert attempt.state is S.PROBATION, "nothing could be written"
        if attempt.fault is not None and attempt.former not in (None, *self.damaged) and goes_well:
            assert activator.in_use == attempt.former, "it is at fault, and judges parts"

    def die(self, at: int, *, power: bool) -> None:
        """End the process just before its next boundaries, at the latest after twenty steps; then start another one.

        Args:
            power: the machine goes down with it, and what was not synced is lost in one way or another.
        """
        watch = Watch(self.root, self.rng, wanted=lambda _: False)
        self.dies_at, self._boundaries = at, 0
        with contextlib.ExitStack() as stack:
            if power:
                stack.enter_context(watch.watching())
            with contextlib.suppress(KilledError):
                self.steps(20)
            if power:
                watch.wanted = lambda _: True
        if power:
            cut = self.rng.choice(watch.cuts)
            shutil.rmtree(self.root)
            write_image(cut.image, self.root)
        self.boot(ended=Ending.POWER_CUT if power else Ending.KILLED)

    def desire(self, release: int | None) -> None:
        """Have the fleet ask for a version, in a new deployment; for none where that is None."""
        if release is None:
            self.desired = Desired(device="edge-1", revision=1, models=())
        else:
            self.number += 1
            self.desired = wanted(self.packages[release], self.number)

    def order(self, kind: OrderKind, release: int | None = None) -> None:
        """Leave an order; an import's package is staged before."""
        digest = None
        if kind is OrderKind.IMPORT and release is not None:
            digest = self.packages[release].digest
            (found,), _ = search(self.packages[release].folder)
            bundle.stage(found, self.device.store.root)
        self.orders += 1
        with contextlib.suppress(LinesideError):  # too many wait
            self.device.orders.give(
                Order(
                    id=deployment_id(1_000_000 + self.orders),
                    kind=kind,
                    model=MODEL,
                    digest=digest,
                    release=release,
                    by="anna",
                    at=self.device.clock.now_utc(),
                )
            )

    def pin(self, *, wanted_on: bool) -> None:
        """Pin the version loaded at boot, or let go of all pins."""
        pins = Pins(self.device.store.root)
        if not wanted_on:
            for digest in self.pinned:
                pins.unpin(digest)
            self.pinned.clear()
        elif (current := self.installed.current) is not None and current not in self.damaged:
            pins.pin(current)
            self.pinned.add(current)

    def judge(self, what: str, parts: int) -> None:
        """Have the version in use judge parts."""
        activator = self.device.activator
        if activator.in_use is None:
            return
        if what == "faults":
            activator.judged(ok=parts, nan=parts)
            return
        activator.judged(**{"ok": parts} if what in ("good", "slow") else {"ng": parts})
        more = Figures(digest=activator.in_use, looks=looks_of([500.0 if what == "slow" else 5.0] * parts * 3))
        activator.since_boot[activator.in_use] = activator.since_boot[activator.in_use].plus(more)

    def spoil(self, place: int) -> None:
        """Damage one file of the store on disk; all versions it belongs to are damaged then."""
        blobs = sorted(path for path in (self.root / "store" / "blobs").rglob("*") if path.is_file())
        if not blobs:
            return
        blob = blobs[place % len(blobs)]
        with blob.open("r+b") as stream:
            first = stream.read(1)
            stream.seek(0)
            stream.write(bytes([first[0] ^ 1]) if first else b"x")
        for found in self.packages.values():
            if blob.name == found.digest or any(file.digest == blob.name for file in found.index.files):
                self.damaged.add(found.digest)

    def lose_the_record(self) -> None:
        """Damage the record of what is installed; a start makes it anew from the journal."""
        record = self.root / "store" / "models" / f"{MODEL}.json"
        if record.exists():
            record.write_bytes(b"damaged")
        self.boot()

    def bring_to_an_end(self) -> None:
        """All is well from now on, and days pass; then every deployment must have ended."""
        self.is_away = self.is_full = False
        self.busy = self.memory_mb = None
        self.fleet.faults.clear()
        self.device.activator.outcomes.clear()
        clock = self.device.clock
        until_ns = clock.monotonic_ns() + int(PATIENCE_DAYS * DAY_S * 1e9)
        while clock.monotonic_ns() < until_ns:
            for _ in range(60):
                if not self.step():
                    break
            else:
                raise AssertionError("It goes on without an end.")
            attempt = self.attempt
            if attempt is None or attempt.has_ended or not self._is_wanted(attempt):
                break
            self.check()
            clock.advance(1800.0 if attempt.hold is None else 3 * 3600.0)
        for _ in range(3):
            clock.advance(120.0)
            self.steps(5)
        attempt = self.attempt
        assert attempt is None or attempt.has_ended or not self._is_wanted(attempt), f"{attempt} does not end"
        self.check()
        self.boot()
        if attempt is not None and attempt.state is S.SUCCEEDED and attempt.digest not in self.damaged:
            assert self.device.activator.in_use == attempt.digest, "it has succeeded and is not loaded"
        if self.desired is not None and self.desired.models:
            one = self.desired.models[0].deployment_id
            remembered = self.device.journal.of(MODEL)
            is_latest = attempt is not None and attempt.deployment_id == one
            assert is_latest or remembered.has_ended(one), "it was asked for and never begun"

    # What must hold

    def check(self) -> None:
        """Fail unless all is as it must be at any time."""
        check_reports(self.said)
        attempt, installed = self.attempt, self.installed
        if attempt is not None and attempt.hold is not None and attempt.fault is None:  # else it is being undone
            now = self.device.clock.now_utc()
            is_moved = attempt.hold.deadline + timedelta(minutes=20) < now  # told anew at the next step
            assert not attempt.has_ended
            assert not is_moved or not self._is_wanted(attempt) or self._is_late(attempt), attempt.hold
        for digest in {installed.current, installed.previous, *self.pinned} - {None} - self.damaged:
            assert self.device.store.package(str(digest)).digest == digest

    def _is_late(self, attempt: Attempt) -> bool:
        """Tell whether a hold's deadline was passed since the last step, or the clock was set."""
        self.step()
        latest = self.attempt
        return latest is None or latest.hold is None or latest.hold.deadline != attempt.hold.deadline  # type: ignore[union-attr]

    def _check_boot(self) -> None:
        in_use = self.device.activator.in_use
        if in_use is not None:
            assert self.device.store.package(in_use).digest == in_use
        attempt = self.attempt
        if attempt is not None and attempt.state is S.PROBATION and attempt.fault is not None:
            assert in_use != attempt.digest, "it ended the agent, or was taken back, and is loaded again"
        kept = {self.installed.current, self.installed.previous} - {None}
        if attempt is not None and not attempt.has_ended and attempt.fault is not None:
            kept.discard(attempt.digest)  # it is being undone
        assert in_use is not None or not kept - self.damaged, f"nothing is loaded of {kept}"

    @property
    def attempt(self) -> Attempt | None:
        return self.device.journal.of(MODEL).attempt

    @property
    def installed(self) -> Installed:
        return self.device.store.installed(MODEL)

    def _is_wanted(self, attempt: Attempt) -> bool:
        if attempt.origin is deployment.Origin.DEVICE or attempt.state in (S.ACTIVATING, S.PROBATION):
            return True
        models = self.desired.models if self.desired is not None else ()
        return any(one.deployment_id == attempt.deployment_id for one in models)

    # What the device asks

    def _boundary(self, name: str) -> None:
        self._boundaries += 1
        if self.is_dead or (self.dies_at and self._boundaries >= self.dies_at):
            self.is_dead = True
            raise KilledError
        if self.takes_nothing and name.startswith(_WRITES):
            raise LinesideError("storage.full", f"Injected before {name!r}.")
        if self.full_at and self._boundaries >= self.full_at and name.startswith(_WRITES):
            self.full_at = 0
            raise LinesideError("storage.full", f"Injected before {name!r}.")

    def _take(self, report: DeploymentReport) -> None:
        self._boundary("report")
        self.said.append(report)
        is_new = report not in self.said[:-1]  # after a start the latest one is made again
        if is_new and report.state in (S.SUCCEEDED, S.ALREADY_INSTALLED):
            assert report.inferring_digest == report.digest
            # Where a kill came before it was told, its version may have been damaged by the time it is.
            assert self.device.activator.in_use == report.digest or report.digest in self.damaged
        former = self.attempt.former if self.attempt is not None else None
        if is_new and report.state is S.FAILED_REVERTED and former is not None:
            assert self.device.activator.in_use in (former, None)  # None: no station looks with this model

    def _tests(self, tested: package.Package, _go_on: Callable[[], bool]) -> SelfTestResult:
        self._boundary("self-test")
        is_bad = tested.manifest.release == BAD_RELEASE
        self.damaged.discard(tested.digest)  # it was verified just now
        return SelfTestResult(ok=not is_bad, code="model.golden_mismatch" if is_bad else "", memory_mb=50.0)

    def _fetches(self, *args: object, **kwargs: object) -> bool:
        if self.is_away:
            raise LinesideError("network.unreachable", "The fleet is away.")
        return self._fetch(*args, **kwargs)  # type: ignore[arg-type]
