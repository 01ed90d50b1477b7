"""What a technician types and reads about the versions on a device, against its real store, journal and runner."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent import cli
from agent import status as last_word
from agent.clock import SystemClock
from agent.commands import models_verify
from agent.deploy import inventory
from agent.deploy.journal import Journal
from agent.deploy.orders import Order, Orders
from agent.deploy.outlook import Rules
from agent.deploy.pins import Pins
from agent.deploy.plan_swapped import REVERT_TRIES
from agent.deploy.probation import ProbationLimits
from agent.deploy.selftest import SelfTestResult
from agent.status import DeploymentStatus
from tests.support.deploying import make_package
from tests.support.device_at_hand import DeviceAtHand
from wire import codec, package
from wire.deployment import DeploymentState, HoldReason, ProbationReport
from wire.desired import Desired

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceAtHand]:
    made = DeviceAtHand(tmp_path)
    monkeypatch.setenv("LINESIDE_DATA_DIR", str(made.data_dir))
    monkeypatch.setenv("LOGNAME", "anna")
    monkeypatch.delenv("SUDO_USER", raising=False)
    yield made
    made.end()
    logging.getLogger("agent").setLevel(logging.NOTSET)


@pytest.fixture
def versions(tmp_path: Path) -> list[package.Package]:
    return [make_package(tmp_path / f"v{number}", number) for number in (1, 2, 3)]


@pytest.fixture
def run(device: DeviceAtHand, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; returns its exit status, what it printed and what it said, times taken out."""

    def body(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main(arguments)
        captured = capsys.readouterr()
        said = [line[10:] if line[2:3] == line[5:6] == ":" else line for line in captured.err.splitlines()]
        return status, captured.out, "\n".join(said)

    return body


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def in_probation(device: DeviceAtHand, versions: list[package.Package], parts: int = 100) -> None:
    """Have release 1 installed, and release 2 in probation."""
    device.install(versions[0])
    device.rules = Rules(probation=ProbationLimits(parts=parts))
    device.fleet.publish(versions[1])
    device.ask_for(versions[1])
    device.begin()
    wait_for(lambda: (attempt := device.attempt()) is not None and attempt.state.value == "probation")


# list


def test_the_versions_are_listed_with_what_they_are_for(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(*versions)
    device.begin()
    status, out, err = run("models", "list")
    sizes = [f"{found.index.total_bytes / 1e6:.1f} MB" for found in versions]
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "MODEL  RELEASE  DIGEST        ROLE           STATE  SIZE",
        f"parts  3        {versions[2].digest[:12]}  runs, current  -      {sizes[2]}",
        f"parts  2        {versions[1].digest[:12]}  previous       -      {sizes[1]}",
    ]


def test_without_an_agent_the_list_is_of_the_disk_and_says_so(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    status, out, err = run("models")
    assert status == 0
    assert out.splitlines()[1].split()[3] == "current"
    assert err == "No agent runs on this device now; this is what lies on its disk."


def test_a_device_that_never_had_a_model_says_so(run: Run) -> None:
    status, _, err = run("models", "list")
    assert status == 7
    assert "no model has ever been on this device" in err
    assert "lineside import BUNDLE" in err


def test_a_deployment_that_waits_says_for_what_and_until_when(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.not_now = lambda: HoldReason.LINE_BUSY
    device.fleet.publish(versions[1])
    device.ask_for(versions[1])
    device.begin()
    wait_for(lambda: (attempt := device.attempt()) is not None and attempt.hold is not None)
    line = run("models", "list", "parts")[1].splitlines()[1]
    assert "staged         staged, WAITS: line busy, at most until 20" in line


def test_a_probation_is_told_beside_the_version_that_would_be_loaded_at_the_next_start(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    in_probation(device, versions)
    lines = [line.split("  ") for line in run("models", "list")[1].splitlines()[1:]]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert [row[3:5] for row in rows] == [
        ["runs, probation", "probation, 0 of 100 parts judged"],
        ["current", "-"],
    ]


def test_what_a_deployment_failed_of_stands_under_the_list(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.tester = lambda *_: SelfTestResult(
        ok=False, latency_p95_ms=1.0, memory_mb=1.0, samples=1, code="model.golden_mismatch", reason="2 of 5 differ."
    )
    device.install(versions[1])
    assert run("models", "list")[1].splitlines()[-1] == (
        f"parts: release 2 ({versions[1].digest[:12]}) is refused on this device; nothing was changed. "
        "The golden samples give other results: 2 of 5 differ."
    )


def test_the_list_as_json_names_its_schema(device: DeviceAtHand, versions: list[package.Package], run: Run) -> None:
    device.install(versions[0])
    device.begin()
    found = json.loads(run("models", "list", "--json")[1])
    assert found["schema"] == "lineside.model-versions/1"
    assert found["agent_runs"] is True
    assert found["versions"][0] | {"bytes": 0} == {
        "model": "parts",
        "release": 1,
        "digest": versions[0].digest,
        "roles": ["runs", "current"],
        "state": "",
        "hold": None,
        "bytes": 0,
        "whole": True,
    }


def test_a_list_beside_a_device_that_swaps_all_the_time_never_breaks(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    for found in versions:
        device.fleet.publish(found)
    device.begin()
    stop = threading.Event()

    def swap() -> None:
        number = 10
        while not stop.is_set():
            found = versions[number % 3]
            device.ask_for(found)
            assert device.desired is not None
            (entry,) = device.desired.models
            entry = replace(entry, deployment_id=f"00000000-0000-7000-8000-{number:012d}")
            device.desired = replace(device.desired, models=(entry,))
            number += 1
            stop.wait(0.15)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(12):
            assert run("models", "list")[0] == 0
            assert run("models", "show", "parts")[0] == 0
            assert run("models", "verify")[0] == 0
    finally:
        stop.set()
        thread.join()


def test_what_a_probation_has_seen_is_brought_up_to_date_while_it_lasts(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.deploy.logbook.KEEP_PROBATION_EVERY_S", 0.1)
    in_probation(device, versions)
    device.activator.judged(ok=41, ng=2)
    wait_for(lambda: "43 of 100 parts judged" in run("models", "list")[1])
    assert any(
        line.startswith("probation   43 of 100 parts") for line in run("models", "show", "parts")[1].splitlines()
    )


# show


def test_the_list_tells_the_same_of_a_probation_as_the_status(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    in_probation(device, versions)
    device.end()
    word = last_word.read(device.data_dir)
    live = DeploymentStatus(
        model="parts",
        digest=versions[1].digest,
        state="probation",
        probation=ProbationReport(parts=53, parts_needed=100),
    )
    last_word.write(device.data_dir, replace(word, at=datetime.now(UTC), pid=os.getpid(), deployments=(live,)))
    assert "probation, 53 of 100 parts judged" in run("models", "list")[1]
    assert "probation, 53 of 100 parts judged" in run("models", "rollback", "parts")[2]


def test_a_first_version_that_was_taken_back_is_not_said_to_have_left_another_one_running(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.rules = Rules(probation=ProbationLimits(parts=100))
    device.install(versions[0])
    device.desired = Desired(device="press-7", revision=9, models=())
    device.begin()
    wait_for(lambda: (attempt := device.attempt()) is not None and attempt.has_ended)
    _, printed, _ = run("models", "list")
    assert "the former version runs again" not in printed
    assert "there is no former version" in printed


def test_a_version_in_probation_is_shown_with_all_that_is_known(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    in_probation(device, versions)
    status, out, _ = run("models", "show", "parts")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "model       parts, release 2"
    assert lines[1] == f"digest      {versions[1].digest}"
    assert "role        runs, probation" in lines
    assert "task        classify, decoder classify" in lines
    assert "limits      1000 ms a look (p95), 1024 MB" in lines
    assert "deployment  00000000-0000-7000-8000-000000000002, asked for by the fleet" in lines
    assert any(line.startswith("state       probation (since 20") for line in lines)
    assert "self-test   p95 1.0 ms a look, 1 MB at most, ready after 0.0 s" in lines
    assert any(line.startswith("probation   0 of 100 parts judged, watched for ") for line in lines)
    assert f"before      release 1 ({versions[0].digest[:12]}): succeeded" in lines


def test_the_time_a_version_was_watched_is_not_said_to_be_nothing_before_it_is_written_down(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    """It is written once a minute."""
    in_probation(device, versions)
    lines = run("models", "show", "parts")[1].splitlines()
    assert "probation   0 of 100 parts judged, watched for less than a minute" in lines


def test_what_keeps_the_line_busy_is_shown_with_the_deployment_that_waits_for_it(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.not_now = lambda: HoldReason.LINE_BUSY
    device.fleet.publish(versions[1])
    device.ask_for(versions[1])
    assert run("line", "busy", "--for", "8h", "--why", "lot 4711")[0] == 0
    device.begin()
    wait_for(lambda: (attempt := device.attempt()) is not None and attempt.hold is not None)
    lines = run("models", "show", "parts")[1].splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("WAITS       line busy, at most until 20"))
    assert lines[at + 1].startswith("            it is busy until 20")
    assert lines[at + 1].endswith(": lot 4711")
    assert run("line", "free")[0] == 0
    assert not any("lot 4711" in line for line in run("models", "show", "parts")[1].splitlines())


def test_who_went_back_and_why_is_shown_and_no_probation_that_a_way_back_does_not_have(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(*versions[:2])
    device.begin()
    assert run("models", "rollback", "parts", "--yes", "--reason", "lot 4711 is rejected")[0] == 0
    lines = run("models", "show", "parts")[1].splitlines()
    asked = next(line for line in lines if line.startswith("deployment  "))
    assert asked.endswith(", asked for by anna at this device: lot 4711 is rejected")
    state = next(line for line in lines if line.startswith("state  "))
    assert "runs, and will be loaded at each start (since 20" in state
    assert not any(line.startswith("probation") for line in lines)


@pytest.mark.parametrize("which", ["1", "digest"])
def test_another_version_is_shown_by_its_release_or_its_digest(
    device: DeviceAtHand, versions: list[package.Package], run: Run, which: str
) -> None:
    device.install(*versions[:2])
    wish = f"parts@{versions[0].digest[:8] if which == 'digest' else which}"
    lines = run("models", "show", wish)[1].splitlines()
    assert lines[0] == "model       parts, release 1"
    assert "role        previous" in lines
    assert any(line.startswith("latest      release 2") and "runs, and will be loaded" in line for line in lines)


@pytest.mark.parametrize(
    ("wish", "sentences"),
    [
        ("prats", ["There is no model prats on this device.", "Did you mean parts? There is: parts."]),
        ("parts@9", ["There is no parts@9 on this device.", "There is: parts@1 ("]),
        ("parts@abc", ["There is no parts@abc on this device."]),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    device: DeviceAtHand, versions: list[package.Package], run: Run, wish: str, sentences: list[str]
) -> None:
    device.install(versions[0])
    for verb in ("show", "verify"):
        status, _, err = run("models", verb, wish)
        assert status == 7
        for sentence in sentences:
            assert sentence in err


def test_a_version_is_shown_as_json(device: DeviceAtHand, versions: list[package.Package], run: Run) -> None:
    device.install(versions[0])
    found = json.loads(run("models", "show", "parts", "--json")[1])
    assert found["schema"] == "lineside.model-version/1"
    assert found["version"]["digest"] == versions[0].digest
    assert found["deployment"]["state"] == "succeeded"
    assert found["manifest"]["limits"]["latency_p95_ms"] == 1000.0


# verify


def test_whole_versions_are_said_to_be_whole(device: DeviceAtHand, versions: list[package.Package], run: Run) -> None:
    device.install(*versions)
    status, out, err = run("models", "verify")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"parts release 3 ({versions[2].digest[:12]}): whole, 0.0 MB",
        f"parts release 2 ({versions[1].digest[:12]}): whole, 0.0 MB",
    ]


def test_damage_is_named_by_file_with_what_to_do(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(*versions[:2])
    device.begin()
    damaged = versions[0].index.file("model.onnx")
    assert damaged is not None
    path = device.store.blob_path(damaged.digest)
    path.write_bytes(path.read_bytes()[:-1])
    missing = device.root / "packages" / versions[0].digest / "golden" / "part.bin"
    missing.unlink()
    (device.root / "packages" / versions[0].digest / "extra.bin").touch()
    status, out, err = run("models", "verify", "parts")
    assert status == 9
    assert out.splitlines() == [
        f"parts release 2 ({versions[1].digest[:12]}): whole, 0.0 MB",
        f"parts release 1 ({versions[0].digest[:12]}): DAMAGED",
        f"  golden/part.bin: its file has gone ({missing}).",
        f"  model.onnx: its blob is damaged ({path}).",
        f"  model.onnx: its file is damaged ({device.root / 'packages' / versions[0].digest / 'model.onnx'}).",
        f"  extra.bin: no file of this version ({device.root / 'packages' / versions[0].digest / 'extra.bin'}).",
    ]
    assert f"Damaged on this device: parts release 1 ({versions[0].digest[:12]})." in err
    assert "What runs is whole, but there is no whole version to go back to. Bring it again" in err
    found = json.loads(run("models", "verify", "--json")[1])
    assert [len(one["damage"]) for one in found["versions"]] == [0, 4]


def test_an_index_that_is_damaged_is_found(device: DeviceAtHand, versions: list[package.Package], run: Run) -> None:
    device.install(versions[0])
    device.store.blob_path(versions[0].digest).write_bytes(b"{}")
    status, out, err = run("models", "verify")
    assert status == 9
    assert "is damaged on disk" in out
    assert "The next start would take the version before." in err


def between_looks(monkeypatch: pytest.MonkeyPatch, happens: Callable[[int], None]) -> None:
    """Have something happen, with its number from 1, whenever `verify` waits before it looks again."""
    numbers = itertools.count(1)
    monkeypatch.setattr(models_verify, "time", SimpleNamespace(sleep=lambda _: happens(next(numbers))))


def deployment(device: DeviceAtHand, found: package.Package, number: int, state: DeploymentState) -> None:
    """Write a deployment into the device's journal, whose own thread must be `busy`."""
    path = device.root / "journal" / "parts.json"
    before = inventory.read_journal(path)
    assert before.attempt is not None
    attempt = replace(
        before.attempt,
        deployment_id=f"00000000-0000-7000-8000-{number:012d}",
        digest=found.digest,
        release=found.manifest.release,
        state=state,
    )
    path.write_bytes(codec.encode(replace(before, attempt=attempt)))


def test_a_version_that_comes_anew_while_it_is_verified_is_on_its_way(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(*versions[:2])
    device.busy.set()
    device.begin()
    shutil.rmtree(device.root / "packages" / versions[0].digest)
    between_looks(monkeypatch, lambda _: deployment(device, versions[0], 40, DeploymentState.DOWNLOADING))
    status, out, err = run("models", "verify", "parts@1")
    assert (status, err) == (0, "")
    assert out == f"parts release 1 ({versions[0].digest[:12]}): still on its way\n"


def test_what_differs_at_every_look_while_deployments_go_on_is_no_damage(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(*versions[:2])
    device.busy.set()
    device.begin()
    folder = device.root / "packages" / versions[0].digest
    (folder / "model.onnx").unlink()

    def happens(number: int) -> None:
        (folder / f"extra-{number}.bin").touch()
        deployment(device, versions[1], 40 + number, DeploymentState.SUCCEEDED)

    between_looks(monkeypatch, happens)
    status, out, err = run("models", "verify", "parts@1")
    assert (status, err) == (0, "")
    assert out == (
        f"parts release 1 ({versions[0].digest[:12]}): being changed at this moment; "
        "verify it again when no deployment is under way\n"
    )


def test_what_is_wrong_at_every_look_is_damage_whatever_goes_on(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(*versions[:2])
    device.busy.set()
    device.begin()
    (device.root / "packages" / versions[0].digest / "model.onnx").unlink()
    between_looks(monkeypatch, lambda number: deployment(device, versions[1], 40 + number, DeploymentState.SUCCEEDED))
    status, out, _ = run("models", "verify", "parts@1")
    assert status == 9
    assert out.splitlines()[0].endswith(": DAMAGED")


# rollback


def test_a_rollback_says_what_will_happen_and_then_what_happens(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(*versions[:2])
    device.begin()
    status, out, err = run("models", "rollback", "parts", "--yes", "--reason", "lot 4711 is rejected")
    one, two = versions[0].digest[:12], versions[1].digest[:12]
    assert status == 0, err
    assert out == f"parts release 1 ({one}) runs.\n"
    said = err.splitlines()
    first = (
        f"parts: release 2 ({two}) runs now. Release 1 ({one}) is checked and tested on this device, then runs "
        "from one part to the next; no maintenance window is waited for."
    )
    second = f"Release 2 ({two}) stays here as the previous one."
    assert said[:3] == [first, second, f"Version {one} of parts is being deployed."]
    assert said[-1] == f"parts release 1 ({one}) runs, and will be loaded at each start."
    attempt = device.attempt()
    assert attempt is not None
    assert (attempt.by, attempt.origin.value, attempt.state.value) == ("anna", "device", "succeeded")
    rows = [line.split()[1] for line in run("models", "list")[1].splitlines()[1:]]
    assert rows == ["2", "1"]


def test_a_rollback_in_probation_takes_the_new_version_out(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    in_probation(device, versions)
    status, out, err = run("models", "rollback", "parts", "--yes", "--by", "shift 2")
    one, two = versions[0].digest[:12], versions[1].digest[:12]
    assert status == 0, err
    assert out == f"parts release 1 ({one}) runs.\n"
    assert err.splitlines()[:2] == [
        f"parts release 2 ({two}) is in probation, 0 of 100 parts judged.",
        f"It is taken out between two parts, its deployment ends, and release 1 ({one}) runs again.",
    ]
    assert err.splitlines()[-1] == (
        f"parts release 2 ({two}) was taken back; the former version runs again. "
        "A person went back to the former model: shift 2 went back to the former version."
    )


def test_a_rollback_that_fails_is_an_error_with_the_reason(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(*versions[:2])
    device.tester = lambda *_: SelfTestResult(
        ok=False, latency_p95_ms=1.0, memory_mb=1.0, samples=1, code="model.crashed", reason="Signal 11."
    )
    device.begin()
    status, out, err = run("models", "rollback", "parts", "--yes")
    assert (status, out) == (6, "")
    assert "was not made active; nothing was changed. The model ended the process that loaded it: Signal 11." in err
    assert device.activator.in_use == versions[1].digest


def test_a_version_that_awaits_its_swap_is_not_told_to_be_rolled_back(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    """A rollback would take out the version that runs."""
    device.install(*versions[:2])
    device.rules = replace(device.rules, confirm=True)
    device.fleet.publish(versions[2])
    device.ask_for(versions[2])
    device.begin()
    wait_for(lambda: (attempt := device.attempt()) is not None and attempt.hold is not None)
    shown = run("models", "show", "parts")[1]
    assert "lineside models confirm parts" in shown
    assert "lineside models rollback parts" not in shown


def test_a_version_that_is_taken_back_is_not_said_to_be_tried_again(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    in_probation(device, versions)
    device.end()
    attempt = device.attempt()
    assert attempt is not None
    Journal(device.root / "journal", SystemClock()).write(attempt.failed("deployment.crashed", "It crashed."))
    printed = run("models", "list")[1]
    assert "probation, 0 of 100 parts judged, taken back: It crashed." in printed
    assert "tried again" not in printed + run("models", "show", "parts")[1]


def test_where_going_back_failed_a_rollback_tries_it_again(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    in_probation(device, versions)
    device.activator.outcomes = ["untouched"] * REVERT_TRIES
    device.activator.judged(inference_failed=40)
    wait_for(lambda: (attempt := device.attempt()) is not None and attempt.has_ended)
    assert "could not be made active either" in run("models", "list")[1]
    status, printed, said = run("models", "rollback", "parts", "--yes")
    assert (status, printed) == (0, f"parts release 1 ({versions[0].digest[:12]}) runs.\n"), said
    assert "stays here" not in said, "the version at fault is not kept"


def test_there_is_no_way_back_from_the_first_version(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.begin()
    status, _, err = run("models", "rollback", "parts", "--yes")
    assert status == 7
    assert err.splitlines()[0] == (
        f"error: There is no version of parts to go back to: only release 1 ({versions[0].digest[:12]}) "
        "is on this device."
    )
    assert "Bring one: lineside import BUNDLE." in err
    assert list((device.root / "orders").glob("*")) == []


def test_without_an_agent_a_rollback_is_taken_up_at_the_next_start(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(*versions[:2])
    status, _, err = run("models", "rollback", "parts", "--yes")
    assert status == 0
    assert err.splitlines()[-1] == ("No agent runs on this device now: the order is taken up at its next start.")
    assert run("models", "list")[1].splitlines()[-1].startswith("rollback of parts, ordered by anna 0.")
    device.begin()
    wait_for(lambda: device.activator.in_use == versions[0].digest)


def test_nobody_is_asked_where_nobody_can_answer(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(*versions[:2])
    status, _, err = run("models", "rollback", "parts")
    assert status == 2
    assert "Nobody can be asked here, and nothing was done." in err
    assert "Say --yes to have it done." in err
    monkeypatch.setattr("sys.stdin", _Terminal("n\n"))
    status, _, err = run("models", "rollback", "parts")
    assert status == 5
    assert "Go on? [y/N] error: Nothing was done." in err
    assert list((device.root / "orders").glob("*")) == []


class _Terminal:
    def __init__(self, line: str) -> None:
        self.readline = lambda: line

    def isatty(self) -> bool:
        return True


def test_an_agent_that_is_busy_is_waited_for_and_said_to_be(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.commands.ordering._PATIENCE_S", 0.3)
    device.install(*versions[:2])
    device.busy.set()
    device.begin()
    threading.Timer(1.5, device.busy.clear).start()
    status, _, err = run("models", "rollback", "parts", "--yes")
    assert status == 0
    assert "The agent is busy with another step; the order is next. (Ctrl-C leaves it given.)" in err


def test_an_agent_that_never_answers_is_given_up_and_the_order_stays(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.commands.ordering.ANSWER_TIMEOUT_S", 0.5)
    device.install(*versions[:2])
    device.begin()
    device._stop.set()
    status, _, err = run("models", "rollback", "parts", "--yes")
    assert status == 4
    assert "The agent has not come to the order for " in err
    assert "The order stays" in err
    assert len(device.orders.waiting()) == 1


def test_an_agent_that_is_stopped_after_the_order_was_given_is_not_said_to_be_busy(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.commands.ordering._PATIENCE_S", 0.3)
    device.install(*versions[:2])
    device.begin()
    device._stop.set()
    given = Orders.give

    def stops(orders: Orders, order: Order) -> None:
        given(orders, order)
        threading.Timer(0.1, device.end).start()

    monkeypatch.setattr(Orders, "give", stops)
    status, _, err = run("models", "rollback", "parts", "--yes")
    assert status == 0
    assert err.splitlines()[-1] == "The agent does not run any more: the order is taken up at its next start."
    assert "busy" not in err
    assert len(device.orders.waiting()) == 1


def test_a_version_is_not_said_to_run_while_no_agent_does(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(*versions[:2])
    status, _, err = run("models", "rollback", "parts", "--yes")
    assert status == 0
    two = versions[1].digest[:12]
    assert err.startswith(f"parts: release 2 ({two}) is the one loaded at each start. Release 1 (")
    assert "runs now" not in err


def test_an_order_that_the_agent_has_set_aside_is_not_waited_for(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(*versions[:2])
    device.begin()
    device._stop.set()
    given = Orders.give

    def damaged(orders: Orders, order: Order) -> None:
        given(orders, order)
        path = orders.folder / f"{order.id}.order.json"
        path.rename(f"{path}.damaged")

    monkeypatch.setattr(Orders, "give", damaged)
    status, _, err = run("models", "rollback", "parts", "--yes")
    assert status == 9
    assert "The order has gone without an answer" in err


# confirm


def test_what_is_confirmed_is_shown_before_it_is(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.rules = replace(device.rules, confirm=True)
    device.fleet.publish(versions[1])
    device.ask_for(versions[1])
    device.begin()
    wait_for(lambda: (attempt := device.attempt()) is not None and attempt.hold is not None)
    attempt = device.attempt()
    assert attempt is not None
    assert attempt.hold is not None
    shown = run("models", "show", "parts")[1].splitlines()
    assert any(line.startswith("WAITS       awaiting confirmation, at most until 20") for line in shown)
    assert shown[-1 if not shown[-1].startswith("before") else -2] == "            lineside models confirm parts"
    status, _, err = run("models", "confirm", "parts", "--yes")
    assert status == 0, err
    said = err.splitlines()
    assert said[0].startswith(f"parts release 2 ({versions[1].digest[:12]}) is in staged, WAITS: awaiting confirmation")
    assert said[1] == f"What you confirm: {attempt.hold.text}"
    assert (
        said[-1]
        in {  # probation takes no parts here: it is told where the command looks at that very moment
            f"parts release 2 ({versions[1].digest[:12]}) runs, and will be loaded at each start.",
            "parts release 2: judges parts now, and is watched",
        }
    )
    wait_for(lambda: device.activator.in_use == versions[1].digest)


def test_there_is_nothing_to_confirm_where_nothing_waits(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.begin()
    status, _, err = run("models", "confirm", "parts", "--yes")
    assert status == 7
    assert "parts awaits no confirmation: nothing is being deployed." in err


# pin, unpin, gc


def test_a_pinned_version_stays_until_it_is_unpinned(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    assert run("models", "pin", "parts@1")[1] == f"parts release 1 ({versions[0].digest[:12]}) is pinned.\n"
    assert run("models", "pin", "parts@1")[1] == f"parts release 1 ({versions[0].digest[:12]}) is pinned already.\n"
    device.install(*versions[1:])
    rows = [line.split() for line in run("models", "list")[1].splitlines()[1:]]
    assert [(row[1], row[3]) for row in rows] == [("3", "current"), ("2", "previous"), ("1", "pinned")]
    assert run("models", "unpin", "parts@1")[1].endswith("is no longer pinned.\n")
    assert run("models", "unpin", "parts@1")[1].endswith("is not pinned.\n")
    shown = run("models", "gc", "--dry-run")[1].splitlines()
    assert shown[0].startswith(f"parts release 1 ({versions[0].digest[:12]})")
    assert shown[1] == "4 files that nothing refers to, 0.0 MB"
    device.begin()
    wait_for(lambda: not device.store.blob_path(versions[0].digest).exists())


def test_a_pin_needs_a_version_and_an_old_pin_can_be_taken_back(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    status, _, err = run("models", "pin", "parts")
    assert status == 2
    assert "Which version of parts?" in err
    assert "Name one: parts@1." in err
    Pins(device.root).pin("e" * 64)
    assert run("models", "unpin", "parts@eeeeeeee")[1] == "eeeeeeeeeeee is no longer pinned.\n"


def test_what_nothing_refers_to_is_removed_by_the_agent_when_a_person_says_so(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.begin()
    wait_for(lambda: device.attempt() is not None)
    time.sleep(0.2)
    stray = device.store.blob_path("d" * 64)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(bytes(2_500_000))
    status, out, _ = run("models", "gc", "--dry-run")
    assert (status, out) == (0, "1 files that nothing refers to, 2.5 MB\n")
    assert stray.exists()
    found = json.loads(run("models", "gc", "--dry-run", "--json")[1])
    assert (found["schema"], found["bytes"]) == ("lineside.model-gc/1", 2_500_000)
    status, _, err = run("models", "gc", "--yes")
    assert status == 0
    assert err == "1 files that nothing refers to were removed."
    assert not stray.exists()
    assert run("models", "gc")[1] == "0 files that nothing refers to, 0.0 MB\n"
