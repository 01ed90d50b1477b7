"""Situations in which a person or a line would be left without a way on."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from agent.deploy import bundle, bundle_search
from agent.deploy.attempt import MAX_PAST
from agent.deploy.orders import Answer, Order, OrderKind
from agent.deploy.outlook import Rules
from agent.deploy.plan_swapped import REVERT_TRIES
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
from wire.deployment import DeploymentState as S
from wire.desired import Desired

SLOWLY = ProbationLimits(parts=20, watch_s=600.0)
_NUMBERS = itertools.count(1)
NOTHING = Desired(device="edge-1", revision=9, models=())


@pytest.fixture
def releases(tmp_path: Path) -> list[package.Package]:
    return [make_package(tmp_path / f"v{release}", release) for release in (1, 2, 3)]


@pytest.fixture
def device(tmp_path: Path, releases: list[package.Package]) -> TestDevice:
    """A device on which nothing has run yet, whose versions must prove themselves."""
    fleet = MemoryFleet()
    for found in releases:
        fleet.publish(found)
    made = TestDevice(root=tmp_path / "device", fleet=fleet)
    made.options = replace(made.options, rules=Rules(probation=SLOWLY))
    made.boot()
    return made


def on_releases(device: TestDevice, releases: list[package.Package]) -> None:
    """Have these succeed, one after the other."""
    device.options = replace(device.options, rules=Rules(probation=AT_ONCE))
    device.boot()
    for found in releases:
        device.run(wanted(found))
    device.options = replace(device.options, rules=Rules(probation=SLOWLY))
    device.boot()
    device.run(wanted(releases[-1]))
    device.reports.clear()


def step_until(device: TestDevice, document: Desired, state: S) -> None:
    while device.states()[-1:] != [state]:
        assert device.runner.step(document), f"it stops at {device.states()}"


def give(device: TestDevice, kind: OrderKind, found: package.Package | None = None) -> Order:
    order = Order(
        id=f"00000000-0000-7000-9000-{next(_NUMBERS):012d}",
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


def answer(device: TestDevice, order: Order) -> Answer:
    found = device.orders.answer_of(order.id)
    assert found is not None, "the order was not answered"
    return found


def test_a_first_version_in_probation_with_no_way_back_gives_way_to_one_from_a_stick(
    device: TestDevice, releases: list[package.Package]
) -> None:
    """It cannot be rolled back, and while no parts come it cannot be confirmed: an import must be possible."""
    document = wanted(releases[0])
    step_until(device, document, S.PROBATION)
    rollback = give(device, OrderKind.ROLLBACK)
    device.runner.step(document)
    assert not answer(device, rollback).done
    device.reports.clear()
    brought = give(device, OrderKind.IMPORT, releases[1])
    device.runner.step(document)
    assert answer(device, brought).done
    first = [report for report in device.reports if report.deployment_id == deployment_id(1)]
    assert [(report.state, report.code) for report in first] == [(S.FAILED_REVERTED, "deployment.overruled")]
    assert device.activator.in_use == releases[0].digest, "the line goes on with it until the other one is in"
    assert "deployment.revert_failed" not in [name for name, _, _ in device.told], "nothing has failed"
    step_until(device, document, S.PROBATION)
    assert device.activator.in_use == releases[1].digest
    device.activator.judged(ok=20)
    device.clock.advance(601.0)
    device.run(document)
    assert device.states()[-1] is S.SUCCEEDED
    assert device.store.installed(MODEL).current == releases[1].digest


def test_an_import_in_probation_is_refused_with_advice_that_can_be_followed(
    device: TestDevice, releases: list[package.Package]
) -> None:
    on_releases(device, releases[:1])
    document = wanted(releases[1])
    step_until(device, document, S.PROBATION)
    brought = give(device, OrderKind.IMPORT, releases[2])
    device.runner.step(document)
    assert not answer(device, brought).done
    assert "lineside models rollback parts" in answer(device, brought).text
    rollback = give(device, OrderKind.ROLLBACK)
    device.run(document)
    assert answer(device, rollback).done


@pytest.mark.parametrize("state", [S.DOWNLOADING, S.VERIFYING, S.SELF_TESTING, S.STAGED])
def test_a_deployment_that_the_fleet_takes_back_ends_here_as_well(
    device: TestDevice, releases: list[package.Package], state: S
) -> None:
    on_releases(device, releases[:1])
    device.options = replace(device.options, rules=Rules(probation=SLOWLY, confirm=True))
    device.boot()
    step_until(device, wanted(releases[1]), state)
    device.run(NOTHING)
    attempt = device.journal.of(MODEL).attempt
    assert attempt is not None
    assert attempt.state is S.FAILED_NO_CHANGE
    assert attempt.fault is not None
    assert attempt.fault.code == "deployment.withdrawn"
    order = give(device, OrderKind.CONFIRM)
    device.runner.step(NOTHING)
    assert not answer(device, order).done, "nothing awaits a confirmation any more"
    assert not (device.store.root / "packages" / releases[1].digest).exists(), "its files are needed by nobody"
    check_reports([report for report in device.reports if report.deployment_id == deployment_id(2)])


def test_a_deployment_taken_back_for_one_that_ended_before_ends_here_as_well(
    device: TestDevice, releases: list[package.Package]
) -> None:
    on_releases(device, releases[:1])
    step_until(device, wanted(releases[1]), S.STAGED)
    device.run(wanted(releases[0]))
    attempt = device.journal.of(MODEL).attempt
    assert attempt is not None
    assert (attempt.deployment_id, attempt.state) == (deployment_id(2), S.FAILED_NO_CHANGE)
    assert device.activator.in_use == releases[0].digest


def test_while_the_desired_document_is_not_known_nothing_is_taken_back(
    device: TestDevice, releases: list[package.Package]
) -> None:
    on_releases(device, releases[:1])
    step_until(device, wanted(releases[1]), S.STAGED)
    device.boot()
    for _ in range(5):
        device.runner.step(None)
    attempt = device.journal.of(MODEL).attempt
    assert attempt is not None
    assert attempt.state is S.STAGED


def test_a_version_that_no_recipe_looks_with_says_so(device: TestDevice, releases: list[package.Package]) -> None:
    device.activator.outcomes = ["idle"] * 9
    device.run(wanted(releases[0]))
    end = device.reports[-1]
    assert (end.state, end.code) == (S.FAILED_NO_CHANGE, "deployment.activation_failed")
    assert "looks with parts" in end.reason
    assert device.activator.activated == [releases[0].digest], "trying again changes nothing"


def test_a_version_in_probation_that_no_recipe_looks_with_any_more_says_so(
    device: TestDevice, releases: list[package.Package]
) -> None:
    on_releases(device, releases[:1])
    document = wanted(releases[1])
    step_until(device, document, S.PROBATION)
    device.activator.in_use = None
    device.activator.outcomes = ["idle"]
    device.run(document)
    end = device.reports[-1]
    assert end.state is S.FAILED_REVERTED
    assert "looks with parts" in end.reason


def test_a_way_back_to_a_version_whose_index_is_damaged_is_repaired_by_the_fleet(
    device: TestDevice, releases: list[package.Package]
) -> None:
    on_releases(device, releases[:2])
    device.store.blob_path(releases[0].digest).write_bytes(b"damaged")
    order = give(device, OrderKind.ROLLBACK)
    device.run(wanted(releases[1]))
    assert answer(device, order).done
    assert device.reports[-1].state is S.SUCCEEDED, device.reports[-1].reason
    assert device.activator.in_use == releases[0].digest
    assert device.reports[-1].release == 1


def test_the_only_version_stays_the_one_loaded_at_each_start_when_its_repair_is_taken_back(
    device: TestDevice, releases: list[package.Package]
) -> None:
    on_releases(device, releases[:1])
    (device.store.root / "packages" / releases[0].digest / "model.onnx").write_bytes(b"damaged")
    device.boot()
    assert device.activator.in_use is None
    step_until(device, wanted(releases[0], 2), S.PROBATION)
    assert device.activator.in_use == releases[0].digest
    device.run(NOTHING)
    assert device.states()[-1] is S.FAILED_REVERTED
    assert device.store.installed(MODEL).current == releases[0].digest, "nothing would be loaded at the next start"
    device.boot()
    assert device.activator.in_use == releases[0].digest


def test_where_going_back_failed_a_person_can_have_it_tried_again(
    device: TestDevice, releases: list[package.Package]
) -> None:
    """The version at fault still judges parts: the one to bring back is `current`, and there may be no `previous`."""
    on_releases(device, releases[:1])
    document = wanted(releases[1])
    step_until(device, document, S.PROBATION)
    device.activator.outcomes = ["untouched"] * REVERT_TRIES
    device.activator.judged(inference_failed=40)
    device.run(document)
    assert device.states()[-1] is S.FAILED_REVERT_FAILED
    assert device.activator.in_use == releases[1].digest
    order = give(device, OrderKind.ROLLBACK, releases[0])
    device.run(document)
    assert answer(device, order).done, answer(device, order).text
    assert device.activator.in_use == releases[0].digest
    assert device.store.installed(MODEL).current == releases[0].digest
    assert device.states()[-1] is S.SUCCEEDED


def test_a_deployment_that_has_ended_here_is_not_begun_again_after_many_local_ones(
    device: TestDevice, releases: list[package.Package]
) -> None:
    """What the journal remembers is bounded: the device's own deployments must not push out what the fleet desires."""
    on_releases(device, releases[:2])
    document = wanted(releases[1])
    for _ in range(MAX_PAST + 2):
        order = give(device, OrderKind.ROLLBACK)
        device.run(document)
        assert answer(device, order).done
        assert device.reports[-1].deployment_id == order.id, "the version that was rolled back is begun again"
    assert len(device.journal.of(MODEL).past) == MAX_PAST
    check_reports(device.reports)
