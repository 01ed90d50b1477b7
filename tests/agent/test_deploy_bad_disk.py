"""A disk that cannot be read in places, or written at all: what lies whole on it is loaded, and gone back to."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.deploy.durable import Disk, failure
from agent.deploy.facts import Installed
from agent.deploy.orders import Order, OrderKind
from agent.deploy.outlook import Rules
from agent.deploy.probation import ProbationLimits
from tests.support.deploying import MODEL, MemoryFleet, TestDevice, make_package, wanted
from wire import package
from wire.deployment import DeploymentState as S
from wire.errors import LinesideError

SLOWLY = ProbationLimits(parts=20, watch_s=600.0)
_NUMBERS = itertools.count(1)
Spoil = Callable[[Path], None]


@pytest.fixture
def releases(tmp_path: Path) -> list[package.Package]:
    return [make_package(tmp_path / f"v{release}", release) for release in (1, 2, 3)]


@pytest.fixture
def device(tmp_path: Path, releases: list[package.Package]) -> TestDevice:
    """A device on which versions 1 and 2 succeeded, one after the other."""
    made = TestDevice(root=tmp_path / "device", fleet=MemoryFleet())
    made.boot()
    for found in releases:
        made.fleet.publish(found)
    for found in releases[:2]:
        made.run(wanted(found))
    return made


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Have a file answer with the error of a bad sector from now on, under each of its names; a new file is sound."""
    bad: set[int] = set()
    really = package.digest_of_file

    def read(path: Path) -> str:
        if path.stat().st_ino in bad:
            raise OSError(errno.EIO, "Input/output error")
        return really(path)

    monkeypatch.setattr(package, "digest_of_file", read)
    return lambda path: bad.add(path.stat().st_ino)


def model_of(device: TestDevice, found: package.Package) -> Path:
    return device.root / "store" / "packages" / found.digest / "model.onnx"


def rollback(device: TestDevice, found: package.Package) -> None:
    device.orders.give(
        Order(
            id=f"0195e0c0-0000-7000-8000-{next(_NUMBERS):012d}",
            kind=OrderKind.ROLLBACK,
            model=MODEL,
            digest=found.digest,
            at=device.clock.now_utc(),
        )
    )


def test_where_the_current_version_cannot_be_read_the_one_before_and_every_other_model_are_loaded(
    device: TestDevice, releases: list[package.Package], spoil: Spoil, tmp_path: Path
) -> None:
    other = make_package(tmp_path / "other", 1, model="screws")
    device.fleet.publish(other)
    device.run(wanted(other))
    spoil(model_of(device, releases[1]))
    device.boot()
    assert [found.digest for found in device.runner.boot_choices(MODEL)] == [releases[0].digest]
    assert [found.digest for found in device.runner.boot_choices("screws")] == [other.digest]


def test_a_version_that_cannot_be_read_is_downloaded_again(
    device: TestDevice, releases: list[package.Package], spoil: Spoil
) -> None:
    spoil(model_of(device, releases[1]))
    device.boot()
    device.run(wanted(releases[1], number=50))
    assert device.states(50)[-1] is S.SUCCEEDED
    assert device.store.package(releases[1].digest).digest == releases[1].digest


def test_want_of_file_handles_is_no_damage(
    device: TestDevice, releases: list[package.Package], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(package, "digest_of_file", refuse)
    with pytest.raises(LinesideError) as raised:
        device.store.damage(releases[1].index)
    assert raised.value.code == "storage.corrupt"
    assert device.store.missing(releases[1].index) == ()


def test_a_former_version_that_cannot_be_read_ends_the_way_back_in_words(
    device: TestDevice, releases: list[package.Package], spoil: Spoil
) -> None:
    device.options = replace(device.options, rules=Rules(probation=SLOWLY))
    device.boot()
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.PROBATION
    spoil(model_of(device, releases[1]))
    device.boot(crashed=True)
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.FAILED_REVERT_FAILED
    assert "Input/output error" in device.reports[-1].reason


def refusing(name: str, code: int = errno.ENOSPC) -> Callable[[str], None]:
    def before(boundary: str) -> None:
        if boundary == name:
            raise OSError(code, "The disk refuses")

    return before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_start_that_cannot_write_the_journal_loads_the_current_version(
    device: TestDevice, releases: list[package.Package], code: int
) -> None:
    """A full disk is just what a deployment is held for: the device is started with one all the time."""
    device.room_bytes = lambda: 0
    device.boot()
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.DOWNLOADING
    device.before = refusing(f"write {MODEL}.json", code)
    device.boot()
    assert device.activator.in_use == releases[1].digest


def test_a_crash_in_probation_that_cannot_be_written_down_decides_all_the_same(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.options = replace(device.options, rules=Rules(probation=SLOWLY))
    device.boot()
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.PROBATION
    device.before = refusing(f"write {MODEL}.json")
    device.boot(crashed=True)
    assert device.activator.in_use == releases[1].digest
    with pytest.raises(LinesideError) as raised:
        device.runner.step(wanted(releases[2]))
    assert raised.value.code == "storage.full"
    device.store._disk.before = lambda _: None  # there is room again
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.FAILED_REVERTED
    device.before = None
    device.boot()
    assert device.activator.in_use == releases[1].digest


def test_a_lost_record_of_what_is_installed_that_cannot_be_written_is_still_known_from_the_journal(
    device: TestDevice, releases: list[package.Package]
) -> None:
    (device.root / "store" / "models" / f"{MODEL}.json").write_bytes(b"")
    device.before = refusing(f"write {MODEL}.json")
    device.boot()
    assert next(device.runner.boot_choices(MODEL)).digest == releases[1].digest


@pytest.mark.parametrize("what", ["download", "folder", "answer", "import", "journal"])
def test_what_cannot_be_tidied_at_a_start_keeps_no_model_from_being_loaded(
    device: TestDevice, releases: list[package.Package], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = device.root / "store"
    leftover = {
        "download": store / "incoming" / f"{'e' * 64}.part",
        "folder": store / "packages" / ".tmp-half",
        "answer": store / "orders" / "old.answer.json",
        "import": store / "imports" / ".tmp-half",
        "journal": device.root / "journal" / ".tmp-parts.json",
    }[what]
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"half")
    os.utime(leftover, (0, 0))
    refused = []

    def refuse(self: Disk, path: Path) -> None:
        if path == leftover:
            refused.append(path)
            raise failure(path, OSError(errno.EROFS, "Read-only file system"))

    monkeypatch.setattr(Disk, "remove", refuse)
    device.boot()
    assert refused == [leftover]
    assert device.activator.in_use == releases[1].digest


def test_a_way_back_to_a_version_whose_index_is_damaged_needs_no_network(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.boot()
    blob = device.store.blob_path(releases[0].digest)
    blob.write_bytes(b"damaged")
    device.fleet.blobs.clear()
    device.run(wanted(releases[1]))  # collects what nothing needs
    rollback(device, releases[0])
    device.run(wanted(releases[1]))
    assert device.activator.in_use == releases[0].digest
    assert device.reports[-1].state is S.SUCCEEDED, device.reports[-1].reason
    assert device.reports[-1].release == 1
    assert blob.read_bytes() == package.index_bytes(releases[0].index)


def test_an_index_that_is_lost_between_download_and_verification_is_made_anew(
    device: TestDevice, releases: list[package.Package]
) -> None:
    rollback(device, releases[0])
    device.fleet.blobs.clear()
    while (S.VERIFYING) not in device.states()[-1:]:
        assert device.runner.step(wanted(releases[1]))
    device.store.blob_path(releases[0].digest).unlink()
    device.run(wanted(releases[1]))
    assert device.activator.in_use == releases[0].digest


def test_the_blobs_of_a_kept_version_are_needed_though_its_index_cannot_be_read(
    device: TestDevice, releases: list[package.Package]
) -> None:
    keep = (releases[0].digest, releases[1].digest)
    before = device.store.unneeded(keep)
    device.store.blob_path(releases[0].digest).write_bytes(b"damaged")
    assert device.store.unneeded(keep) == before == ()


@pytest.mark.parametrize("path", ["model.onnx", "manifest.toml", "golden/part.bin"])
def test_a_way_back_to_a_version_that_lost_a_blob_takes_it_from_its_folder(
    device: TestDevice, releases: list[package.Package], path: str
) -> None:
    listed = releases[0].index.file(path)
    assert listed is not None
    device.store.blob_path(listed.digest).unlink()
    device.fleet.blobs.clear()
    rollback(device, releases[0])
    device.run(wanted(releases[1]))
    assert device.activator.in_use == releases[0].digest, device.reports[-1].reason
    assert device.store.missing(releases[0].index) == ()


@pytest.mark.parametrize("lost", ["", "model.onnx", "manifest.toml"])
def test_a_version_whose_folder_is_not_whole_is_made_anew_of_its_blobs_at_the_start(
    device: TestDevice, releases: list[package.Package], lost: str
) -> None:
    """A file system that was repaired has lost names, or one that cannot link has copies, of which one is damaged."""
    folder = device.root / "store" / "packages" / releases[1].digest
    if lost:
        (folder / lost).unlink()
    else:
        shutil.rmtree(folder)
    device.boot()
    assert device.activator.in_use == releases[1].digest
    assert device.store.package(releases[1].digest).digest == releases[1].digest


def test_the_former_version_is_made_anew_of_its_blobs_for_the_way_back(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.options = replace(device.options, rules=Rules(probation=SLOWLY))
    device.boot()
    device.run(wanted(releases[2]))
    (device.root / "store" / "packages" / releases[1].digest / "model.onnx").unlink()
    rollback(device, releases[1])
    device.run(wanted(releases[2]))
    assert device.states(3)[-1] is S.FAILED_REVERTED
    assert device.activator.in_use == releases[1].digest


def test_with_a_lost_record_of_what_is_installed_the_version_before_stays_at_hand(
    device: TestDevice, releases: list[package.Package]
) -> None:
    (device.root / "store" / "models" / f"{MODEL}.json").unlink()
    device.boot()
    assert device.store.installed(MODEL) == Installed(current=releases[1].digest, previous=releases[0].digest)
    device.fleet.blobs.clear()
    rollback(device, releases[0])
    device.run(wanted(releases[1]))
    assert device.activator.in_use == releases[0].digest


def test_a_version_that_was_taken_back_is_not_at_hand_after_the_record_is_lost(
    device: TestDevice, releases: list[package.Package]
) -> None:
    device.options = replace(device.options, rules=Rules(probation=SLOWLY))
    device.boot()
    device.run(wanted(releases[0], number=50))
    device.boot(crashed=True)
    device.run(wanted(releases[0], number=50))
    assert device.states(50)[-1] is S.FAILED_REVERTED
    (device.root / "store" / "models" / f"{MODEL}.json").unlink()
    device.boot()
    assert device.store.installed(MODEL) == Installed(current=releases[1].digest)
