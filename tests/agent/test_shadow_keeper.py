"""Candidates are brought, tested, started and stopped beside deployments; neither kills nor bad ones harm the line."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.clock import FakeClock
from agent.deploy import selftest
from agent.deploy.durable import Disk
from agent.deploy.selftest import SelfTestOptions, SelfTestResult
from agent.deploy.shadow_keeper import CRASHED, MISMATCHES_MOST, ShadowKeeper, Surroundings
from agent.deploy.shadow_memory import ShadowMemory
from agent.deploy.shadow_plan import Word
from agent.deploy.store import Store
from agent.inspection.shadow_stage import ShadowStage
from agent.vision.runtime import RuntimeOptions
from tests.support.deploying import DEVICE, MODEL, MemoryFleet, TestDevice, make_package, passes, wanted
from tests.support.shadowing import MODEL as COLORS
from tests.support.shadowing import stand
from wire.desired import Desired
from wire.errors import LinesideError
from wire.package import Package

KILLS_MOST = 400


class FakeStage:
    """Remembers what was started; `fails` makes starting raise that code."""

    def __init__(self, before: Callable[[str], None] = lambda _: None) -> None:
        self.now: dict[str, tuple[str, float]] = {}
        self.started: list[str] = []
        self.failed: dict[str, tuple[str, str]] = {}
        self.fails = ""
        self._before = before

    def start(self, package: Package, rate: float) -> None:
        self._before("start")
        self.started.append(package.digest)
        if self.fails:
            raise LinesideError(self.fails, "Injected.")
        self.now[package.manifest.name] = (package.digest, rate)
        self._before("started")

    def stop(self, model: str) -> None:
        self.now.pop(model, None)
        self.failed.pop(model, None)

    def set_rate(self, model: str, rate: float) -> None:
        self.now[model] = (self.now[model][0], rate)

    def running(self, model: str) -> tuple[str, float] | None:
        return self.now.get(model)

    def refusals(self, model: str) -> tuple[str, ...]:
        return ()

    def stopped(self, model: str) -> tuple[str, str] | None:
        return self.failed.get(model)

    def watch(self) -> None:
        pass


class Keeping:
    """A keeper of candidates on real files, beside release 1 as the active version."""

    def __init__(
        self,
        root: Path,
        fleet: MemoryFleet,
        *,
        killed: bool = False,
        before: Callable[[str], None] | None = None,
        tester: Callable[..., SelfTestResult | None] = passes,
        stage: Any = None,
        active: str | None = "a" * 64,
        **around: Any,
    ) -> None:
        disk = Disk(before) if before is not None else Disk()
        self.fleet, self.clock, self.active = fleet, FakeClock(), active
        self.told: list[str] = []
        self.changes = 0
        self.store = Store(root, disk)
        self.store.sweep()
        self.memory = ShadowMemory(root, disk)
        self.stage = stage or FakeStage(before or (lambda _: None))
        given = {"is_busy": lambda: False, "is_short": lambda: False, "fits": lambda _mb: True} | around
        self.keeper = ShadowKeeper(
            store=self.store,
            memory=self.memory,
            api=fleet,
            stage=self.stage,
            around=Surroundings(
                active=lambda _model: self.active,
                models=lambda: (MODEL, COLORS),
                tell=lambda name, _severity, text: self.told.append(f"{name}: {text}"),
                on_change=self._count_change,
                **given,
            ),
            device=DEVICE,
            tester=tester,
            clock=self.clock,
            keep_free_bytes=0,
            pause_s=1.0,
            rng=random.Random(7),
        )
        self.keeper.recover(killed=killed)

    def _count_change(self) -> None:
        self.changes += 1

    def run(self, desired: Desired | None, patience: int = 2) -> None:
        idle = 0
        for _ in range(200):
            moved = self.keeper.tend(desired)
            if self.keeper.step(desired, lambda: True) or moved:
                idle = 0
                continue
            idle += 1
            if idle > patience:
                return
            self.clock.advance(700.0)
        raise AssertionError("It does not come to rest.")


def asking(active: Package, candidate: Package | None, rate: float = 0.25) -> Desired:
    document = wanted(active)
    shadow = candidate.digest if candidate is not None else None
    return replace(document, models=(replace(document.models[0], shadow=shadow, shadow_rate=rate),))


@pytest.fixture
def plant(tmp_path: Path) -> tuple[Path, MemoryFleet, Package, Package]:
    fleet = MemoryFleet()
    packages = [make_package(tmp_path / f"v{release}", release) for release in (1, 2, 3)]
    for found in packages:
        fleet.publish(found)
    return tmp_path / "store", fleet, packages[0], packages[1]


Plant = tuple[Path, MemoryFleet, Package, Package]


def test_a_candidate_is_fetched_verified_tested_and_started_and_stopped_when_nobody_wants_it(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    device = Keeping(root, fleet)
    device.run(asking(active, candidate, 0.5))
    assert device.stage.now == {MODEL: (candidate.digest, 0.5)}
    assert device.keeper.trouble(MODEL) == ""
    assert len(fleet.fetched) == len(set(fleet.fetched)), "a blob was fetched twice"
    device.run(asking(active, candidate, 0.75))
    assert device.stage.now == {MODEL: (candidate.digest, 0.75)}
    assert device.stage.started == [candidate.digest], "another rate needs no new session"
    before = device.changes
    device.run(asking(active, None))
    assert device.stage.now == {}
    assert device.memory.of(MODEL) is None
    assert device.changes > before, "nobody was told"


def test_a_restart_in_good_order_starts_it_again_without_a_download_or_a_test(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    Keeping(root, fleet).run(asking(active, candidate))
    fleet.fetched.clear()

    def tester(*_: object) -> SelfTestResult:
        raise AssertionError("tested again")

    again = Keeping(root, fleet, tester=tester)
    again.run(asking(active, candidate))
    assert again.stage.started == [candidate.digest]
    assert fleet.fetched == []


@pytest.mark.parametrize("code", ["model.crashed", "model.golden_mismatch", "model.too_slow"])
def test_a_candidate_its_self_test_refuses_is_not_tried_again_after_a_boot_but_when_asked_anew(
    plant: Plant, code: str
) -> None:
    root, fleet, active, candidate = plant
    tests: list[str] = []

    def tester(tested: Package, _go_on: object) -> SelfTestResult:
        tests.append(tested.digest)
        return SelfTestResult(ok=False, code=code, reason="It is bad.")

    for _ in range(2):
        device = Keeping(root, fleet, tester=tester)
        device.run(asking(active, candidate))
        assert device.stage.started == []
        assert device.keeper.trouble(MODEL) == "It is bad."
    assert len(tests) == 1
    assert code not in "".join(device.told), "told again at the next boot"
    device.run(asking(active, None))
    device.run(asking(active, candidate))
    assert len(tests) == 2


def test_a_candidate_that_cannot_be_loaded_or_is_stopped_by_itself_is_refused_and_told(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    device = Keeping(root, fleet)
    device.stage.fails = "model.unloadable"
    device.run(asking(active, candidate))
    assert device.stage.started == [candidate.digest]
    assert device.keeper.trouble(MODEL) == "Injected."
    device.run(asking(active, None))
    device.stage.fails = ""
    device.run(asking(active, candidate))
    device.stage.failed[MODEL] = ("model.unusable_output", "It had no verdict.")
    device.stage.now.clear()
    device.run(asking(active, candidate))
    assert device.stage.now == {}
    assert device.keeper.trouble(MODEL) == "It had no verdict."
    assert [told.partition(":")[0] for told in device.told] == ["shadow.refused"] * 2


def test_the_agents_crash_while_a_candidate_ran_is_its_last_run(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    Keeping(root, fleet).run(asking(active, candidate))
    for killed in (True, False, True):
        device = Keeping(root, fleet, killed=killed)
        device.run(asking(active, candidate))
        assert device.stage.started == []
        assert device.keeper.trouble(MODEL) == CRASHED
    device.run(asking(active, None))
    device.run(asking(active, candidate))
    assert device.stage.started == [candidate.digest], "asked anew, it is tried anew"


def test_a_kill_before_it_was_ever_started_says_nothing_against_it(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    Keeping(root, fleet, fits=lambda _mb: False).run(asking(active, candidate))
    device = Keeping(root, fleet, killed=True)
    device.run(asking(active, candidate))
    assert device.stage.started == [candidate.digest]


def test_killed_at_every_boundary_it_ends_running_or_refused_and_what_is_installed_stays(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, fleet, active, candidate = plant
    device = TestDevice(root=tmp_path / "device", fleet=fleet)
    device.boot()
    device.run(wanted(active))
    store = tmp_path / "device" / "store"
    template = tmp_path / "template"
    _copy(store, template)
    installed = device.store.installed(MODEL)
    desired = asking(active, candidate)
    ends: dict[str, int] = {}
    for at in range(1, KILLS_MOST):
        _copy(template, store)
        if not _run_and_kill(store, fleet, desired, at):
            break
        again = Keeping(store, MemoryFleet(), killed=True)
        again.fleet.blobs = fleet.blobs
        again.run(desired)
        known = again.memory.of(MODEL)
        assert known is not None
        assert (MODEL in again.stage.now) is (known.word is Word.STARTED), f"killed at {at}"
        assert known.word is Word.STARTED or again.keeper.trouble(MODEL) == CRASHED
        assert again.store.installed(MODEL) == installed
        assert again.store.package(active.digest).digest == active.digest
        if known.word is Word.STARTED:
            assert again.store.package(candidate.digest).digest == candidate.digest
        ends[known.word.value] = ends.get(known.word.value, 0) + 1
    else:
        raise AssertionError("it never came to its end")
    assert ends["refused"] >= 2, "killed while it was being started"
    assert ends["started"] > 20
    with capsys.disabled():
        print(f"\ncandidate: killed at {at - 1} boundaries: {ends}")


def test_a_candidate_that_becomes_the_active_version_needs_no_second_download_and_is_stopped_first(
    plant: Plant, tmp_path: Path
) -> None:
    _, fleet, active, candidate = plant
    device = TestDevice(root=tmp_path / "device", fleet=fleet)
    device.boot()
    device.run(wanted(active))
    keeping = Keeping(tmp_path / "device" / "store", fleet, active=active.digest)
    desired = asking(active, candidate)
    device.run(desired)
    keeping.run(desired)
    device.boot()
    device.run(desired)
    fleet.fetched.clear()
    promoted = wanted(candidate, 7)
    keeping.keeper.tend(promoted)
    assert keeping.stage.now == {}
    device.run(promoted)
    assert device.activator.in_use == candidate.digest
    assert fleet.fetched == []


def test_the_bytes_of_a_candidate_nobody_asks_for_any_more_are_collected(plant: Plant, tmp_path: Path) -> None:
    _, fleet, active, candidate = plant
    device = TestDevice(root=tmp_path / "device", fleet=fleet)
    device.boot()
    device.run(wanted(active))
    keeping = Keeping(tmp_path / "device" / "store", fleet, active=active.digest)
    device.run(asking(active, candidate))
    keeping.run(asking(active, candidate))
    own = {file.digest for file in candidate.index.files} - {file.digest for file in active.index.files}
    assert all(keeping.store.blob_path(digest).is_file() for digest in own)
    keeping.run(asking(active, None))
    device.run(asking(active, None))
    assert not any(keeping.store.blob_path(digest).is_file() for digest in own)
    assert keeping.store.package(active.digest).digest == active.digest


@pytest.mark.parametrize(
    ("faults", "ends_running"),
    [
        (["", "cut", "network.unreachable", "cut"], True),
        (["resource.not_found"] * 5, True),
        (["", "deployment.digest_mismatch"], True),
        (["", *["deployment.digest_mismatch"] * MISMATCHES_MOST], False),
        (["package.invalid"], False),
    ],
    ids=["interrupted", "not published yet", "other bytes once", "other bytes always", "no package"],
)
def test_a_download_is_tried_again_after_pauses_unless_it_can_never_succeed(
    plant: Plant, faults: list[str], ends_running: bool
) -> None:
    root, fleet, active, candidate = plant
    fleet.faults = faults
    device = Keeping(root, fleet)
    device.run(asking(active, candidate), patience=10)
    assert (MODEL in device.stage.now) is ends_running
    assert bool(device.keeper.trouble(MODEL)) is not ends_running


def test_it_waits_for_room_memory_an_active_version_and_the_end_of_a_swap(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    state = {"busy": True, "fits": False}
    device = Keeping(root, fleet, active=None, is_busy=lambda: state["busy"], fits=lambda _mb: state["fits"])
    device.store.room_bytes = lambda: 0  # type: ignore[method-assign]
    desired = asking(active, candidate)
    for words, change in (
        ("no active version", lambda: setattr(device, "active", active.digest)),
        ("no room", lambda: setattr(device.store, "room_bytes", lambda: 1 << 40)),
        ("deployment is over", lambda: state.update(busy=False)),
        ("do not fit into memory", lambda: state.update(fits=True)),
    ):
        device.run(desired)
        assert words in device.keeper.trouble(MODEL)
        assert device.stage.started == []
        change()
    device.run(desired)
    assert device.stage.started == [candidate.digest]
    assert device.keeper.trouble(MODEL) == ""


def test_a_swap_that_needs_its_memory_gets_it(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    short: list[bool] = []
    device = Keeping(root, fleet, is_short=lambda: bool(short), is_busy=lambda: bool(short))
    device.run(asking(active, candidate))
    short.append(True)
    device.keeper.tend(asking(active, candidate))
    assert device.stage.now == {}
    device.run(asking(active, candidate))
    assert device.stage.now == {}, "it came back while the swap was going on"
    short.clear()
    device.run(asking(active, candidate))
    assert device.stage.now


def test_a_crash_after_it_was_stopped_says_nothing_against_it(plant: Plant) -> None:
    """It made room for a swap; what then ends the agent in probation is another version."""
    root, fleet, active, candidate = plant
    short: list[bool] = []
    device = Keeping(root, fleet, is_short=lambda: bool(short), is_busy=lambda: bool(short))
    device.run(asking(active, candidate))
    short.append(True)
    device.keeper.tend(asking(active, candidate))
    assert device.stage.now == {}
    again = Keeping(root, fleet, killed=True)
    again.run(asking(active, candidate))
    assert again.stage.now == {MODEL: (candidate.digest, 0.25)}
    assert again.keeper.trouble(MODEL) == ""
    assert again.told == []


def test_a_crash_while_it_waits_after_a_restart_in_good_order_says_nothing_against_it(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    Keeping(root, fleet).run(asking(active, candidate))
    waiting = Keeping(root, fleet, is_busy=lambda: True)
    waiting.run(asking(active, candidate))
    assert waiting.stage.started == []
    again = Keeping(root, fleet, killed=True)
    again.run(asking(active, candidate))
    assert again.stage.now
    assert again.keeper.trouble(MODEL) == ""


def test_it_is_stopped_and_the_start_goes_on_though_a_full_disk_cannot_note_that_it_is_not_loaded(
    plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    root, fleet, active, candidate = plant
    full: list[bool] = []

    def before(boundary: str) -> None:
        if full and boundary.endswith("shadows.json"):
            raise OSError(28, "No space left on device")

    short: list[bool] = []
    device = Keeping(root, fleet, before=before, is_short=lambda: bool(short))
    device.run(asking(active, candidate))
    full.append(True)
    short.append(True)
    assert device.keeper.tend(asking(active, candidate))
    assert device.stage.now == {}
    Keeping(root, fleet, before=before)
    assert [record.message for record in caplog.records if record.message.startswith("It cannot be remembered")]


def test_damaged_bytes_are_fetched_again_before_it_is_started(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    Keeping(root, fleet, fits=lambda _mb: False).run(asking(active, candidate))
    model = candidate.index.file("model.onnx")
    assert model is not None
    damaged = Store(root).blob_path(model.digest)
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" * model.bytes)
    fleet.fetched.clear()
    device = Keeping(root, fleet)
    device.run(asking(active, candidate))
    assert device.stage.started == [candidate.digest]
    assert fleet.fetched == [model.digest]


def test_a_memory_that_cannot_be_read_costs_a_test_and_no_more(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    Keeping(root, fleet).run(asking(active, candidate))
    (root / "shadows.json").write_bytes(b"{")
    device = Keeping(root, fleet)
    device.run(asking(active, candidate))
    assert device.stage.started == [candidate.digest]


def test_a_full_disk_at_the_boot_after_a_crash_stops_nobody_and_starts_no_candidate(plant: Plant) -> None:
    root, fleet, active, candidate = plant
    Keeping(root, fleet).run(asking(active, candidate))

    def full(boundary: str) -> None:
        if boundary.endswith("shadows.json"):
            raise OSError(28, "No space left on device")

    device = Keeping(root, fleet, killed=True, before=full)
    device.keeper.tend(asking(active, candidate))
    device.keeper.step(asking(active, candidate), lambda: True)
    assert device.stage.started == []
    assert device.keeper.trouble(MODEL) == CRASHED


def test_real_models_are_tested_loaded_and_shown_parts(tmp_path: Path) -> None:
    """The whole way on the device, with nothing in between but the fleet in memory."""
    fleet = MemoryFleet()
    with stand(tmp_path) as made:
        active, good, bad = made.version(), made.version(release=2), made.version("swapped", 3)
        for found in (active, good, bad):
            fleet.publish(found)
        made.stations.activate(active)
        stage = ShadowStage(made.shadows, RuntimeOptions(cache_dir=tmp_path / "cache"), lambda _station, _view: None)
        device = Keeping(
            tmp_path / "store",
            fleet,
            stage=stage,
            active=active.digest,
            tester=selftest.tester_of(SelfTestOptions()),
        )
        device.run(asking(active, good, 1.0))
        assert made.shadows.running(COLORS) == (good.digest, 1.0)
        made.show("red")
        made.idle()
        (pair,) = made.pairs()
        assert (pair.digest, pair.verdict) == (good.digest, pair.active_verdict)
        device.run(asking(active, bad, 1.0))
        assert made.shadows.running(COLORS) is None
        assert "expected blue 1.00, found red" in device.keeper.trouble(COLORS)
        made.show("red")
        assert made.waiting() == 0


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def _run_and_kill(root: Path, fleet: MemoryFleet, desired: Desired, at: int) -> bool:
    """Run in a process that is killed at a boundary; return whether there were so many."""
    child = os.fork()
    if child == 0:
        passed = 0

        def before(_boundary: str) -> None:
            nonlocal passed
            passed += 1
            if passed == at:
                os.kill(os.getpid(), signal.SIGKILL)

        fleet._before = before

        def tester(*_: object) -> SelfTestResult:
            before("self-test")
            return SelfTestResult(ok=True)

        try:
            Keeping(root, fleet, before=before, tester=tester).run(desired)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
