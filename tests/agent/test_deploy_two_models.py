"""Two models on one device: what one of them waits for, or is in trouble with, is not in the other one's way."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from agent.deploy.orders import Order, OrderKind
from agent.deploy.outlook import Rules
from agent.deploy.part import Part
from agent.deploy.probation import ProbationLimits
from tests.support.deploying import AT_ONCE, MemoryFleet, TestDevice, check_reports, make_package, wanted
from wire import package
from wire.deployment import DeploymentState as S
from wire.deployment import HoldReason
from wire.desired import Desired
from wire.errors import LinesideError

FIRST: Final = "a-surface"
LAST: Final = "z-ocr"
SLOWLY = ProbationLimits(parts=20, watch_s=600.0)
DISK_REFUSES = LinesideError("storage.corrupt", "Injected: the disk refused.")


class SlowFleet(MemoryFleet):
    """Sends one byte of some blobs each time they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.slow: set[str] = set()

    def fetch_blob(self, digest: str, part: Part, max_bytes: int, *, exact: bool, go_on: Callable[[], bool]) -> bool:
        if digest not in self.slow:
            return super().fetch_blob(digest, part, max_bytes, exact=exact, go_on=go_on)
        self.fetched.append(digest)
        self._send(part, self.blobs[digest][part.length : part.length + 1])
        return False


@dataclass(frozen=True)
class Plant:
    """A device on which release 1 of both models runs; of release 2 each model's own file comes a byte at a time."""

    device: TestDevice
    packages: dict[tuple[str, int], package.Package]
    fleet: SlowFleet

    def step(self, document: Desired, count: int = 1) -> None:
        for _ in range(count):
            self.device.runner.step(document)

    def slow_down(self, model: str, release: int) -> None:
        index = self.packages[model, release].index
        self.fleet.slow.add(next(file.digest for file in index.files if file.path == "model.onnx"))

    def in_use(self, model: str) -> str | None:
        return self.device.activator.inferring(model)

    def states(self, model: str) -> list[S]:
        return [report.state for report in self.device.reports if report.model == model]

    def document(self, first: int, last: int) -> Desired:
        """Ask for these releases of both models."""
        entries = (
            wanted(self.packages[FIRST, first], 10 + first).models + wanted(self.packages[LAST, last], 20 + last).models
        )
        return Desired(device="edge-1", revision=1, models=entries)

    def order(self, kind: OrderKind, model: str) -> Order:
        order = Order(
            id="00000000-0000-7000-9000-000000000001",
            kind=kind,
            model=model,
            by="Kim",
            at=self.device.clock.now_utc(),
        )
        self.device.orders.give(order)
        return order


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    fleet = SlowFleet()
    packages = {
        (model, release): make_package(tmp_path / f"{model}-{release}", release, model=model)
        for model in (FIRST, LAST)
        for release in (1, 2)
    }
    for found in packages.values():
        fleet.publish(found)
    device = TestDevice(root=tmp_path / "device", fleet=fleet)
    made = Plant(device, packages, fleet)
    device.options = replace(device.options, rules=Rules(probation=AT_ONCE))
    device.boot()
    device.run(made.document(1, 1))
    device.options = replace(device.options, rules=Rules(probation=SLOWLY))
    device.boot()
    assert {device.activator.inferring(model) for model in (FIRST, LAST)} == {
        packages[FIRST, 1].digest,
        packages[LAST, 1].digest,
    }
    device.run(made.document(1, 1))
    device.reports.clear()
    return made


def to_probation(plant: Plant) -> Desired:
    """Bring the last model's release 2 into probation; nothing new is asked for of the other one."""
    document = plant.document(1, 2)
    while plant.states(LAST)[-1:] != [S.PROBATION]:
        assert plant.device.runner.step(document)
    return document


def downloading(plant: Plant) -> Desired:
    """Have the first model download for long."""
    document = plant.document(2, 2)
    plant.slow_down(FIRST, 2)
    while plant.states(FIRST)[-1:] != [S.DOWNLOADING]:
        plant.step(document)
    return document


def test_a_faulty_version_is_taken_back_while_another_model_downloads_for_long(plant: Plant) -> None:
    to_probation(plant)
    document = downloading(plant)
    plant.device.activator.judged(model=LAST, inference_failed=100)
    plant.step(document, 20)
    assert plant.states(LAST)[-1] is S.FAILED_REVERTED
    assert plant.in_use(LAST) == plant.packages[LAST, 1].digest
    assert plant.states(FIRST) == [S.DOWNLOADING], "and that goes on"


def test_a_rollback_is_carried_out_while_another_model_downloads_for_long(plant: Plant) -> None:
    document = to_probation(plant)
    plant.device.activator.judged(model=LAST, ok=20)
    plant.device.clock.advance(601.0)
    plant.device.run(document)
    assert plant.states(LAST)[-1] is S.SUCCEEDED
    document = downloading(plant)
    plant.order(OrderKind.ROLLBACK, LAST)
    before = len(plant.fleet.fetched)
    while plant.in_use(LAST) != plant.packages[LAST, 1].digest:
        assert plant.device.runner.step(document)
    assert plant.states(LAST)[-1] is S.ACTIVATING
    assert plant.fleet.fetched[before:] == [], "a person waits for it"
    plant.step(document)
    assert plant.states(LAST)[-1] is S.PROBATION
    plant.step(document)
    assert plant.states(LAST)[-1] is S.SUCCEEDED
    check_reports(plant.device.reports)


def test_two_long_downloads_go_on_in_turn(plant: Plant) -> None:
    document = plant.document(2, 2)
    plant.slow_down(FIRST, 2)
    plant.slow_down(LAST, 2)
    while not plant.fleet.slow <= set(plant.fleet.fetched):
        plant.step(document)
        assert len(plant.fleet.fetched) < 50
    before = len(plant.fleet.fetched)
    plant.step(document, 10)
    slices = plant.fleet.fetched[before:]
    assert len(slices) == 10
    assert all(one != next_one for one, next_one in itertools.pairwise(slices))


def test_a_version_that_waits_for_a_window_uses_it_while_another_model_downloads_for_long(plant: Plant) -> None:
    closed: list[HoldReason | None] = [HoldReason.MAINTENANCE_WINDOW]
    plant.device.not_now = lambda: closed[0]
    plant.device.boot()
    document = plant.document(1, 2)
    while plant.device.runner.step(document):
        pass
    assert plant.states(LAST)[-1] is S.STAGED
    document = downloading(plant)
    closed[0] = None
    plant.step(document, 20)
    assert plant.states(LAST)[-1] is S.PROBATION


def test_a_faulty_version_is_taken_back_though_the_orders_cannot_be_read(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = to_probation(plant)

    def refuse() -> tuple[Order, ...]:
        raise DISK_REFUSES

    monkeypatch.setattr(plant.device.orders, "pending", refuse)
    plant.device.activator.judged(model=LAST, inference_failed=100)
    with pytest.raises(LinesideError, match="the disk refused"):
        plant.step(document)
    assert plant.states(LAST)[-1] is S.FAILED_REVERTED
    assert plant.in_use(LAST) == plant.packages[LAST, 1].digest


def test_a_device_starts_though_the_orders_cannot_be_read(plant: Plant) -> None:
    folder = plant.device.root / "store" / "orders"
    folder.rmdir() if folder.is_dir() else None
    folder.write_bytes(b"no folder")
    plant.device.boot()
    assert plant.in_use(LAST) == plant.packages[LAST, 1].digest


def test_what_cannot_be_written_of_one_model_does_not_hold_up_the_other(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file in the journal may be damaged beyond repair."""
    disk = plant.device.journal._disk
    write = disk.write

    def refuse(path: Path, data: bytes) -> None:
        if path.name == f"{FIRST}.json":
            raise DISK_REFUSES
        write(path, data)

    monkeypatch.setattr(disk, "write", refuse)
    document = plant.document(2, 2)
    with pytest.raises(LinesideError, match="the disk refused"):
        plant.step(document)
    for _ in range(20):
        with contextlib.suppress(LinesideError):
            plant.step(document)
    assert plant.states(LAST)[-1] is S.PROBATION
    assert plant.states(FIRST) == []
