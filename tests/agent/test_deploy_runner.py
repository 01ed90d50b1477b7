"""The runner on real files: how each deployment ends, edge by edge of the transition table."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.deploy import plan_holds
from agent.deploy.facts import Limits
from agent.deploy.outlook import Rules
from agent.deploy.probation import ProbationLimits
from agent.deploy.selftest import SelfTestResult
from tests.support.deploying import (
    FakeActivator,
    MemoryFleet,
    TestDevice,
    check_reports,
    deployment_id,
    make_package,
    wanted,
)
from wire import codec, deployment, package
from wire.deployment import DeploymentState as S
from wire.deployment import HoldReason
from wire.errors import REGISTER, LinesideError

DOWN = "deployment.download_failed"
AWAY = "network.unreachable"
HOUR_S = 3600.0
WAY = [S.DOWNLOADING, S.VERIFYING, S.SELF_TESTING, S.STAGED, S.ACTIVATING]
TO_ITS_END = [S.PROBATION, S.SUCCEEDED]


def answers(code: str) -> Callable[..., SelfTestResult]:
    return lambda _package, _go_on: SelfTestResult(ok=False, code=code, reason="Injected.")


@pytest.fixture
def releases(tmp_path: Path) -> list[package.Package]:
    return [make_package(tmp_path / f"v{release}", release) for release in (1, 2, 3, 4)]


@pytest.fixture
def device(tmp_path: Path, releases: list[package.Package]) -> TestDevice:
    """A device that runs release 1; its reports are those that follow."""
    fleet = MemoryFleet()
    for found in releases:
        fleet.publish(found)
    made = TestDevice(root=tmp_path / "device", fleet=fleet)
    made.boot()
    made.run(wanted(releases[0]))
    assert made.states() == [*WAY, *TO_ITS_END]
    made.earlier = list(made.reports)
    made.reports.clear()
    return made


# name: (faults of the fleet, outcomes of the activator, answer of the self-test, states reported, code of the end)
ENDINGS: dict[str, tuple[list[str], list[str], str, list[S], str]] = {
    "all goes well": ([], [], "", [*WAY, *TO_ITS_END], ""),
    "the network fails and comes back": ([DOWN] * 9, [], "", [*WAY, *TO_ITS_END], ""),
    "the network fails for good": ([DOWN] * 99, [], "", [S.DOWNLOADING, S.FAILED_NO_CHANGE], DOWN),
    "a blob is not there": (
        ["", "", *["resource.not_found"] * 99],
        [],
        "",
        [S.DOWNLOADING, S.FAILED_NO_CHANGE],
        "resource.not_found",
    ),
    "other bytes once": (["", "deployment.digest_mismatch"], [], "", [*WAY, *TO_ITS_END], ""),
    "other bytes twice": (
        ["", "deployment.digest_mismatch", "deployment.digest_mismatch"],
        [],
        "",
        [S.DOWNLOADING, S.REFUSED],
        "deployment.digest_mismatch",
    ),
    "the self-test sees other things": (
        [],
        [],
        "model.golden_mismatch",
        [*WAY[:3], S.REFUSED],
        "model.golden_mismatch",
    ),
    "the self-test crashes": ([], [], "model.crashed", [*WAY[:3], S.FAILED_NO_CHANGE], "model.crashed"),
    "the session cannot be built": ([], ["untouched"], "", [*WAY, S.FAILED_NO_CHANGE], "deployment.activation_failed"),
    "the swap leaves nothing": ([], ["broken"], "", [*WAY, S.FAILED_REVERTED], "deployment.activation_failed"),
    "the session holds another version": ([], ["other"], "", [*WAY, S.FAILED_REVERTED], "deployment.activation_failed"),
    "the swap never comes": ([], ["idle"] * 9, "", [*WAY, S.FAILED_REVERTED], "deployment.attempts_exhausted"),
    "neither version runs": ([], ["broken"] * 9, "", [*WAY, S.FAILED_REVERT_FAILED], "deployment.revert_failed"),
    "the old version never comes back": (
        [],
        ["other", *["idle"] * 9],
        "",
        [*WAY, S.FAILED_REVERT_FAILED],
        "deployment.revert_failed",
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_each_ending_is_the_documented_one(name: str, device: TestDevice, releases: list[package.Package]) -> None:
    faults, outcomes, answer, states, code = ENDINGS[name]
    device.fleet.faults, device.activator.outcomes = list(faults), list(outcomes)
    if answer:
        device.tester = answers(answer)
        device.boot()
    device.run(wanted(releases[1]))
    assert device.states(2) == states
    end = device.reports[-1]
    assert end.code == code
    assert code == "" or (code in REGISTER and end.reason)
    assert end.inferring_digest == device.activator.in_use
    expected = releases[1] if end.state is S.SUCCEEDED else releases[0]
    assert device.store.installed("parts").current == expected.digest
    check_reports(device.earlier + device.reports)
    before = list(device.reports)
    device.run(wanted(releases[1]))
    assert device.reports == before, "a deployment that has ended is not begun again"


def test_the_scenarios_take_every_edge_the_device_owns() -> None:
    """Edges of the table that need a floor come with it; they are named here."""
    taken = set()
    for _, _, _, states, _ in ENDINGS.values():
        taken.update(itertools.pairwise([S.QUEUED, *states]))
    elsewhere = {
        (S.QUEUED, S.ALREADY_INSTALLED),  # test_asking_for_what_is_active_...
        (S.VERIFYING, S.DOWNLOADING),  # test_bytes_damaged_on_disk_...
        (S.VERIFYING, S.REFUSED),  # test_a_version_that_is_at_fault_...
        (S.VERIFYING, S.FAILED_NO_CHANGE),  # test_a_kill_in_each_verification_...
        (S.STAGED, S.FAILED_NO_CHANGE),  # test_a_line_that_is_busy_for_ever_...
        (S.PROBATION, S.FAILED_REVERTED),  # test_deploy_probation.py
        (S.PROBATION, S.FAILED_REVERT_FAILED),  # test_deploy_probation.py
    }
    later = {
        (S.QUEUED, S.REFUSED),  # below the floor, not signed
        (S.QUEUED, S.FAILED_NO_CHANGE),
        (S.STAGED, S.REFUSED),  # the floor was raised meanwhile
    }
    owned = {
        (old, new)
        for old in S
        for new in deployment.TRANSITIONS[old]
        if new not in deployment.FLEET_OWNED and old is not S.SCHEDULED
    }
    assert taken | elsewhere | {edge for edge in later if edge[1] not in deployment.FLEET_OWNED} == owned


def test_asking_for_what_is_active_says_so_and_touches_nothing(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.fleet.fetched.clear()
    device.run(wanted(releases[0], number=77))
    assert device.states() == [S.ALREADY_INSTALLED]
    assert not device.fleet.fetched
    assert device.runner.deployment_of("parts", releases[0].digest) == deployment_id(77)


def test_blobs_that_versions_share_are_fetched_once(device: TestDevice, releases: list[package.Package]) -> None:
    device.fleet.fetched.clear()
    device.run(wanted(releases[1]))
    shared = releases[0].index.file("card.md")
    assert shared is not None
    assert shared == releases[1].index.file("card.md")
    assert shared.digest not in device.fleet.fetched
    assert len(device.fleet.fetched) == len(releases[1].index.files)


def test_bytes_damaged_on_disk_are_found_by_verification_and_fetched_again(
    device: TestDevice, releases: list[package.Package]
) -> None:
    target = releases[1]
    model = target.index.file("model.onnx")
    assert model is not None
    while S.VERIFYING not in device.states():
        device.runner.step(wanted(target))
    device.store.blob_path(model.digest).write_bytes(b"not the model")
    device.run(wanted(target))
    assert device.states() == [S.DOWNLOADING, S.VERIFYING, S.DOWNLOADING, *WAY[1:], *TO_ITS_END]
    assert device.fleet.fetched.count(model.digest) == 2
    check_reports(device.earlier + device.reports)


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ("[requires]\narchitectures = ['riscv64']", "deployment.incompatible"),
        ("[requires]\nruntime = '9.0'", "deployment.incompatible"),
        ("[requires]\nopset = 99", "model.unsupported_opset"),
        ("[requires]\nproviders = ['CUDAExecutionProvider']", "model.provider_unavailable"),
    ],
)
def test_a_version_that_is_at_fault_is_refused_with_its_reason(
    device: TestDevice, tmp_path: Path, extra: str, code: str
) -> None:
    unfit = make_package(tmp_path / "unfit", 9, extra=extra)
    device.fleet.publish(unfit)
    device.run(wanted(unfit))
    assert device.states() == [S.DOWNLOADING, S.VERIFYING, S.REFUSED]
    assert device.reports[-1].code == code


@pytest.mark.parametrize("changes", [{"release": 8}, {"model": "others"}])
def test_a_version_that_is_not_what_was_asked_for_is_refused(
    device: TestDevice, releases: list[package.Package], changes: dict[str, object]
) -> None:
    document = wanted(releases[1])
    document = replace(document, models=(replace(document.models[0], **changes),))
    device.run(document)
    assert device.states()[-1] is S.REFUSED
    assert device.reports[-1].code == "package.invalid"


def test_an_index_that_does_not_fit_its_manifest_is_refused(
    device: TestDevice, releases: list[package.Package]
) -> None:
    lying = replace(releases[1].index, release=9)
    digest = package.digest_of(lying)
    device.fleet.blobs[digest] = package.index_bytes(lying)
    document = wanted(releases[1])
    device.run(replace(document, models=(replace(document.models[0], active=digest, release=9),)))
    assert device.states() == [S.DOWNLOADING, S.VERIFYING, S.REFUSED]
    assert device.reports[-1].code == "package.invalid"


def test_a_kill_in_each_verification_ends_the_deployment(device: TestDevice, releases: list[package.Package]) -> None:
    while S.VERIFYING not in device.states():
        device.runner.step(wanted(releases[1]))
    attempt = device.journal.of("parts").attempt
    assert attempt is not None
    device.journal.write(replace(attempt, tries=3))  # as three kills would have left it
    device.boot()
    device.run(wanted(releases[1]))
    assert device.states()[-1] is S.FAILED_NO_CHANGE
    assert device.reports[-1].code == "deployment.attempts_exhausted"


def test_a_self_test_cut_short_by_a_stop_is_taken_up_again(device: TestDevice, releases: list[package.Package]) -> None:
    cuts = iter([None, None, None])
    device.tester = lambda _package, _go_on: next(cuts, SelfTestResult(ok=True))
    device.boot()
    device.run(wanted(releases[1]))
    assert device.states()[-1] is S.SUCCEEDED


def test_a_deployment_given_up_for_another_one_is_left_where_it_stands(
    device: TestDevice, releases: list[package.Package]
) -> None:
    while S.VERIFYING not in device.states():
        device.runner.step(wanted(releases[1]))
    device.run(wanted(releases[2]))
    assert device.states(2) == [S.DOWNLOADING, S.VERIFYING]
    assert device.states(3)[-1] is S.SUCCEEDED
    assert device.store.installed("parts").previous == releases[0].digest


def test_a_deployment_that_ended_is_not_begun_again_when_the_document_returns_to_it(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.tester = answers("model.golden_mismatch")
    device.boot()
    device.run(wanted(releases[1]))
    device.run(wanted(releases[2]))
    seen = len(device.states(2))
    device.run(wanted(releases[1]))
    assert len(device.states(2)) == seen


def test_only_current_and_previous_stay_on_disk(device: TestDevice, releases: list[package.Package]) -> None:
    device.run(wanted(releases[1]))
    device.run(wanted(releases[2]))
    kept = {path.name for path in (device.root / "store" / "packages").iterdir()}
    assert kept == {releases[1].digest, releases[2].digest}
    only_first = releases[0].index.file("model.onnx")
    assert only_first is not None
    assert not device.store.blob_path(only_first.digest).exists()
    assert not device.store.blob_path(releases[0].digest).exists()


def test_a_refused_version_leaves_nothing_behind(device: TestDevice, releases: list[package.Package]) -> None:
    device.tester = answers("model.golden_mismatch")
    device.boot()
    device.run(wanted(releases[1]))
    assert not (device.root / "store" / "packages" / releases[1].digest).exists()
    assert not device.store.blob_path(releases[1].digest).exists()
    assert [found.digest for found in device.runner.boot_choices("parts")] == [releases[0].digest]


def test_boot_falls_back_to_previous_where_current_is_damaged(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.run(wanted(releases[1]))
    (device.store.package(releases[1].digest).model_path).write_bytes(b"something else")
    device.boot()
    assert device.activator.in_use == releases[0].digest
    device.run(wanted(releases[1], number=50))
    assert device.states(50)[-1] is S.SUCCEEDED
    assert device.store.installed("parts").current == releases[1].digest
    assert device.store.installed("parts").previous == releases[0].digest


def test_the_version_that_ran_in_place_of_a_damaged_one_is_the_one_at_hand_afterwards(
    device: TestDevice, releases: list[package.Package]
) -> None:
    """The damaged one has never been replaced: as `previous` it would be no way back."""
    device.run(wanted(releases[1]))
    model = device.root / "store" / "packages" / releases[1].digest / "model.onnx"
    model.write_bytes(b"damaged")
    device.boot()
    assert device.activator.in_use == releases[0].digest
    device.run(wanted(releases[2]))
    installed = device.store.installed("parts")
    assert (installed.current, installed.previous) == (releases[2].digest, releases[0].digest)
    assert device.store.package(releases[0].digest).digest == releases[0].digest


def test_a_crash_while_the_only_version_of_a_device_is_repaired_does_not_take_it_out_of_use(
    device: TestDevice, releases: list[package.Package]
) -> None:
    """It was current before; without it the line would stand."""
    device.store.package(releases[0].digest).model_path.write_bytes(b"damaged")
    device.boot()
    assert device.activator.in_use is None
    device.options = replace(device.options, rules=Rules(probation=ProbationLimits(parts=10, watch_s=0.0)))
    device.boot()
    device.run(wanted(releases[0], number=50))
    assert device.states(50)[-1] is S.PROBATION
    device.boot(crashed=True)
    assert device.activator.in_use == releases[0].digest
    device.activator.judged(ok=10)
    device.run(wanted(releases[0], number=50))
    assert device.states(50)[-1] is S.SUCCEEDED


def test_a_version_that_became_current_and_cannot_be_loaded_is_taken_back(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.activator.outcomes = ["idle"]
    while S.ACTIVATING not in device.states():
        device.runner.step(wanted(releases[1]))
    device.store.commit("parts", releases[1].digest)  # a kill right after this, before `succeeded` is journalled
    device.store.package(releases[1].digest).model_path.write_bytes(b"something else")
    device.boot()
    assert device.activator.in_use == releases[0].digest
    device.run(wanted(releases[1]))
    assert device.states(2)[-1] is S.FAILED_REVERTED
    assert device.store.installed("parts").current == releases[0].digest
    check_reports(device.earlier + device.reports)


def test_an_activation_is_finished_even_while_the_desired_document_is_not_known(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.activator.outcomes = ["idle"]
    while S.ACTIVATING not in device.states():
        device.runner.step(wanted(releases[1]))
    device.boot()
    while device.runner.step(None):
        pass
    assert device.states(2)[-1] is S.SUCCEEDED
    assert device.activator.in_use == releases[1].digest


def test_a_report_that_could_not_be_handed_over_is_offered_again(
    device: TestDevice, releases: list[package.Package]
) -> None:
    refusals = iter([True, False, True])

    def take(report: deployment.DeploymentReport) -> None:
        if next(refusals, False):
            raise LinesideError("storage.full", "The outbox is full.")
        device.reports.append(report)

    device.take = take
    runner = None
    for _ in range(3):
        try:
            runner = runner or device.boot()
            device.run(wanted(releases[1]))
            break
        except LinesideError:
            continue
    assert device.states(2) == [*WAY, *TO_ITS_END]
    check_reports(device.earlier + device.reports)


def test_after_a_boot_the_last_report_is_made_again_byte_for_byte(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.run(wanted(releases[1]))
    last = device.reports[-1]
    device.boot()
    device.clock.advance(1000.0)
    device.run(wanted(releases[1]))
    assert codec.encode(device.reports[-1]) == codec.encode(last)
    assert len(device.reports) == len(WAY) + 3


def test_a_damaged_journal_is_set_aside_and_later_reports_count_on_from_far_above(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.run(wanted(releases[1]))
    path = device.root / "journal" / "parts.json"
    path.write_bytes(path.read_bytes()[:40])
    device.boot()
    assert path.with_name("parts.json.damaged").is_file()
    assert device.activator.in_use == releases[1].digest
    last = device.reports[-1].sequence
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.SUCCEEDED
    assert min(report.sequence for report in device.reports if report.deployment_id == deployment_id(3)) > last + 1000


def test_a_lost_record_of_what_is_installed_is_made_anew(device: TestDevice, releases: list[package.Package]) -> None:
    device.run(wanted(releases[1]))
    path = device.root / "store" / "models" / "parts.json"
    os.truncate(path, 0)
    device.boot()
    assert device.activator.in_use == releases[1].digest


def test_a_disk_without_room_holds_the_deployment_visibly_until_there_is_room(
    device: TestDevice, releases: list[package.Package]
) -> None:
    room = [100]
    device.room_bytes = lambda: room[0]
    device.boot()
    device.run(wanted(releases[1]))
    assert device.states(2) == [S.DOWNLOADING, S.DOWNLOADING]
    hold = device.reports[-1].hold
    assert hold is not None
    assert hold.reason is HoldReason.NO_SPACE
    assert hold.deadline == device.reports[-1].at + timedelta(days=1)
    assert [attempt.deployment_id for attempt in device.runner.under_way()] == [deployment_id(2)]
    assert device.fleet.fetched[-1] in {releases[0].digest, *(file.digest for file in releases[0].index.files)}
    device.clock.advance(3 * HOUR_S)
    device.run(wanted(releases[1]))
    device.boot()  # over a restart, too
    device.run(wanted(releases[1]))
    assert device.states(2)[2:] == [S.DOWNLOADING], "the same word, made again"
    room[0] = 1 << 40
    device.run(wanted(releases[1]))
    assert device.states(2)[3:] == [S.DOWNLOADING, *WAY[1:], *TO_ITS_END]
    assert [report for report in device.reports if report.deployment_id == deployment_id(2)][3].hold is None
    check_reports(device.earlier + device.reports)
    assert device.runner.under_way() == ()


def test_a_disk_that_never_gets_room_ends_the_deployment_at_the_deadline_it_had_told(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.room_bytes = lambda: 100
    device.boot()
    device.run(wanted(releases[1]))
    hold = device.reports[-1].hold
    assert hold is not None
    while device.states(2)[-1] is S.DOWNLOADING:
        if not device.runner.step(wanted(releases[1])):
            device.clock.advance(300.0)
    assert (device.states(2)[-1], device.reports[-1].code) == (S.FAILED_NO_CHANGE, "storage.full")
    assert abs((device.reports[-1].at - hold.deadline).total_seconds()) <= 300.0
    assert device.activator.in_use == releases[0].digest


def test_what_nothing_needs_is_removed_before_a_deployment_waits_for_room(
    device: TestDevice, releases: list[package.Package]
) -> None:
    while S.VERIFYING not in device.states(2):
        device.runner.step(wanted(releases[1]))
    model = releases[1].index.file("model.onnx")
    assert model is not None
    given_up = device.root / "store" / "blobs" / model.digest[:2] / model.digest
    device.room_bytes = lambda: 100 if given_up.exists() else 1 << 40
    device.boot()
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.SUCCEEDED
    assert not given_up.exists()


def test_a_disk_that_fills_up_in_mid_download_is_a_hold_and_no_failed_try(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.fleet.faults = ["", "storage.full"]
    device.run(wanted(releases[1]), patience=6)
    assert device.states(2)[-1] is S.SUCCEEDED
    held = [report for report in device.reports if report.hold is not None]
    assert [report.hold.reason for report in held if report.hold] == [HoldReason.NO_SPACE]
    check_reports(device.earlier + device.reports)


def test_a_swap_waits_for_its_window_and_for_the_line_and_nothing_else_does(
    device: TestDevice, releases: list[package.Package]
) -> None:
    why: list[HoldReason | None] = [HoldReason.MAINTENANCE_WINDOW]
    device.not_now = lambda: why[0]
    device.boot()
    device.run(wanted(releases[1]))
    why[0] = HoldReason.LINE_BUSY
    device.run(wanted(releases[1]))
    assert device.states(2) == [*WAY[:4], S.STAGED, S.STAGED]
    assert [report.hold.reason for report in device.reports if report.hold] == [
        HoldReason.MAINTENANCE_WINDOW,
        HoldReason.LINE_BUSY,
    ]
    assert device.activator.in_use == releases[0].digest
    why[0] = None
    device.run(wanted(releases[1]))
    assert device.states(2)[6:] == [S.ACTIVATING, *TO_ITS_END]
    check_reports(device.earlier + device.reports)


def test_a_line_that_is_busy_for_ever_ends_the_deployment_though_the_agent_is_killed_every_hour(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.not_now = lambda: HoldReason.LINE_BUSY
    device.boot()
    hours = 0
    while S.FAILED_NO_CHANGE not in device.states(2):
        device.run(wanted(releases[1]))
        for _ in range(6):
            device.clock.advance(600.5)
            device.runner.step(wanted(releases[1]))
        hours += 1
        device.clock.jump(30 * 24 * HOUR_S)  # switched off for a month: that is not held against it
        device.boot()
        assert hours < 30
    assert hours > 18
    assert device.reports[-1].code == "deployment.hold_expired"
    check_reports(device.earlier + device.reports)


def test_an_agent_that_is_killed_at_once_each_time_gives_a_deployment_up(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.fleet.faults = [AWAY] * 999
    device.options = replace(device.options, rules=Rules(limits=Limits(attempt_s=2 * HOUR_S)))
    starts = 0
    while S.FAILED_NO_CHANGE not in device.states(2):
        device.boot()
        device.runner.step(wanted(releases[1]))
        starts += 1
        assert starts <= 122
    assert device.reports[-1].code == AWAY


OUTCOMES = st.sampled_from(["", "", "", "cut", AWAY, DOWN, "deployment.digest_mismatch", "resource.not_found"])
SWAPS = st.sampled_from(["", "", "untouched", "broken", "other", "idle"])
TESTS = st.sampled_from(["", "", "", "model.golden_mismatch", "model.crashed", "cut short"])
MOVES = st.sampled_from(["step"] * 16 + ["kill", "next version", "full", "room", "busy", "free", "hour", "clock set"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_happens_every_transition_is_legal_and_every_deployment_ends(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    packages = [make_package(folder / f"v{release}", release) for release in (1, 2, 3)]
    tests = data.draw(st.lists(TESTS, max_size=4))

    def tester(_package: package.Package, _go_on: object) -> SelfTestResult | None:
        answer = tests.pop(0) if tests else ""
        return None if answer == "cut short" else SelfTestResult(ok=answer == "", code=answer, reason="Injected.")

    device = TestDevice(
        root=folder / "device",
        fleet=MemoryFleet(data.draw(st.lists(OUTCOMES, max_size=30))),
        activator=FakeActivator(data.draw(st.lists(SWAPS, max_size=6))),
        tester=tester,
    )
    for found in packages:
        device.fleet.publish(found)
    line = {"room": 1 << 40, "not_now": None}
    device.room_bytes = lambda: line["room"] or 0
    device.not_now = lambda: HoldReason.LINE_BUSY if line["not_now"] else None
    device.boot()
    number = 0
    for move in data.draw(st.lists(MOVES, max_size=60)):
        match move:
            case "kill":
                device.boot()
            case "next version":
                number = min(number + 1, 2)
            case "full" | "room":
                line["room"] = 0 if move == "full" else 1 << 40
            case "busy" | "free":
                line["not_now"] = 1 if move == "busy" else None
            case "hour":
                device.clock.advance(HOUR_S)
            case "clock set":
                device.clock.jump(data.draw(st.sampled_from([-400, 400])) * 24 * HOUR_S)
            case _:
                if not device.runner.step(wanted(packages[number])):
                    device.clock.advance(120.0)
        _succeeded_is_true(device)
    for _ in range(1000):
        if device.runner.step(wanted(packages[number])):
            continue
        latest = device.journal.of("parts").attempt
        if latest is not None and latest.state in deployment.ENDS and latest.deployment_id == deployment_id(number + 1):
            break
        if (line["room"] == 0 and latest is not None and latest.state is S.DOWNLOADING) or (
            line["not_now"] and latest is not None and latest.state is S.STAGED
        ):
            assert latest.hold is not None, "it waits without saying so"
            assert latest.hold.deadline > device.clock.now_utc() - plan_holds.DEADLINE_MOVED
        device.clock.advance(HOUR_S / 4)
    _succeeded_is_true(device)
    check_reports(device.earlier + device.reports)
    attempt = device.journal.of("parts").attempt
    assert attempt is not None
    assert attempt.deployment_id == deployment_id(number + 1)
    assert attempt.state in deployment.ENDS
    installed = device.store.installed("parts")
    assert installed.current is None or device.store.package(installed.current).digest == installed.current
    if attempt.state is S.SUCCEEDED:
        assert installed.current == attempt.digest == device.activator.in_use


def _succeeded_is_true(device: TestDevice) -> None:
    if device.reports and device.reports[-1].state is S.SUCCEEDED:
        assert device.reports[-1].digest == device.reports[-1].inferring_digest
