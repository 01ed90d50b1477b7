"""Deployments asked for beside the machine: the way back, a version from a stick, and what they overrule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.deploy import bundle, bundle_search
from agent.deploy.orders import Answer, Order, OrderKind
from agent.deploy.outlook import Rules
from agent.deploy.pins import Pins
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
from wire.deployment import HoldReason, Origin
from wire.desired import Desired
from wire.errors import LinesideError

AWAY = "network.unreachable"
WAY = [S.DOWNLOADING, S.VERIFYING, S.SELF_TESTING, S.STAGED, S.ACTIVATING, S.PROBATION]
SLOWLY = ProbationLimits(parts=20, watch_s=600.0)


@pytest.fixture
def releases(tmp_path: Path) -> list[package.Package]:
    return [make_package(tmp_path / f"v{release}", release) for release in (1, 2, 3)]


@pytest.fixture
def device(tmp_path: Path, releases: list[package.Package]) -> TestDevice:
    """A device that runs release 2, after release 1."""
    fleet = MemoryFleet()
    for found in releases:
        fleet.publish(found)
    made = TestDevice(root=tmp_path / "device", fleet=fleet)
    made.options = replace(made.options, rules=Rules(probation=AT_ONCE))
    made.boot()
    made.run(wanted(releases[0]))
    made.run(wanted(releases[1]))
    made.earlier = list(made.reports)
    made.reports.clear()
    return made


def watched_for_long(device: TestDevice) -> None:
    """From now on a version stays in probation."""
    device.options = replace(device.options, rules=Rules(probation=SLOWLY))
    device.boot()


def give(device: TestDevice, kind: OrderKind, found: package.Package | None = None, number: int = 1) -> Order:
    order = Order(
        id=f"00000000-0000-7000-9000-{number:012d}",
        kind=kind,
        model=None if kind is OrderKind.COLLECT else MODEL,
        digest=found.digest if found is not None else None,
        release=found.manifest.release if found is not None else None,
        by="Kim",
        at=device.clock.now_utc(),
        reason="It misses scratches.",
    )
    device.orders.give(order)
    return order


def answer(device: TestDevice, order: Order) -> Answer:
    found = device.orders.answer_of(order.id)
    assert found is not None, "the order was not answered"
    assert device.orders.pending() == ()
    return found


def bring(device: TestDevice, found: package.Package) -> None:
    """Stage a version as `lineside import` does."""
    (only,), _ = bundle_search.search(found.folder)
    bundle.stage(only, device.root / "store")


def states_of(device: TestDevice, order: Order) -> list[S]:
    return [report.state for report in device.reports if report.deployment_id == order.id]


# Rollback


def test_a_rollback_brings_the_version_before_back_with_no_network_window_or_idle_line(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.fleet.faults = [AWAY] * 99
    device.fleet.fetched.clear()
    device.not_now = lambda: HoldReason.MAINTENANCE_WINDOW
    device.options = replace(device.options, rules=Rules(probation=SLOWLY, confirm=True))
    device.boot()
    order = give(device, OrderKind.ROLLBACK)
    device.run(wanted(releases[1]))
    assert answer(device, order).done
    assert states_of(device, order) == [*WAY, S.SUCCEEDED]
    end = device.reports[-1]
    assert (end.origin, end.by, end.release) == (Origin.DEVICE, "Kim", 1)
    assert end.inferring_digest == device.activator.in_use == releases[0].digest
    installed = device.store.installed(MODEL)
    assert (installed.current, installed.previous) == (releases[0].digest, releases[1].digest)
    assert device.fleet.fetched == []
    device.boot()
    device.run(wanted(releases[1]))
    assert device.activator.in_use == releases[0].digest, "what the fleet desires has ended here and is not redone"
    check_reports(device.earlier + device.reports)


def test_a_rollback_is_not_kept_out_by_a_recipe_that_the_version_before_does_not_allow(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.activator.narrow = {releases[0].digest}
    order = give(device, OrderKind.ROLLBACK)
    device.run(wanted(releases[1]))
    assert states_of(device, order) == [*WAY, S.SUCCEEDED]
    assert device.activator.in_use == releases[0].digest


def test_a_version_from_a_stick_is_kept_out_by_a_recipe_that_it_does_not_allow(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.activator.narrow = {releases[2].digest}
    bring(device, releases[2])
    order = give(device, OrderKind.IMPORT, releases[2])
    device.run(wanted(releases[1]))
    assert states_of(device, order)[-1] is S.FAILED_NO_CHANGE
    assert device.activator.in_use == releases[1].digest


def test_a_rollback_of_a_rollback_comes_forward_again(device: TestDevice, releases: list[package.Package]) -> None:
    give(device, OrderKind.ROLLBACK, number=1)
    device.run(wanted(releases[1]))
    give(device, OrderKind.ROLLBACK, number=2)
    device.run(wanted(releases[1]))
    assert device.activator.in_use == releases[1].digest


def test_a_rollback_in_probation_ends_it_and_goes_no_further_back_though_the_order_is_seen_twice(
    device: TestDevice, releases: list[package.Package]
) -> None:
    watched_for_long(device)
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.PROBATION
    order = give(device, OrderKind.ROLLBACK)
    answered = device.orders.answer

    def fail(*_: object, **__: object) -> None:
        raise LinesideError("storage.full", "The disk is full.")

    device.orders.answer = fail  # type: ignore[method-assign]
    with pytest.raises(LinesideError):
        device.runner.step(wanted(releases[2]))
    device.orders.answer = answered  # type: ignore[method-assign]
    device.boot(crashed=True)  # before the answer could be written
    assert device.activator.in_use == releases[1].digest
    device.run(wanted(releases[2]))
    assert answer(device, order).done
    assert device.states(3)[-1] is S.FAILED_REVERTED
    assert device.reports[-1].code == "deployment.rolled_back"
    assert "Kim" in device.reports[-1].reason
    assert "It misses scratches." in device.reports[-1].reason
    assert device.activator.in_use == device.store.installed(MODEL).current == releases[1].digest
    assert states_of(device, order) == [], "no deployment of its own"
    (device.root / "store" / "orders" / f"{order.id}.answer.json").unlink()
    device.orders.give(order)
    device.run(wanted(releases[2]))
    assert device.activator.in_use == releases[1].digest, "the same order once more goes no further back"
    check_reports(device.earlier + device.reports)


def test_a_rollback_answers_a_question_about_verdicts(device: TestDevice, releases: list[package.Package]) -> None:
    watched_for_long(device)
    device.activator.judged(ok=100)
    device.run(wanted(releases[2]))
    device.activator.judged(ng=60)
    device.run(wanted(releases[2]))
    assert device.reports[-1].hold is not None
    give(device, OrderKind.ROLLBACK)
    device.run(wanted(releases[2]))
    assert device.reports[-1].code == "deployment.rolled_back"
    assert device.reports[-1].hold is None


def test_where_there_is_nothing_to_go_back_to_a_rollback_is_refused_in_words(
    tmp_path: Path, releases: list[package.Package]
) -> None:
    fleet = MemoryFleet()
    fleet.publish(releases[0])
    device = TestDevice(root=tmp_path / "new", fleet=fleet)
    device.options = replace(device.options, rules=Rules(probation=SLOWLY))
    device.boot()
    for number in (1, 2):
        order = give(device, OrderKind.ROLLBACK, number=number)
        device.run(wanted(releases[0]))
        refused = answer(device, order)
        assert (refused.done, refused.code) == (False, "resource.not_found")
        assert "no former version" in refused.text
    assert device.states()[-1] is S.PROBATION


def test_a_rollback_to_a_version_other_than_the_one_that_was_shown_is_refused(
    device: TestDevice, releases: list[package.Package]
) -> None:
    order = give(device, OrderKind.ROLLBACK, releases[2])
    device.run(wanted(releases[1]))
    assert answer(device, order).code == "resource.conflict"
    assert device.activator.in_use == releases[1].digest


def test_a_version_that_was_rolled_back_to_and_ends_the_agent_is_left_for_the_one_before(
    device: TestDevice, releases: list[package.Package]
) -> None:
    order = give(device, OrderKind.ROLLBACK)
    while S.PROBATION not in states_of(device, order):
        device.runner.step(wanted(releases[1]))
    device.store.commit(MODEL, releases[0].digest)  # a kill right after this, before the journal says `succeeded`
    device.boot(crashed=True)
    assert device.activator.in_use == releases[1].digest
    device.run(wanted(releases[1]))
    assert states_of(device, order)[-1] is S.FAILED_REVERTED
    installed = device.store.installed(MODEL)
    assert (installed.current, installed.previous) == (releases[1].digest, releases[0].digest)


# Import


@pytest.mark.parametrize("document", ["known", "unknown"])
def test_a_version_from_a_stick_goes_the_same_way_with_no_network(
    device: TestDevice, releases: list[package.Package], document: str
) -> None:
    device.fleet.faults = [AWAY] * 99
    bring(device, releases[2])
    order = give(device, OrderKind.IMPORT, releases[2])
    desired = wanted(releases[1]) if document == "known" else None
    device.run(desired)  # type: ignore[arg-type]
    assert answer(device, order).done
    assert states_of(device, order) == [*WAY, S.SUCCEEDED]
    assert {report.origin for report in device.reports if report.deployment_id == order.id} == {Origin.DEVICE}
    assert device.activator.in_use == device.store.installed(MODEL).current == releases[2].digest
    assert device.runner.deployment_of(MODEL, releases[2].digest) == order.id
    assert not bundle.is_staged(device.root / "store", releases[2].digest), "what was staged has gone"
    device.run(wanted(releases[1]))
    assert device.activator.in_use == releases[2].digest
    check_reports(device.earlier + device.reports)


def test_an_import_outlives_a_restart_and_is_wanted_whatever_the_fleet_desires(
    device: TestDevice, releases: list[package.Package]
) -> None:
    watched_for_long(device)
    bring(device, releases[2])
    order = give(device, OrderKind.IMPORT, releases[2])
    device.run(wanted(releases[1]))
    assert states_of(device, order)[-1] is S.PROBATION
    device.boot()
    assert device.activator.in_use == releases[2].digest
    device.run(Desired(device="edge-1", revision=9))
    assert states_of(device, order)[-1] is S.PROBATION
    (under_way,) = device.runner.under_way()
    assert under_way.deployment_id == order.id
    device.activator.judged(ok=20)
    device.clock.advance(700.0)
    device.run(Desired(device="edge-1", revision=9))
    assert states_of(device, order)[-1] is S.SUCCEEDED


def test_an_import_overrules_what_is_on_its_way_and_that_is_not_begun_again(
    device: TestDevice, releases: list[package.Package]
) -> None:
    while S.VERIFYING not in device.states(3):
        device.runner.step(wanted(releases[2]))
    other = make_package(device.root.parent / "v9", 9)
    bring(device, other)
    order = give(device, OrderKind.IMPORT, other)
    device.run(wanted(releases[2]))
    overruled = next(report for report in device.reports if report.state is S.FAILED_NO_CHANGE)
    assert (overruled.deployment_id, overruled.code) == (deployment_id(3), "deployment.overruled")
    assert states_of(device, order)[-1] is S.SUCCEEDED
    assert device.activator.in_use == other.digest
    check_reports(device.earlier + device.reports)


def test_after_an_import_another_version_the_fleet_asks_for_is_deployed_as_ever(
    device: TestDevice, releases: list[package.Package]
) -> None:
    other = make_package(device.root.parent / "v9", 9)
    bring(device, other)
    give(device, OrderKind.IMPORT, other)
    device.run(wanted(releases[1]))
    device.run(wanted(releases[2]))
    assert device.activator.in_use == releases[2].digest
    assert device.states(3)[-1] is S.SUCCEEDED
    assert device.store.installed(MODEL).previous == other.digest


def test_an_import_while_a_version_is_in_probation_is_refused_in_words(
    device: TestDevice, releases: list[package.Package]
) -> None:
    watched_for_long(device)
    device.run(wanted(releases[2]))
    other = make_package(device.root.parent / "v9", 9)
    bring(device, other)
    order = give(device, OrderKind.IMPORT, other)
    device.run(wanted(releases[2]))
    refused = answer(device, order)
    assert (refused.done, refused.code) == (False, "resource.conflict")
    assert "roll it back first" in refused.text
    assert device.states(3)[-1] is S.PROBATION


def test_an_import_of_what_runs_says_so_and_touches_nothing(
    device: TestDevice, releases: list[package.Package]
) -> None:
    bring(device, releases[1])
    order = give(device, OrderKind.IMPORT, releases[1])
    activated = list(device.activator.activated)
    device.run(wanted(releases[1]))
    assert states_of(device, order) == [S.ALREADY_INSTALLED]
    assert device.activator.activated == activated


def test_an_order_that_is_seen_again_after_its_deployment_has_begun_is_only_answered(
    device: TestDevice, releases: list[package.Package]
) -> None:
    bring(device, releases[2])
    order = give(device, OrderKind.IMPORT, releases[2])
    device.run(wanted(releases[1]))
    (device.root / "store" / "orders" / f"{order.id}.answer.json").unlink()
    device.orders.give(order)  # as a kill between the journal and the answer leaves it
    begun = list(device.activator.activated)
    device.run(wanted(releases[1]))
    assert answer(device, order).done
    assert device.activator.activated == begun


# The other orders


def test_a_confirmation_that_nothing_awaits_is_refused(device: TestDevice, releases: list[package.Package]) -> None:
    order = give(device, OrderKind.CONFIRM)
    device.run(wanted(releases[1]))
    assert answer(device, order).code == "resource.conflict"


def test_what_is_pinned_is_not_collected_and_what_nothing_needs_is(
    device: TestDevice, releases: list[package.Package]
) -> None:
    Pins(device.root / "store").pin(releases[0].digest)
    device.run(wanted(releases[2]))
    assert device.store.package(releases[0].digest)
    Pins(device.root / "store").unpin(releases[0].digest)
    order = give(device, OrderKind.COLLECT)
    device.run(wanted(releases[2]))
    assert answer(device, order).done
    with pytest.raises(LinesideError):
        device.store.package(releases[0].digest)


def test_where_it_is_not_known_what_is_pinned_nothing_is_collected_and_deployments_go_on(
    device: TestDevice, releases: list[package.Package]
) -> None:
    (device.root / "store" / "pins.json").write_text("{")
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.SUCCEEDED
    assert device.store.package(releases[0].digest)
    order = give(device, OrderKind.COLLECT)
    device.run(wanted(releases[2]))
    assert answer(device, order).code == "storage.corrupt"


@pytest.mark.parametrize("kind", [OrderKind.ROLLBACK, OrderKind.CONFIRM, OrderKind.IMPORT])
def test_an_order_that_names_too_little_is_refused(
    device: TestDevice, releases: list[package.Package], kind: OrderKind
) -> None:
    order = replace(give(device, kind), model=None)
    device.orders.give(order)
    device.run(wanted(releases[1]))
    assert answer(device, order).code == "usage.invalid"


@pytest.mark.parametrize("until", [S.DOWNLOADING, S.SELF_TESTING, S.STAGED])
def test_a_rollback_overrules_what_is_on_its_way(device: TestDevice, releases: list[package.Package], until: S) -> None:
    while until not in device.states(3):
        device.runner.step(wanted(releases[2]))
    order = give(device, OrderKind.ROLLBACK)
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.FAILED_NO_CHANGE
    assert states_of(device, order)[-1] is S.SUCCEEDED
    assert device.activator.in_use == releases[0].digest
