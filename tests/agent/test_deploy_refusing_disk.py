"""A disk that takes no more, or a process that ends, at the one moment that matters; and what follows all the same."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.deploy import bundle, bundle_search
from agent.deploy.orders import Order, OrderKind
from agent.deploy.outlook import Rules
from agent.deploy.probation import ProbationLimits
from tests.support.deploying import (
    AT_ONCE,
    MODEL,
    MemoryFleet,
    TestDevice,
    check_reports,
    deployment_id,
    make_package,
    wanted,
)
from wire import package
from wire.deployment import DeploymentReport, HoldReason
from wire.deployment import DeploymentState as S
from wire.desired import Desired
from wire.errors import LinesideError

SLOWLY = ProbationLimits(parts=20, watch_s=600.0)


class EndedError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def releases(tmp_path: Path) -> list[package.Package]:
    return [make_package(tmp_path / f"v{release}", release) for release in (1, 2, 3)]


@pytest.fixture
def device(tmp_path: Path, releases: list[package.Package]) -> TestDevice:
    """A device that runs release 2, after release 1; from now on versions must prove themselves."""
    fleet = MemoryFleet()
    for found in releases:
        fleet.publish(found)
    made = TestDevice(root=tmp_path / "device", fleet=fleet)
    made.options = replace(made.options, rules=Rules(probation=AT_ONCE))
    made.boot()
    made.run(wanted(releases[0]))
    made.run(wanted(releases[1]))
    made.options = replace(made.options, rules=Rules(probation=SLOWLY))
    made.before = lambda _: None
    made.boot()
    made.run(wanted(releases[1]))
    made.earlier = list(made.reports)
    made.reports.clear()
    return made


def refuse_in(device: TestDevice, folder: str, is_full: list[bool]) -> None:
    """Have the disk refuse what is written in a folder of the device for as long as it is full."""
    for part in (device.journal, device.store):
        disk = part._disk
        write = disk.write

        def refusing(path: Path, data: bytes, write=write) -> None:  # type: ignore[no-untyped-def]
            if is_full[0] and path.is_relative_to(device.root / folder):
                raise LinesideError("storage.full", f"Injected: {path.name}.")
            write(path, data)

        disk.write = refusing  # type: ignore[method-assign]


def to_probation(device: TestDevice, document: Desired) -> None:
    while device.states()[-1:] != [S.PROBATION]:
        assert device.runner.step(document)


def try_to_step(device: TestDevice, document: Desired, count: int = 1) -> None:
    for _ in range(count):
        with contextlib.suppress(LinesideError):
            device.runner.step(document)


def give(device: TestDevice, kind: OrderKind, found: package.Package | None = None) -> Order:
    order = Order(
        id="00000000-0000-7000-9000-000000000001",
        kind=kind,
        model=MODEL,
        digest=found.digest if found is not None else None,
        release=found.manifest.release if found is not None else None,
        by="Kim",
        at=device.clock.now_utc(),
    )
    if kind is OrderKind.IMPORT and found is not None:
        (only,), _ = bundle_search.search(found.folder)
        bundle.stage(only, device.root / "store")
    device.orders.give(order)
    return order


# Going back needs no byte


@pytest.mark.parametrize("minutes_before", [0, 2])
def test_a_faulty_version_is_taken_back_at_once_while_the_journal_cannot_be_written(
    device: TestDevice, releases: list[package.Package], minutes_before: int
) -> None:
    """Also where how far probation has come was to be written down first."""
    document = wanted(releases[2])
    to_probation(device, document)
    is_full = [True]
    refuse_in(device, "journal", is_full)
    device.activator.judged(ok=3, inference_failed=100)
    device.clock.advance(60.0 * minutes_before)
    tried = len(device.activator.activated)
    try_to_step(device, document)
    assert device.activator.in_use == releases[1].digest
    try_to_step(device, document, 20)
    assert device.activator.activated[tried:] == [releases[1].digest], "once is enough"
    assert device.states()[-1] is S.PROBATION, "nothing is told that was not written down"
    is_full[0] = False
    device.run(document)
    assert device.states()[-1] is S.FAILED_REVERTED
    last = device.reports[-1]
    assert last.code == "deployment.no_verdicts", "which was the reason"
    assert last.probation is not None
    assert last.probation.parts == 103
    assert device.activator.activated[tried:] == [releases[1].digest]
    assert device.activator.in_use == device.store.installed(MODEL).current == releases[1].digest
    check_reports(device.earlier + device.reports)


def test_while_nothing_can_be_written_going_back_is_tried_again_after_a_pause_only(
    device: TestDevice, releases: list[package.Package]
) -> None:
    document = wanted(releases[2])
    to_probation(device, document)
    refuse_in(device, "journal", [True])
    device.activator.judged(inference_failed=100)
    device.activator.outcomes = ["broken", "untouched"]
    tried = len(device.activator.activated)
    try_to_step(device, document, 20)
    assert len(device.activator.activated) == tried + 1
    for _ in range(3):
        device.clock.advance(120.0)
        try_to_step(device, document, 20)
    assert device.activator.activated[tried:] == [releases[1].digest] * 3
    assert device.activator.in_use == releases[1].digest


def test_a_faulty_version_is_taken_back_while_no_report_is_taken(
    device: TestDevice, releases: list[package.Package]
) -> None:
    is_full = [False]

    def take(report: DeploymentReport) -> None:
        if is_full[0]:
            raise LinesideError("storage.full", "The outbox is full.")
        device.reports.append(report)

    device.take = take
    device.boot()
    document = wanted(releases[2])
    to_probation(device, document)
    is_full[0] = True
    device.activator.judged(ok=10, inference_failed=1)
    device.clock.advance(61.0)
    try_to_step(device, document)  # how far it has come is written down, and not told
    device.activator.judged(inference_failed=100)
    try_to_step(device, document, 3)
    assert device.activator.in_use == releases[1].digest
    is_full[0] = False
    device.run(document)
    assert device.states()[-1] is S.FAILED_REVERTED
    assert device.reports[-1].code == "deployment.no_verdicts"
    check_reports(device.earlier + device.reports)


def test_a_line_whose_activation_left_nothing_gets_its_version_back_while_the_journal_cannot_be_written(
    device: TestDevice, releases: list[package.Package]
) -> None:
    document = wanted(releases[2])
    while device.states()[-1:] != [S.STAGED]:
        assert device.runner.step(document)
    is_full = [False]
    refuse_in(device, "journal", is_full)
    activate = device.activator.activate

    def fills_the_disk(found: package.Package, *, exclusive: bool = False, going_back: bool = False) -> str:
        is_full[0] = True
        device.activator.activate = activate  # type: ignore[method-assign]
        return activate(found, exclusive=exclusive, going_back=going_back)

    device.activator.activate = fills_the_disk  # type: ignore[method-assign]
    device.activator.outcomes = ["broken"]
    try_to_step(device, document, 5)
    assert device.activator.in_use == releases[1].digest
    is_full[0] = False
    device.run(document)
    assert device.reports[-1].code == "deployment.activation_failed"
    assert device.activator.in_use == releases[1].digest
    check_reports(device.earlier + device.reports)


def test_a_refused_download_does_not_hold_a_rollback_which_needs_no_byte(
    device: TestDevice, releases: list[package.Package]
) -> None:
    document = wanted(releases[2])
    device.fleet.faults = ["", "storage.full"]
    while not (device.reports and device.reports[-1].hold):
        assert device.runner.step(document)
    assert device.reports[-1].hold.reason is HoldReason.NO_SPACE  # type: ignore[union-attr]
    give(device, OrderKind.ROLLBACK)
    for _ in range(20):
        device.runner.step(document)
    assert device.activator.in_use == releases[0].digest
    assert device.states()[-1] is S.SUCCEEDED
    assert sum(report.hold is not None for report in device.reports) == 1
    check_reports(device.earlier + device.reports)


def test_a_finished_download_that_the_disk_does_not_take_waits_and_is_not_tried_again_and_again(
    device: TestDevice, releases: list[package.Package]
) -> None:
    """All its bytes are there; still its new name needs room."""
    settle = device.store._disk.settle

    def refuses(temporary: Path, path: Path) -> None:
        raise LinesideError("storage.full", f"Injected: {path.name}.")

    device.store._disk.settle = refuses  # type: ignore[method-assign]
    document = wanted(releases[2])
    for _ in range(20):
        if not device.runner.step(document):
            break
    assert not device.runner.step(document)
    assert device.reports[-1].hold is not None
    device.store._disk.settle = settle  # type: ignore[method-assign]
    device.clock.advance(301.0)
    to_probation(device, document)


# What must still reach the fleet


@pytest.mark.parametrize("is_killed", [False, True])
def test_the_end_of_an_attempt_that_an_import_overrules_is_told_though_it_was_not_taken_at_once(
    device: TestDevice, releases: list[package.Package], *, is_killed: bool
) -> None:
    refusals: list[BaseException] = []

    def take(report: DeploymentReport) -> None:
        if report.code == "deployment.overruled" and refusals:
            raise refusals.pop()
        device.reports.append(report)

    device.take = take
    device.boot()
    document = wanted(releases[2])
    while S.VERIFYING not in device.states(3):
        assert device.runner.step(document)
    give(device, OrderKind.IMPORT, releases[0])
    refusals.append(EndedError() if is_killed else LinesideError("storage.full", "The outbox is full."))
    with contextlib.suppress(LinesideError, EndedError):
        device.runner.step(document)
    assert refusals == []
    if is_killed:
        device.boot(crashed=True)
    device.runner.step(document)
    ends = [report for report in device.reports if report.deployment_id == deployment_id(3) and report.code]
    assert [(report.state, report.code) for report in ends] == [(S.FAILED_NO_CHANGE, "deployment.overruled")]
    to_probation(device, document)
    assert device.activator.in_use == releases[0].digest
    check_reports(device.earlier + device.reports)


def damage_the_journal(device: TestDevice) -> Path:
    path = device.root / "journal" / f"{MODEL}.json"
    path.write_bytes(path.read_bytes()[:40])
    return path


@pytest.mark.parametrize("ends_before", ["link parts.json.damaged", "write parts.json", "rename parts.json"])
def test_a_process_that_ends_while_a_damaged_journal_is_replaced_leaves_no_empty_one(
    device: TestDevice, ends_before: str
) -> None:
    """Else the reports of what is begun anew would count from 1, and the fleet would take them for old ones."""
    path = damage_the_journal(device)

    def end(boundary: str) -> None:
        if boundary == ends_before:
            raise EndedError

    device.before = end
    with pytest.raises(EndedError):
        device.boot()
    device.before = None
    device.boot()
    assert device.journal.of(MODEL).first_sequence > 1000
    assert json.loads(path.read_bytes())["first_sequence"] > 1000
    assert path.with_name(f"{path.name}.damaged").stat().st_size == 40


def test_a_damaged_journal_that_cannot_be_replaced_keeps_no_device_from_starting(
    device: TestDevice, releases: list[package.Package]
) -> None:
    damage_the_journal(device)

    def refuse(boundary: str) -> None:
        if boundary.endswith(("parts.json", "parts.json.damaged")) and not boundary.startswith("remove"):
            raise LinesideError("storage.full", f"Injected: {boundary}.")

    device.before = refuse
    device.boot()
    assert device.activator.in_use == releases[1].digest
    assert device.journal.of(MODEL).first_sequence > 1000
    device.journal._disk.before = lambda _: None
    to_probation(device, wanted(releases[2]))
    assert device.reports[-1].sequence > 1000
