"""Probation on real files: how a version passes, what takes it back with no network, and what a person is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from agent.deploy.facts import Limits
from agent.deploy.figures import Figures, looks_of
from agent.deploy.orders import Order, OrderKind
from agent.deploy.outlook import Rules
from agent.deploy.plan_swapped import REVERT_TRIES
from agent.deploy.probation import ProbationLimits
from agent.deploy.selftest import SelfTestResult
from agent.uplink.ending import Ending
from tests.support.deploying import AT_ONCE, MODEL, MemoryFleet, TestDevice, check_reports, make_package, wanted
from wire import package
from wire.deployment import DeploymentReport, HoldReason
from wire.deployment import DeploymentState as S
from wire.desired import Desired
from wire.errors import LinesideError
from wire.messages import Severity

AWAY = "network.unreachable"
HOUR_S = 3600.0
WAY = [S.DOWNLOADING, S.VERIFYING, S.SELF_TESTING, S.STAGED, S.ACTIVATING, S.PROBATION]
LIMITS = ProbationLimits(parts=20, watch_s=600.0, most_s=48 * HOUR_S)
BEFORE = {"verdicts": {"OK": 950, "NG": 50}, "looks": looks_of([10.0] * 1000), "rss_mb": 200.0}


@pytest.fixture
def releases(tmp_path: Path) -> list[package.Package]:
    return [make_package(tmp_path / f"v{release}", release) for release in (1, 2, 3)]


@pytest.fixture
def device(tmp_path: Path, releases: list[package.Package]) -> TestDevice:
    """A device that has judged a thousand parts with release 1; from now on versions must prove themselves."""
    made = fresh(tmp_path, releases)
    made.options = replace(made.options, rules=Rules(probation=AT_ONCE))
    made.boot()
    made.run(wanted(releases[0]))
    made.options = replace(made.options, rules=Rules(probation=LIMITS))
    made.boot()
    made.activator.lately = Figures(digest=releases[0].digest, **BEFORE)  # type: ignore[arg-type]
    made.run(wanted(releases[0]))
    made.earlier = list(made.reports)
    made.reports.clear()
    made.told.clear()
    return made


def fresh(tmp_path: Path, releases: list[package.Package]) -> TestDevice:
    fleet = MemoryFleet()
    for found in releases:
        fleet.publish(found)
    made = TestDevice(root=tmp_path / "device", fleet=fleet)
    made.options = replace(made.options, rules=Rules(probation=LIMITS))
    made.boot()
    return made


def to_probation(device: TestDevice, document: Desired) -> None:
    while S.PROBATION not in device.states():
        device.runner.step(document)
    device.fleet.faults = [AWAY] * 99  # from here on nothing may need the network


def pass_time(device: TestDevice, document: Desired | None, seconds: float) -> None:
    for _ in range(int(seconds / 10.0)):
        device.clock.advance(10.0)
        while device.runner.step(document):
            pass


def loaded_at_the_next_start(device: TestDevice) -> list[str]:
    return [found.digest for found in device.runner.boot_choices(MODEL)]


def order(device: TestDevice, kind: OrderKind, number: int = 1) -> str:
    made = Order(
        id=f"00000000-0000-7000-9000-{number:012d}", kind=kind, model=MODEL, by="Kim", at=device.clock.now_utc()
    )
    device.orders.give(made)
    return made.id


def test_a_version_passes_when_it_has_judged_enough_parts_for_long_enough(
    device: TestDevice, releases: list[package.Package]
) -> None:
    to_probation(device, wanted(releases[1]))
    device.activator.judged(ok=19)
    pass_time(device, wanted(releases[1]), 1200.0)
    assert device.states() == WAY, "a part is missing"
    assert device.store.installed(MODEL).current == releases[0].digest, "until its end the version before is current"
    device.activator.judged(ok=1)
    pass_time(device, wanted(releases[1]), 10.0)
    assert device.states() == [*WAY, S.SUCCEEDED]
    end = device.reports[-1]
    assert end.inferring_digest == end.digest == device.store.installed(MODEL).current == releases[1].digest
    assert end.probation is not None
    assert (end.probation.parts, end.probation.parts_needed) == (20, 20)
    assert end.release == 2
    assert device.store.installed(MODEL).previous == releases[0].digest
    check_reports(device.earlier + device.reports)


def test_enough_parts_in_a_moment_are_not_enough(device: TestDevice, releases: list[package.Package]) -> None:
    to_probation(device, wanted(releases[1]))
    device.activator.judged(ok=100)
    pass_time(device, wanted(releases[1]), 590.0)
    assert device.states() == WAY
    pass_time(device, wanted(releases[1]), 20.0)
    assert device.states()[-1] is S.SUCCEEDED


def no_verdicts(device: TestDevice) -> None:
    device.activator.judged(ok=20, inference_failed=20)


def too_slow(device: TestDevice) -> None:
    assert device.activator.in_use is not None
    slow = Figures(digest=device.activator.in_use, verdicts={"OK": 200}, looks=looks_of([100.0] * 200))
    device.activator.since_boot[slow.digest] = slow


def grown(device: TestDevice) -> None:
    assert device.activator.in_use is not None
    seen = Figures(digest=device.activator.in_use, verdicts={"OK": 200}, grew_mb=300.0, rss_mb=500.0)
    device.activator.since_boot[seen.digest] = seen


def too_big(device: TestDevice) -> None:
    assert device.activator.in_use is not None
    seen = Figures(digest=device.activator.in_use, verdicts={"OK": 200}, rss_mb=5000.0)
    device.activator.since_boot[seen.digest] = seen


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (no_verdicts, "deployment.no_verdicts"),
        (too_slow, "deployment.too_slow"),
        (grown, "deployment.grew"),
        (too_big, "deployment.grew"),
    ],
)
def test_an_operational_fault_takes_a_version_back_with_no_network(
    device: TestDevice, releases: list[package.Package], fault: Callable[[TestDevice], None], code: str
) -> None:
    to_probation(device, wanted(releases[1]))
    fault(device)
    device.run(wanted(releases[1]))
    assert device.states() == [*WAY, S.FAILED_REVERTED]
    assert device.reports[-1].code == code
    assert device.reports[-1].inferring_digest == device.activator.in_use == releases[0].digest
    assert device.reports[-1].probation is not None
    assert device.reports[-1].probation.parts > 0
    assert device.store.installed(MODEL).current == releases[0].digest
    assert [(name, severity) for name, severity, _ in device.told] == [("deployment.reverted", Severity.WARNING)]
    check_reports(device.earlier + device.reports)


def test_after_a_restart_memory_is_not_compared_with_that_of_the_process_before(
    device: TestDevice, releases: list[package.Package]
) -> None:
    """Another model may have come since the swap, and the agent has loaded it at its start."""
    document = wanted(releases[1])
    to_probation(device, document)
    device.boot()
    too_big(device)
    pass_time(device, document, LIMITS.watch_s + 60.0)
    assert device.states()[-1] is S.SUCCEEDED


def test_a_recipe_that_the_former_version_does_not_allow_is_not_in_the_way_back(
    device: TestDevice, releases: list[package.Package]
) -> None:
    to_probation(device, wanted(releases[1]))
    device.activator.narrow = {releases[0].digest}
    no_verdicts(device)
    device.run(wanted(releases[1]))
    assert device.states() == [*WAY, S.FAILED_REVERTED]
    assert device.reports[-1].code == "deployment.no_verdicts"
    assert device.activator.in_use == releases[0].digest
    check_reports(device.earlier + device.reports)


@pytest.mark.parametrize("outcome", ["untouched", "broken", "idle"])
def test_going_back_is_tried_again_after_a_pause_for_what_was_in_its_way_may_pass(
    device: TestDevice, releases: list[package.Package], outcome: str
) -> None:
    document = wanted(releases[1])
    to_probation(device, document)
    no_verdicts(device)
    device.activator.outcomes = [outcome] * (REVERT_TRIES - 1)
    tried = len(device.activator.activated)
    while device.runner.step(document):
        pass
    assert device.activator.activated[tried:] == [releases[0].digest], "a pause follows"
    assert device.states() == WAY
    device.run(document)
    assert device.states() == [*WAY, S.FAILED_REVERTED]
    assert device.reports[-1].code == "deployment.no_verdicts"
    assert "Going back" not in device.reports[-1].reason
    assert device.activator.activated[tried:] == [releases[0].digest] * REVERT_TRIES
    assert device.activator.in_use == device.store.installed(MODEL).current == releases[0].digest
    check_reports(device.earlier + device.reports)


@pytest.mark.parametrize("outcomes", [["broken"] * REVERT_TRIES, ["idle"] * REVERT_TRIES])
def test_where_going_back_fails_as_well_that_is_said_and_the_next_start_loads_the_version_before(
    device: TestDevice, releases: list[package.Package], outcomes: list[str]
) -> None:
    to_probation(device, wanted(releases[1]))
    no_verdicts(device)
    device.activator.outcomes = outcomes
    device.run(wanted(releases[1]))
    assert device.states() == [*WAY, S.FAILED_REVERT_FAILED]
    assert device.reports[-1].code == "deployment.revert_failed"
    assert device.reports[-1].attempt == REVERT_TRIES
    assert device.told[-1][:2] == ("deployment.revert_failed", Severity.ALARM)
    device.boot(crashed=True)
    assert device.activator.in_use == releases[0].digest
    check_reports(device.earlier + device.reports)


def test_too_few_parts_in_all_the_time_are_no_success(device: TestDevice, releases: list[package.Package]) -> None:
    to_probation(device, wanted(releases[1]))
    device.activator.judged(ok=19)
    for _ in range(50):
        device.clock.advance(HOUR_S)
        device.runner.step(wanted(releases[1]))
    device.run(wanted(releases[1]))
    assert device.states() == [*WAY, S.FAILED_REVERTED]
    assert device.reports[-1].code == "deployment.unproven"


def test_a_crash_in_probation_takes_the_version_back_before_it_is_loaded_again(
    device: TestDevice, releases: list[package.Package]
) -> None:
    to_probation(device, wanted(releases[1]))
    device.activator.judged(ok=50)
    device.boot(crashed=True)
    assert device.activator.in_use == releases[0].digest, "the version that ended the agent is not loaded"
    device.run(None)  # type: ignore[arg-type]
    assert device.states() == [*WAY, S.PROBATION, S.FAILED_REVERTED], "the last word is made again after a start"
    assert device.reports[-1].code == "deployment.crashed"
    assert device.activator.in_use == releases[0].digest
    check_reports(device.earlier + device.reports)
    device.run(wanted(releases[1]))
    assert device.states()[-1] is S.FAILED_REVERTED, "it is not begun again"


def test_a_first_version_that_ends_the_agent_is_loaded_no_more_and_its_repair_can_be_deployed(
    tmp_path: Path, releases: list[package.Package]
) -> None:
    device = fresh(tmp_path, releases)
    to_probation(device, wanted(releases[0]))
    for _ in range(3):
        device.boot(crashed=True)
        assert device.activator.in_use is None
    device.run(wanted(releases[0]))
    assert device.states()[-1] is S.FAILED_REVERTED
    assert device.reports[-1].code == "deployment.crashed"
    assert device.reports[-1].inferring_digest is None
    assert device.told[-1][:2] == ("deployment.revert_failed", Severity.ALARM)
    device.fleet.faults.clear()
    device.run(wanted(releases[1]))
    assert device.activator.in_use == releases[1].digest
    check_reports(device.reports)


def test_an_orderly_stop_and_a_power_cut_take_nothing_back_and_forget_little(
    device: TestDevice, releases: list[package.Package]
) -> None:
    to_probation(device, wanted(releases[1]))
    device.activator.judged(ok=15)
    pass_time(device, wanted(releases[1]), 100.0)
    device.boot()
    assert device.activator.in_use == releases[1].digest, "the version in probation is loaded first"
    assert device.store.installed(MODEL).current == releases[0].digest
    device.activator.judged(ok=5)
    pass_time(device, wanted(releases[1]), 100.0)
    (under_way,) = device.runner.under_way()
    assert under_way.told is not None
    assert under_way.told.parts == 20
    pass_time(device, wanted(releases[1]), 400.0)
    assert device.states()[-1] is S.SUCCEEDED
    assert device.reports[-1].probation is not None
    assert device.reports[-1].probation.parts == 20
    check_reports(device.earlier + device.reports)


def test_a_version_that_takes_the_machine_down_three_times_in_a_row_is_taken_back_as_after_a_crash(
    device: TestDevice, releases: list[package.Package]
) -> None:
    document = wanted(releases[1])
    to_probation(device, document)
    device.activator.judged(ok=2)
    for _ in range(2):
        pass_time(device, document, 500.0)
        device.boot(ended=Ending.POWER_CUT)
        assert device.activator.in_use == releases[1].digest, "two power cuts are weather"
    pass_time(device, document, 10.0)
    device.boot(ended=Ending.POWER_CUT)
    assert device.activator.in_use == releases[0].digest, "what takes the machine down is not loaded"
    device.run(document)
    assert device.states()[-1] is S.FAILED_REVERTED
    assert device.reports[-1].code == "deployment.crashed"
    assert device.reports[-1].reason.startswith("The machine went down 3 times in a row, each time within 10 minutes ")
    assert device.activator.in_use == device.store.installed(MODEL).current == releases[0].digest
    check_reports(device.earlier + device.reports)


def run_for_long(device: TestDevice, document: Desired) -> None:
    pass_time(device, document, 700.0)
    device.boot(ended=Ending.POWER_CUT)


def run_for_long_while_a_person_is_asked(device: TestDevice, document: Desired) -> None:
    device.activator.judged(ok=30, ng=30)
    run_for_long(device, document)


def stop_in_good_order(device: TestDevice, _document: Desired) -> None:
    device.boot(ended=Ending.CLEAN)


@pytest.mark.parametrize("meanwhile", [run_for_long, run_for_long_while_a_person_is_asked, stop_in_good_order])
def test_power_cuts_with_a_longer_run_or_an_orderly_stop_between_them_take_nothing_back(
    device: TestDevice, releases: list[package.Package], meanwhile: Callable[[TestDevice, Desired], None]
) -> None:
    document = wanted(releases[1])
    to_probation(device, document)
    for _ in range(4):
        for _ in range(2):
            pass_time(device, document, 10.0)
            device.boot(ended=Ending.POWER_CUT)
        meanwhile(device, document)
        assert device.activator.in_use == releases[1].digest
        assert device.states()[-1] is S.PROBATION


def test_a_first_version_that_takes_the_machine_down_is_loaded_no_more(
    tmp_path: Path, releases: list[package.Package]
) -> None:
    device = fresh(tmp_path, releases)
    to_probation(device, wanted(releases[0]))
    for _ in range(2):
        device.boot(ended=Ending.POWER_CUT)
        assert device.activator.in_use == releases[0].digest
    device.boot(ended=Ending.POWER_CUT)
    assert device.activator.in_use is None
    device.run(wanted(releases[0]))
    assert device.states()[-1] is S.FAILED_REVERTED
    assert device.reports[-1].code == "deployment.crashed"


def test_a_version_that_cannot_be_loaded_again_is_taken_back(
    device: TestDevice, releases: list[package.Package]
) -> None:
    to_probation(device, wanted(releases[1]))
    device.store.package(releases[1].digest).model_path.write_bytes(b"something else")
    device.boot()
    assert device.activator.in_use == releases[0].digest
    device.run(wanted(releases[1]))
    assert device.states()[-1] is S.FAILED_REVERTED
    assert device.reports[-1].code == "deployment.activation_failed"


@pytest.mark.parametrize("document", ["nothing", "another version"])
def test_a_version_that_is_no_longer_wanted_is_taken_back_first(
    device: TestDevice, releases: list[package.Package], document: str
) -> None:
    to_probation(device, wanted(releases[1]))
    device.activator.judged(ok=10)
    device.fleet.faults.clear()
    now = wanted(releases[2]) if document == "another version" else Desired(device="edge-1", revision=2)
    device.run(now)
    assert device.states(2) == [*WAY, S.FAILED_REVERTED]
    reverted = next(report for report in device.reports if report.state is S.FAILED_REVERTED)
    assert reverted.code == "deployment.withdrawn"
    assert reverted.inferring_digest == releases[0].digest
    if document == "another version":
        assert device.states(3) == WAY
        assert device.journal.of(MODEL).attempt.former == releases[0].digest  # type: ignore[union-attr]
    assert device.store.installed(MODEL).current == releases[0].digest
    check_reports(device.earlier + device.reports)


def test_while_the_desired_document_is_not_known_probation_goes_on(
    device: TestDevice, releases: list[package.Package]
) -> None:
    to_probation(device, wanted(releases[1]))
    device.boot()
    device.activator.judged(ok=20)
    pass_time(device, None, 700.0)
    assert device.states()[-1] is S.SUCCEEDED


def shifted(device: TestDevice, document: Desired) -> DeploymentReport:
    to_probation(device, document)
    device.activator.judged(ok=30, ng=30)
    device.run(document)
    return device.reports[-1]


def test_another_mix_of_verdicts_alarms_and_waits_for_a_person_who_may_confirm_it(
    device: TestDevice, releases: list[package.Package]
) -> None:
    held = shifted(device, wanted(releases[1]))
    assert held.state is S.PROBATION
    assert held.hold is not None
    assert held.hold.reason is HoldReason.AWAITING_CONFIRMATION
    assert "NG 30 of 60" in held.hold.text
    assert "lineside models confirm parts" in held.hold.text
    assert "lineside models rollback parts" in held.hold.text
    assert held.probation is not None
    assert "NG 30 of 60" in held.probation.shift
    assert [one[:2] for one in device.told] == [("deployment.shifted", Severity.ALARM)]
    assert device.activator.in_use == releases[1].digest, "it goes on judging"
    pass_time(device, wanted(releases[1]), HOUR_S)
    assert device.states()[-1] is S.PROBATION
    (waiting,) = device.runner.under_way()
    assert waiting.watched_s < LIMITS.watch_s, "the time of a hold is not the time of probation"
    asked = order(device, OrderKind.CONFIRM)
    device.runner.step(wanted(releases[1]))
    answer = device.orders.answer_of(asked)
    assert answer is not None
    assert answer.done
    assert device.reports[-1].hold is None
    device.activator.judged(ng=40)
    pass_time(device, wanted(releases[1]), 700.0)
    assert device.states()[-1] is S.SUCCEEDED, "it is not asked about again"
    check_reports(device.earlier + device.reports)


def test_a_question_that_nobody_answers_takes_the_version_back_at_its_deadline(
    device: TestDevice, releases: list[package.Package]
) -> None:
    held = shifted(device, wanted(releases[1]))
    assert held.hold is not None
    device.boot()  # a start in between changes nothing
    device.activator.judged(ok=5)
    for _ in range(8 * 24):
        device.clock.advance(HOUR_S)
        device.runner.step(wanted(releases[1]))
    device.run(wanted(releases[1]))
    assert device.states()[-1] is S.FAILED_REVERTED
    assert device.reports[-1].code == "deployment.hold_expired"
    assert abs((device.reports[-1].at - held.hold.deadline).total_seconds()) <= 2 * HOUR_S
    assert device.activator.in_use == releases[0].digest
    check_reports(device.earlier + device.reports)


def test_a_fault_while_a_person_is_asked_takes_the_version_back_at_once(
    device: TestDevice, releases: list[package.Package]
) -> None:
    shifted(device, wanted(releases[1]))
    device.activator.judged(inference_failed=40)
    device.run(wanted(releases[1]))
    assert device.reports[-1].code == "deployment.no_verdicts"


def test_a_faulty_first_version_is_asked_about_since_there_is_nothing_to_go_back_to(
    tmp_path: Path, releases: list[package.Package]
) -> None:
    device = fresh(tmp_path, releases)
    to_probation(device, wanted(releases[0]))
    no_verdicts(device)
    device.run(wanted(releases[0]))
    hold = device.reports[-1].hold
    assert hold is not None
    assert "no former version" in hold.text
    assert device.activator.in_use == releases[0].digest
    order(device, OrderKind.CONFIRM)
    device.run(wanted(releases[0]))
    assert device.states()[-1] is S.SUCCEEDED
    check_reports(device.reports)


def test_nothing_that_probation_may_need_is_collected(device: TestDevice, releases: list[package.Package]) -> None:
    to_probation(device, wanted(releases[1]))
    asked = order(device, OrderKind.COLLECT)
    device.runner.step(wanted(releases[1]))
    answer = device.orders.answer_of(asked)
    assert answer is not None
    assert answer.done
    assert device.store.package(releases[0].digest)
    assert device.store.package(releases[1].digest)


# Before the swap


def test_where_each_swap_is_confirmed_it_waits_for_a_person_and_that_word_is_not_one_on_its_verdicts(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.options = replace(device.options, rules=Rules(probation=LIMITS, confirm=True))
    device.boot()
    device.activator.lately = Figures(digest=releases[0].digest, **BEFORE)  # type: ignore[arg-type]
    device.run(wanted(releases[1]))
    assert device.states(2) == [*WAY[:4], S.STAGED]
    hold = device.reports[-1].hold
    assert hold is not None
    assert hold.reason is HoldReason.AWAITING_CONFIRMATION
    assert "lineside models confirm parts" in hold.text
    assert device.told[-1][:2] == ("deployment.awaits_confirmation", Severity.WARNING)
    order(device, OrderKind.CONFIRM)
    device.run(wanted(releases[1]))
    assert device.states(2)[5:] == [S.STAGED, S.ACTIVATING, S.PROBATION]
    device.activator.judged(ok=30, ng=30)
    device.run(wanted(releases[1]))
    assert device.reports[-1].hold is not None, "a shift is a question of its own"
    check_reports(device.earlier + device.reports)


def test_where_memory_has_no_room_for_both_the_gap_is_told_and_taken_only_after_a_persons_word(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.tester = lambda _package, _go_on: SelfTestResult(ok=True, memory_mb=300.0, load_ms=2000.0)
    device.available_mb = lambda: 250.0
    device.boot()
    device.run(wanted(releases[1]))
    hold = device.reports[-1].hold
    assert hold is not None
    assert hold.reason is HoldReason.AWAITING_CONFIRMATION
    assert "without verdicts for about 3.2 s" in hold.text
    order(device, OrderKind.CONFIRM)
    device.activator.exclusively.clear()
    device.run(wanted(releases[1]))
    assert device.states()[-1] is S.PROBATION
    assert device.activator.exclusively == [True]
    device.activator.judged(ok=20, inference_failed=20)
    device.run(wanted(releases[1]))
    assert device.states()[-1] is S.FAILED_REVERTED
    assert device.activator.exclusively == [True, True], "the way back has no more room"


def test_where_memory_has_no_room_for_both_and_there_are_windows_it_waits_for_one(
    device: TestDevice, releases: list[package.Package]
) -> None:
    why: list[HoldReason | None] = [HoldReason.MAINTENANCE_WINDOW]
    device.tester = lambda _package, _go_on: SelfTestResult(ok=True, memory_mb=300.0, load_ms=2000.0)
    device.available_mb = lambda: 250.0
    device.not_now = lambda: why[0]
    device.options = replace(device.options, rules=Rules(probation=LIMITS, has_windows=True))
    device.boot()
    device.run(wanted(releases[1]))
    hold = device.reports[-1].hold
    assert hold is not None
    assert hold.reason is HoldReason.MAINTENANCE_WINDOW
    assert "without verdicts for about 3.2 s" in hold.text
    why[0] = None
    device.run(wanted(releases[1]))
    assert device.states()[-1] is S.PROBATION
    assert device.activator.exclusively[-1] is True


def test_the_hold_of_a_swap_and_the_question_in_probation_have_a_time_each(
    device: TestDevice, releases: list[package.Package]
) -> None:
    rules = Rules(probation=LIMITS, confirm=True, limits=Limits(awaiting_confirmation_s=2 * HOUR_S))
    device.options = replace(device.options, rules=rules)
    device.boot()
    device.activator.lately = Figures(digest=releases[0].digest, **BEFORE)  # type: ignore[arg-type]
    device.run(wanted(releases[1]))
    pass_time(device, wanted(releases[1]), 1.5 * HOUR_S)
    order(device, OrderKind.CONFIRM)
    device.run(wanted(releases[1]))
    device.activator.judged(ok=30, ng=30)
    device.run(wanted(releases[1]))
    pass_time(device, wanted(releases[1]), HOUR_S)
    assert device.states()[-1] is S.PROBATION
    assert device.reports[-1].hold is not None


# What an earlier version of the agent has left


def test_the_journal_of_an_earlier_version_of_the_agent_is_read_and_its_activation_ends_in_probation(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.activator.outcomes = ["idle"]
    while S.ACTIVATING not in device.states():
        device.runner.step(wanted(releases[1]))
    path = device.root / "journal" / f"{MODEL}.json"
    journal = msgspec.json.decode(path.read_bytes())
    new = {
        "origin",
        "by",
        "urgent",
        "order",
        "exclusive",
        "tested",
        "baseline",
        "evidence",
        "watched_s",
        "since_start_s",
        "machine_downs",
        "confirmed",
        "begun",
    }
    journal["attempt"] = {key: value for key, value in journal["attempt"].items() if key not in {*new, "told"}}
    path.write_bytes(msgspec.json.encode(journal))
    device.reports[:] = [replace(one, tested=None) for one in device.reports]  # of which it told nothing
    device.store.commit(MODEL, releases[1].digest)  # which it did before it was sure
    device.boot()
    device.activator.judged(ok=20)
    pass_time(device, wanted(releases[1]), 10.0)
    assert device.states()[-1] is S.PROBATION
    no_verdicts(device)
    device.run(wanted(releases[1]))
    assert device.states()[-1] is S.FAILED_REVERTED
    assert device.store.installed(MODEL).current == device.activator.in_use == releases[0].digest
    check_reports(device.earlier + device.reports)


def told_parts(device: TestDevice) -> list[int]:
    return [one.probation.parts for one in device.reports if one.probation is not None and one.state is S.PROBATION]


def test_the_fleet_is_told_how_far_probation_is_a_tenth_at_a_time_and_once_a_minute_at_most(
    device: TestDevice, releases: list[package.Package]
) -> None:
    document = wanted(releases[1])
    to_probation(device, document)
    assert told_parts(device) == [0]
    device.activator.judged(ok=1)
    pass_time(device, document, 130.0)
    assert told_parts(device) == [0], "less than a tenth of twenty parts"
    device.activator.judged(ok=6)
    pass_time(device, document, 130.0)
    assert told_parts(device) == [0, 7]
    for _ in range(6):
        device.activator.judged(ok=2)
        pass_time(device, document, 10.0)
    assert len(told_parts(device)) == 3, "once in this minute"
    device.activator.judged(ok=57, ng=3)
    pass_time(device, document, 130.0)
    said = told_parts(device)
    device.activator.judged(ok=57, ng=3)
    pass_time(device, document, 60.0)
    assert told_parts(device) == said, "it has all its parts, and waits for its time"
    pass_time(device, document, 300.0)
    assert device.states() == [*WAY, S.SUCCEEDED]
    check_reports(device.earlier + device.reports)


def test_how_far_probation_is_stands_in_the_journal_before_it_is_told_and_is_told_again_after_a_kill(
    device: TestDevice, releases: list[package.Package]
) -> None:
    document = wanted(releases[1])
    to_probation(device, document)
    offered: list[DeploymentReport] = []

    def refuse(report: DeploymentReport) -> None:
        offered.append(report)
        if report.probation is None or not report.probation.parts:
            return
        raise LinesideError("storage.full", "The outbox is full.")

    device.take = refuse
    device.boot()
    device.activator.judged(ok=7)
    for _ in range(8):
        device.clock.advance(10.0)
        with contextlib.suppress(LinesideError):
            device.runner.step(document)
    taken: list[DeploymentReport] = []
    device.take = taken.append
    device.boot()
    device.runner.step(document)
    assert [one.probation.parts for one in taken if one.probation is not None] == [7]
    assert taken[0] == offered[-1], "the same in every byte"
    device.activator.judged(ok=7)
    for _ in range(8):
        device.clock.advance(10.0)
        device.runner.step(document)
    assert [one.probation.parts for one in taken if one.probation is not None] == [7, 14]
    check_reports(device.earlier + device.reports + taken)


def test_what_the_self_test_measured_is_reported_from_staged_on(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.tester = lambda _package, _go_on: SelfTestResult(ok=True, latency_p95_ms=4.5, memory_mb=80.0, load_ms=210.0)
    device.boot()
    to_probation(device, wanted(releases[1]))
    reports = {one.state: one for one in device.reports}
    assert reports[S.SELF_TESTING].tested is None
    for state in (S.STAGED, S.ACTIVATING, S.PROBATION):
        tested = reports[state].tested
        assert tested is not None
        assert (tested.latency_p95_ms, tested.memory_mb, tested.load_ms) == (4.5, 80.0, 210.0)


def test_a_report_tells_how_often_the_work_before_it_was_begun(
    device: TestDevice, releases: list[package.Package]
) -> None:
    def killed(_package: package.Package, _go_on: Callable[[], bool]) -> SelfTestResult:
        raise SystemExit

    device.tester = killed
    for _ in range(2):
        device.boot()
        with pytest.raises(SystemExit):
            device.run(wanted(releases[1]))
    device.boot()
    device.run(wanted(releases[1]))
    end = device.reports[-1]
    assert (end.state, end.code, end.attempt) == (S.FAILED_NO_CHANGE, "deployment.attempts_exhausted", 2)
