"""`lineside import` as a technician types it, against the real store, journal and runner of a device."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent import cli
from agent.deploy import bundle
from agent.deploy.durable import Disk
from agent.deploy.outlook import Rules
from agent.deploy.probation import ProbationLimits
from agent.deploy.selftest import SelfTestResult
from tests.support.deploying import make_package
from tests.support.device_at_hand import DeviceAtHand
from wire import archive, package
from wire.deployment import HoldReason, Origin

Run = Callable[..., tuple[int, str, list[str]]]


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
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


@pytest.fixture
def run(device: DeviceAtHand, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; returns its exit status, what it printed and the lines it said, times taken out."""

    def body(*arguments: object) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        status = cli.main(["import", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, [line[10:] if line[2:3] == ":" else line for line in captured.err.splitlines()]

    return body


def staged(device: DeviceAtHand) -> list[str]:
    return [path.name for path in (device.root / "imports").glob("*")]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_an_import_is_followed_until_the_version_runs(
    device: DeviceAtHand, versions: list[package.Package], stick: Path, run: Run, kind: str
) -> None:
    device.install(versions[0])
    device.begin()
    two = versions[1]
    source = stick / "parts-2.tar" if kind == "archive" else two.folder
    if kind == "archive":
        archive.pack(two.folder, source)
    status, out, said = run(source, "--yes")
    assert status == 0, said
    assert out == f"parts release 2 ({two.digest[:12]}) runs.\n"
    digest = f" ({two.digest[:12]})" if kind == "archive" else ""
    assert said[0] == (
        f"parts release 2{digest}, 0.0 MB, is copied onto this device, checked and tested beside the line, then "
        "swapped in between two parts and watched."
    )
    assert said[1:3] == [
        f"Copied and compared: version {two.digest}",
        f"Version {two.digest[:12]} of parts is being deployed.",
    ]
    # Probation takes no parts here: the person is told of it where the command looks at that very moment.
    told = {f"parts release 2 ({two.digest[:12]}) runs, and will be loaded at each start."}
    assert said[-1] in told | {"It is watched now; see: lineside models show parts"}
    wait_for(lambda: (attempt := device.attempt()) is not None and attempt.has_ended)
    attempt = device.attempt()
    assert attempt is not None
    assert (attempt.origin, attempt.by, attempt.state.value) == (Origin.DEVICE, "anna", "succeeded")
    assert device.activator.in_use == two.digest
    wait_for(lambda: staged(device) == [])
    assert device.fleet.fetched.count(two.digest) == 0, "nothing came from the fleet"


def test_an_import_ends_for_the_person_when_the_version_judges_parts_and_is_watched(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.rules = Rules(probation=ProbationLimits(parts=100))
    device.begin()
    status, out, said = run(versions[1].folder, "--yes")
    assert status == 0
    assert out == f"parts release 2 ({versions[1].digest[:12]}) runs.\n"
    assert said[-2:] == [
        "parts release 2: judges parts now, and is watched",
        "It is watched now; see: lineside models show parts",
    ]
    status, _, said = run(versions[2].folder, "--yes")
    assert status == 5
    assert said[:2] == [
        "error: parts release 2 is in probation, 0 of 100 parts judged.",
        "       Let it pass, or end it first: lineside models rollback parts",
    ]


def test_the_first_version_ever_is_imported_onto_an_empty_device(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.begin()
    assert run(versions[0].folder, "--yes")[0] == 0
    assert device.activator.in_use == versions[0].digest


def test_without_an_agent_the_version_is_copied_and_deployed_at_the_next_start(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    status, out, said = run(versions[0].folder, "--yes")
    assert (status, out) == (0, "")
    assert said[-1] == "No agent runs on this device now: the order is taken up at its next start."
    assert staged(device) == [versions[0].digest]
    for path in versions[0].folder.rglob("*"):  # the stick is in another machine by now
        if path.is_file():
            path.unlink()
    device.begin()
    wait_for(lambda: device.activator.in_use == versions[0].digest)


def test_a_version_refused_by_its_self_test_is_said_to_be_with_the_reason(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.tester = lambda *_: SelfTestResult(
        ok=False, latency_p95_ms=1.0, memory_mb=1.0, samples=1, code="model.golden_mismatch", reason="2 of 5 differ."
    )
    device.begin()
    status, out, said = run(versions[1].folder, "--yes")
    assert (status, out) == (6, "")
    assert said[-3] == (
        f"error: parts release 2 ({versions[1].digest[:12]}) is refused on this device; nothing was changed. "
        "The golden samples give other results: 2 of 5 differ."
    )
    assert device.activator.in_use == versions[0].digest
    wait_for(lambda: staged(device) == [])


def test_a_version_that_waits_is_left_to_itself(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.not_now = lambda: HoldReason.MAINTENANCE_WINDOW
    device.begin()
    status, out, said = run(versions[1].folder, "--yes")
    assert (status, out) == (0, "")
    assert said[-2].startswith(
        "parts release 2: ready; the version in use still runs; WAITS: maintenance window, at most until 20"
    )
    assert said[-1] == "It goes on by itself; see: lineside models show parts"


def test_a_version_that_asks_for_a_confirmation_says_how_to_give_it(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.rules = replace(device.rules, confirm=True)
    device.begin()
    status, _, said = run(versions[1].folder, "--yes")
    assert status == 0
    assert said[-1] == "It waits for you: lineside models confirm parts"


# A stick with several


def test_a_stick_with_several_packages_is_listed_and_nothing_is_done(
    device: DeviceAtHand, versions: list[package.Package], stick: Path, run: Run
) -> None:
    for number, found in enumerate(versions, 1):
        archive.pack(found.folder, stick / f"parts-{number}.tar")
    status, out, said = run(stick, "--yes")
    assert status == 2
    assert out.splitlines() == [
        "MODEL  RELEASE  SIZE    PATH",
        f"parts  1        0.0 MB  {stick}/parts-1.tar",
        f"parts  2        0.0 MB  {stick}/parts-2.tar",
        f"parts  3        0.0 MB  {stick}/parts-3.tar",
    ]
    assert said[0] == f"error: Several packages lie in {stick}: nothing was done."
    assert said[1] == "       Name one: --model MODEL, --release N, or its path."
    assert staged(device) == []
    device.begin()
    assert run(stick, "--release", 2, "--yes")[0] == 0
    assert device.activator.in_use == versions[1].digest
    status, _, said = run(stick, "--model", "prats", "--yes")
    assert status == 7
    assert said[:2] == [
        f"error: There is no usable model prats in {stick}.",
        "       Did you mean parts? There is: parts release 1, parts release 2, parts release 3.",
    ]


def test_a_damaged_package_beside_a_whole_one_is_not_passed_over_in_silence(
    device: DeviceAtHand, versions: list[package.Package], stick: Path, run: Run
) -> None:
    archive.pack(versions[0].folder, stick / "parts-1.tar")
    archive.pack(versions[1].folder, stick / "parts-2.tar")
    (stick / "parts-2.tar").write_bytes((stick / "parts-2.tar").read_bytes()[:-700])
    status, out, said = run(stick, "--yes")
    assert status == 2
    assert out.splitlines()[-1] == (
        f"UNUSABLE  {stick}/parts-2.tar: parts-2.tar is cut short: of parts release 2 a part is missing."
    )
    assert said[0] == f"error: A package, and others that are damaged, lie in {stick}: nothing was done."
    status, _, said = run(stick / "parts-2.tar", "--yes")
    assert status == 6
    assert said[1] == "       Copy it onto the stick again, and eject the stick before you pull it out."


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing", "There is no "),
        ("letter.txt", "letter.txt is too short."),
        ("link", "is a link."),
        ("empty", "There is no model package in "),
    ],
)
def test_what_is_no_bundle_is_said_to_be_none(
    device: DeviceAtHand, stick: Path, run: Run, name: str, sentence: str
) -> None:
    (stick / "letter.txt").write_text("Dear colleague,")
    (stick / "link").symlink_to("/etc")
    (stick / "empty").mkdir()
    status, _, said = run(stick / name, "--yes")
    assert status in (6, 7)
    assert sentence in said[0]
    assert staged(device) == []


# What may not have been meant


def test_a_model_that_no_recipe_needs_is_warned_of_and_not_refused(
    device: DeviceAtHand, tmp_path: Path, run: Run
) -> None:
    device.begin()
    other = make_package(tmp_path / "other", 1, model="part")
    status, _, said = run(other.folder, "--yes", "--no-wait")
    assert status == 0
    assert said[0] == (
        "WARNING: no station of this device has a recipe that needs part; needed are: parts. Did you mean parts? "
        "It would be tested, but not made active, and would not stay."
    )


def test_an_older_release_is_said_to_be_older(device: DeviceAtHand, versions: list[package.Package], run: Run) -> None:
    device.install(versions[2])
    device.begin()
    status, _, said = run(versions[0].folder, "--yes")
    assert status == 0
    assert said[0] == "Release 1 is OLDER than release 3, which runs."


def test_an_older_release_is_said_to_be_older_than_what_is_loaded_where_no_agent_runs(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[2])
    _, _, said = run(versions[0].folder, "--yes")
    assert said[0] == "Release 1 is OLDER than release 3, which is loaded at each start."


def test_a_version_whose_digest_is_not_known_yet_is_not_said_to_be_another_one(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    """A folder's digest is known once it has been copied."""
    device.install(versions[0])
    _, _, said = run(versions[0].folder, "--yes")  # no agent runs
    assert not any("calls itself" in line for line in said)


def test_a_first_version_in_probation_gives_way_to_one_from_a_stick(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.rules = Rules(probation=ProbationLimits(parts=100))
    device.install(versions[0])
    device.begin()
    status, _, said = run(versions[1].folder, "--yes")
    assert status == 0
    assert any("The deployment of parts release 1, now probation, is given up." in line for line in said)


def test_the_version_that_runs_is_not_imported_again(
    device: DeviceAtHand, versions: list[package.Package], stick: Path, run: Run
) -> None:
    device.install(versions[0])
    device.begin()
    for source in (versions[0].folder, stick / "parts.tar"):
        if source.name == "parts.tar":
            archive.pack(versions[0].folder, source)
        status, _, said = run(source, "--yes")
        assert status == 5
        assert any("is the version that runs: there is nothing to do." in line for line in said)
        assert staged(device) == []


def test_a_deployment_of_the_fleet_that_is_given_up_is_named_before(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    device.install(versions[0])
    device.not_now = lambda: HoldReason.LINE_BUSY
    device.fleet.publish(versions[1])
    device.ask_for(versions[1])
    device.begin()
    wait_for(lambda: (attempt := device.attempt()) is not None and attempt.hold is not None)
    status, _, said = run(versions[2].folder, "--yes", "--no-wait")
    assert status == 0
    assert said[0] == "The deployment of parts release 2, now staged, is given up."


def test_nothing_is_copied_before_the_person_says_yes(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    assert run(versions[0].folder)[0] == 2
    assert staged(device) == []


def test_a_data_folder_that_is_no_agents_is_refused(
    device: DeviceAtHand, versions: list[package.Package], run: Run, tmp_path: Path
) -> None:
    status, _, said = run(versions[0].folder, "--yes", "--data-dir", tmp_path / "nowhere")
    assert status == 7
    assert "no agent has its files there" in said[0]
    assert not (tmp_path / "nowhere").exists()


def test_what_an_import_that_was_killed_has_left_is_swept_by_the_next(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    left = device.root / "imports" / ".tmp-123-456"
    (left / "package").mkdir(parents=True)
    (left / "package" / "model.onnx").write_bytes(b"half")
    os.utime(left, (0, 0))
    assert run(versions[0].folder, "--yes")[0] == 0
    assert staged(device) == [versions[0].digest]


def test_what_was_copied_is_removed_where_the_agent_refuses_the_order(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(versions[0])
    device.rules = Rules(probation=ProbationLimits(parts=100))
    device.fleet.publish(versions[1])
    device.begin()
    whole = bundle.stage

    def meanwhile(*args: object, **more: object) -> bundle.Staged:
        made = whole(*args, **more)  # type: ignore[arg-type]
        device.ask_for(versions[1])  # which the fleet asks for while the stick is copied
        wait_for(lambda: (attempt := device.attempt()) is not None and attempt.state.value == "probation")
        return made

    monkeypatch.setattr(bundle, "stage", meanwhile)
    status, _, said = run(versions[2].folder, "--yes")
    assert status == 5
    assert any(line.startswith("error: The agent did not take the order: Version ") for line in said)
    assert staged(device) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_what_root_brings_and_orders_belongs_to_the_user_the_agent_runs_as(
    device: DeviceAtHand, versions: list[package.Package], run: Run
) -> None:
    os.chown(device.data_dir, 65534, 65534)
    assert run(versions[0].folder, "--yes")[0] == 0
    owners = {path.relative_to(device.root).as_posix(): path.stat().st_uid for path in device.root.rglob("*")}
    assert set(owners.values()) == {65534}, owners
    assert device.root.stat().st_uid == 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_what_root_writes_never_appears_under_its_name_as_roots(
    device: DeviceAtHand, versions: list[package.Package], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an agent that looks at that moment may not read it, and Ctrl-C leaves it like that."""
    device.install(*versions[:2])
    for path in (device.data_dir, *device.data_dir.rglob("*")):
        os.chown(path, 65534, 65534)
    renamed: list[str] = []
    rename = Disk.rename

    def looked_at(disk: Disk, source: Path, target: Path) -> None:
        for path in (source, source.parent):
            assert path.stat().st_uid == 65534, path
        renamed.append(target.name.partition(".")[2] or target.name)
        rename(disk, source, target)

    monkeypatch.setattr(Disk, "rename", looked_at)
    for command in (["rollback", "parts", "--yes"], ["pin", "parts@1"]):
        assert cli.main(["models", *command]) == 0
    assert cli.main(["line", "busy", "--for", "8h"]) == 0
    assert renamed == ["order.json", "json", "json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_ctrl_c_as_the_first_orders_folder_is_made_leaves_it_to_the_agents_user(
    device: DeviceAtHand, versions: list[package.Package], monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(*versions[:2])
    os.chown(device.data_dir, 65534, 65534)
    shutil.rmtree(device.root / "orders", ignore_errors=True)
    mkdir = Path.mkdir

    def interrupted(path: Path, *arguments: int, **named: bool) -> None:
        mkdir(path, *arguments, **named)
        if path.name == "orders":
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    assert cli.main(["models", "rollback", "parts", "--yes"]) == 130
    assert (device.root / "orders").stat().st_uid == 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_ctrl_c_right_after_the_copy_leaves_it_to_the_agents_user_who_can_remove_it(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(versions[0])
    os.chown(device.data_dir, 65534, 65534)
    stage = bundle.stage

    def interrupted(*arguments: object, **named: object) -> None:
        stage(*arguments, **named)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "stage", interrupted)
    assert run(versions[1].folder, "--yes")[0] == 130
    assert staged(device) == [versions[1].digest]
    owners = {path: path.stat().st_uid for path in (device.root / "imports").rglob("*")}
    assert set(owners.values()) == {65534}, owners


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_user_who_may_not_write_there_is_told_who_may(
    device: DeviceAtHand, versions: list[package.Package], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(*versions[:2])
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # which root always may
    status, _, said = run(versions[2].folder, "--yes")
    assert status == 9
    assert said[0] == f"error: This user may not write in {device.root}."
    assert said[1] == "       Give the order as the user that the agent runs as, or with sudo."
    assert cli.main(["models", "rollback", "parts", "--yes"]) == 9
    assert cli.main(["models", "pin", "parts@1"]) == 9
