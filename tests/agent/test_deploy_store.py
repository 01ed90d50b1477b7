"""The store, and the file operations under it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.deploy.durable import TEMPORARY, Disk
from agent.deploy.facts import Installed
from agent.deploy.part import SYNC_BYTES
from agent.deploy.store import Store
from tests.support.deploying import MemoryFleet, make_package, whole_files
from wire import package
from wire.errors import LinesideError


@pytest.fixture
def found(tmp_path: Path) -> package.Package:
    return make_package(tmp_path / "v1", 1)


def filled(root: Path, *packages: package.Package) -> Store:
    store = Store(root)
    fleet = MemoryFleet()
    for found in packages:
        fleet.publish(found)
        for digest in (found.digest, *(file.digest for file in found.index.files)):
            store.incoming_path(digest).write_bytes(fleet.blobs[digest])
            store.adopt(digest)
        store.materialise(found.digest, found.index)
    return store


def test_a_package_made_of_blobs_is_the_package_that_was_published(tmp_path: Path, found: package.Package) -> None:
    store = filled(tmp_path / "store", found)
    made = store.package(found.digest)
    assert (made.digest, made.index, made.manifest) == (found.digest, found.index, found.manifest)
    assert store.index(found.digest) == found.index
    listed = found.index.file("model.onnx")
    assert listed is not None
    assert made.model_path.samefile(store.blob_path(listed.digest)), "blobs are linked, not copied"


def test_files_are_copied_where_the_file_system_cannot_link(
    tmp_path: Path, found: package.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    made = filled(tmp_path / "store", found).package(found.digest)
    assert made.model_path.stat().st_nlink == 1


def test_a_package_with_one_changed_byte_is_not_given_out(tmp_path: Path, found: package.Package) -> None:
    store = filled(tmp_path / "store", found)
    path = store.package(found.digest).model_path
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(LinesideError) as raised:
        store.package(found.digest)
    assert raised.value.code == "storage.corrupt"
    damage = store.damage(found.index)
    assert damage is not None
    assert [file.path for file in store.missing(found.index)] == ["model.onnx"]


def test_committing_twice_keeps_the_previous_version(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for digest in ("a" * 64, "b" * 64, "b" * 64):
        store.commit("parts", digest)
    assert store.installed("parts") == Installed(current="b" * 64, previous="a" * 64)
    store.restore("parts", "a" * 64)
    assert store.installed("parts") == Installed(current="a" * 64, previous=None)
    assert store.models() == ("parts",)


def test_leftovers_of_interrupted_writes_are_swept_and_nothing_else(tmp_path: Path, found: package.Package) -> None:
    store = filled(tmp_path / "store", found)
    store.commit("parts", found.digest)
    before = list(whole_files(tmp_path / "store"))
    (tmp_path / "store" / "packages" / f"{TEMPORARY}half").mkdir()
    (tmp_path / "store" / "packages" / f"{TEMPORARY}half" / "model.onnx").write_bytes(b"half")
    (tmp_path / "store" / "models" / f"{TEMPORARY}parts.json").write_bytes(b"{")
    (tmp_path / "store" / "incoming" / "half.part").write_bytes(b"half")
    (tmp_path / "store" / "incoming" / ("f" * 64)).write_bytes(b"whole, but never taken")
    (tmp_path / "store" / "incoming" / f"{'e' * 64}.part").write_bytes(b"less than what is made durable at once")
    store.sweep()
    assert list(whole_files(tmp_path / "store")) == before


def test_what_a_start_keeps_of_a_download_is_what_was_made_durable(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.part("a" * 64) as part:
        part.write(b"x" * (2 * SYNC_BYTES + 5))
    assert store.part_bytes("a" * 64) == store.incoming_bytes() == 2 * SYNC_BYTES + 5
    store.sweep()
    assert store.part_bytes("a" * 64) == 2 * SYNC_BYTES
    assert store.unneeded(()) == ("a" * 64,)
    store.collect(["a" * 64])
    assert store.incoming_bytes() == 0


def test_each_mib_of_a_download_is_durable_before_the_next_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []
    really_write = os.write
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: order.append(-os.fstat(descriptor).st_size))
    monkeypatch.setattr(os, "write", lambda descriptor, data: order.append(n := really_write(descriptor, data)) or n)
    with Store(tmp_path).part("a" * 64) as part:
        for _ in range(5):
            part.write(b"x" * 700_000)
    written = 0
    durable = 0
    for event in order:
        if event < 0:
            durable = -event
        else:
            written += event
            assert written - durable <= SYNC_BYTES
    assert written == 3_500_000
    assert durable == 3 * SYNC_BYTES


def test_a_disk_that_fills_up_in_mid_download_keeps_what_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Store(tmp_path).part("a" * 64) as part:
        part.write(b"12345")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(LinesideError) as raised:
                part.write(b"6")
        assert raised.value.code == "storage.full"
        part.write(b"6")
    assert Store(tmp_path).part_bytes("a" * 64) == 6


def test_collection_leaves_what_is_kept_and_the_blobs_it_shares(tmp_path: Path) -> None:
    packages = [make_package(tmp_path / f"v{release}", release) for release in (1, 2, 3)]
    store = filled(tmp_path / "store", *packages)
    store.collect(store.unneeded({packages[1].digest, packages[2].digest}))
    for kept in packages[1:]:
        assert store.package(kept.digest).digest == kept.digest
        assert store.missing(kept.index) == ()
    with pytest.raises(LinesideError):
        store.package(packages[0].digest)
    assert store.unneeded({packages[1].digest, packages[2].digest}) == ()


def test_a_full_disk_has_a_name_and_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    disk = Disk()
    disk.write(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LinesideError) as raised:
        disk.write(path, b"new")
    assert raised.value.code == "storage.full"
    assert path.read_bytes() == b"old"


def test_a_write_syncs_the_bytes_before_the_name_and_the_name_before_it_returns(tmp_path: Path) -> None:
    order: list[str] = []
    Disk(order.append).write(tmp_path / "record.json", b"new")
    assert order == [
        "write record.json",
        "fill record.json",
        "sync record.json",
        "rename record.json",
        f"sync folder {tmp_path.name}",
    ]
