"""Packages from a stick or folder: what is found, what is copied, and what hostile or dying sticks leave behind."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.deploy import bundle, download
from agent.deploy.bundle_search import Found, search
from agent.deploy.durable import Disk
from agent.deploy.store import Store
from tests.support.deploying import make_package
from wire import archive, package
from wire.errors import LinesideError


@pytest.fixture
def made(tmp_path: Path) -> package.Package:
    return make_package(tmp_path / "made", 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "models"


def one(path: Path) -> Found:
    (found,), unusable = search(path)
    assert unusable == ()
    return found


def packed(made: package.Package, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    archive.pack(made.folder, file)
    return file


def left_behind(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "imports").glob("*"))


def refusal_of(found: Path | Found, root: Path, **more: Any) -> LinesideError:
    with pytest.raises(LinesideError) as raised:
        bundle.stage(found if isinstance(found, Found) else one(found), root, **more)
    assert left_behind(root) == [], "nothing is left of an import that failed"
    return raised.value


# What is copied


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_a_staged_version_downloads_into_the_store_as_any_other(
    tmp_path: Path, made: package.Package, root: Path, kind: str
) -> None:
    source = packed(made, tmp_path / "stick" / "parts.tar") if kind == "archive" else made.folder
    copied: list[int] = []
    staged = bundle.stage(one(source), root, progress=copied.append)
    assert (staged.model, staged.release, staged.digest) == ("parts", 1, made.digest)
    assert sum(copied) == staged.bytes == made.index.total_bytes
    assert left_behind(root) == [made.digest]
    store = Store(root)
    for _ in range(20):
        if download.fetch_next(store, bundle.FolderSource(root, made.digest), made.digest, lambda: True):
            break
    assert store.index(made.digest) == made.index
    store.materialise(made.digest, made.index)
    assert store.package(made.digest).digest == made.digest
    bundle.discard(root, made.digest)
    assert left_behind(root) == []
    bundle.discard(root, made.digest)


def test_a_second_import_of_a_version_replaces_damaged_bytes_of_the_first(
    tmp_path: Path, made: package.Package, root: Path
) -> None:
    staged = bundle.stage(one(made.folder), root)
    folder = bundle.imports_folder(root, staged.digest)
    listed = made.index.file("model.onnx")
    assert listed is not None
    (folder / listed.digest).write_bytes(b"rotten")
    bundle.stage(one(made.folder), root)
    assert package.digest_of_file(folder / listed.digest) == listed.digest


def test_a_download_from_the_imports_folder_goes_on_where_it_was_cut(tmp_path: Path, root: Path) -> None:
    made = make_package(tmp_path / "big", 3, model_bytes=5 * 1024 * 1024)
    bundle.stage(one(made.folder), root)
    store, source = Store(root), bundle.FolderSource(root, made.digest)
    asked = itertools.count()
    for _ in range(100):
        if download.fetch_next(store, source, made.digest, lambda: next(asked) % 3 != 2):
            break
    assert next(asked) > 10
    assert store.missing(made.index) == ()


def test_staged_bytes_that_have_gone_are_said_to_be_gone(made: package.Package, root: Path) -> None:
    with pytest.raises(LinesideError, match="has gone from this device") as raised:
        download.fetch_next(Store(root), bundle.FolderSource(root, made.digest), made.digest, lambda: True)
    assert raised.value.code == "resource.not_found"


def test_what_other_systems_leave_on_a_stick_is_no_part_of_a_package(made: package.Package, root: Path) -> None:
    for name in (".DS_Store", "._manifest.toml", "golden/._part.bin"):
        (made.folder / name).write_bytes(b"\x00\x05\x16\x07")
    assert bundle.stage(one(made.folder), root).digest == made.digest


# What is found


def test_a_stick_with_several_packages_is_listed_with_what_is_wrong_on_it(
    tmp_path: Path, made: package.Package
) -> None:
    stick = tmp_path / "stick"
    packed(made, stick / "parts-1.tar")
    shutil.copytree(make_package(tmp_path / "v2", 2).folder, stick / "models" / "parts-2")
    damaged = packed(make_package(tmp_path / "v3", 3), stick / "parts-3.tar")
    damaged.write_bytes(damaged.read_bytes()[:1200])
    (stick / "letter.txt").write_text("Dear colleague,")
    (stick / "photos.tar").write_bytes(_tar([("photo.jpg", b"x")]))
    (stick / "System Volume Information").mkdir()
    usable, unusable = search(stick)
    assert [(found.model, found.release, found.is_archive) for found in usable] == [
        ("parts", 1, True),
        ("parts", 2, False),
    ]
    assert [(found.path.name, found.error.code) for found in unusable] == [("parts-3.tar", "package.archive_truncated")]


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda path: None, "resource.not_found", "There is no"),
        (lambda path: path.mkdir(), "resource.not_found", "There is no model package in"),
        (lambda path: path.write_bytes(b""), "package.not_an_archive", "too short"),
        (lambda path: path.write_bytes(b"PK\x03\x04" * 400), "package.not_an_archive", "no archive of a package"),
        (lambda path: path.symlink_to("/etc"), "package.unsafe_entry", "is a link"),
        (os.mkfifo, "package.unsafe_entry", "neither a file nor a folder"),
    ],
    ids=["nothing", "empty folder", "empty file", "zip", "link", "pipe"],
)
def test_what_is_no_package_is_said_to_be_none(tmp_path: Path, make: Any, code: str, words: str) -> None:
    make(tmp_path / "thing")
    with pytest.raises(LinesideError, match=words) as raised:
        search(tmp_path / "thing")
    assert raised.value.code == code


def test_a_folder_without_end_is_not_walked_to_its_end(tmp_path: Path) -> None:
    for number in range(2001):
        (tmp_path / f"f{number}").touch()
    with pytest.raises(LinesideError, match="more than 2000 files"):
        search(tmp_path)


# Hostile


def _tar(entries: list[tuple[str, bytes]], **more: Any) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for key, value in more.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def test_an_archive_whose_index_names_a_path_outside_is_refused(tmp_path: Path, made: package.Package) -> None:
    index = package.index_bytes(made.index).replace(b'"card.md"', b'"../../card.md"')
    (tmp_path / "evil.tar").write_bytes(_tar([("index.json", index)]))
    with pytest.raises(LinesideError) as raised:
        search(tmp_path / "evil.tar")
    assert raised.value.code == "package.invalid"


def _evil_name(made: package.Package) -> bytes:
    return _tar([("index.json", package.index_bytes(made.index)), ("../../../etc/cron.d/own", b"x")])


def _evil_link(made: package.Package) -> bytes:
    good = _tar([("index.json", package.index_bytes(made.index))])
    link = _tar([("card.md", b"")], type=tarfile.SYMTYPE, linkname="/etc/passwd")
    return good[: 512 + (len(package.index_bytes(made.index)) + 511) // 512 * 512] + link


def _evil_length(made: package.Package) -> bytes:
    return _tar([("index.json", package.index_bytes(made.index)), ("card.md", b"x" * 5)])


@pytest.mark.parametrize(
    ("build", "code"),
    [(_evil_name, "package.unsafe_path"), (_evil_link, "package.unsafe_entry"), (_evil_length, "package.damaged")],
)
def test_a_hostile_archive_leaves_nothing_anywhere(
    tmp_path: Path, made: package.Package, root: Path, build: Any, code: str
) -> None:
    (tmp_path / "evil.tar").write_bytes(build(made))
    assert refusal_of(tmp_path / "evil.tar", root).code == code


def test_an_archive_cut_anywhere_leaves_nothing(tmp_path: Path, made: package.Package, root: Path) -> None:
    whole = packed(made, tmp_path / "whole.tar").read_bytes()
    found = one(tmp_path / "whole.tar")
    assert archive.packed_bytes(made.index) == len(whole)
    codes = set()
    for length in range(0, len(whole) - 1, 509):
        (tmp_path / "whole.tar").write_bytes(whole[:length])
        codes.add(refusal_of(found, root).code)
    assert codes == {"package.not_an_archive", "package.archive_truncated"}


def test_an_archive_with_any_byte_turned_is_refused(tmp_path: Path, made: package.Package, root: Path) -> None:
    whole = packed(made, tmp_path / "whole.tar").read_bytes()
    found = one(tmp_path / "whole.tar")
    for at in range(0, len(whole), 337):
        (tmp_path / "whole.tar").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refusal_of(found, root)


@pytest.mark.parametrize("name", ["golden/secret.bin", "golden2", "card2.md"])
def test_a_link_in_a_package_folder_is_refused(made: package.Package, root: Path, name: str) -> None:
    (made.folder / name).symlink_to("/etc" if name == "golden2" else "/etc/passwd")
    with pytest.raises(LinesideError, match="is a link or no plain file") as raised:
        search(made.folder)
    assert raised.value.code == "package.unsafe_entry"


def test_a_pipe_in_a_package_folder_is_not_waited_for(made: package.Package) -> None:
    os.mkfifo(made.folder / "golden" / "part2.bin")
    with pytest.raises(LinesideError, match="no plain file"):
        search(made.folder)


def test_a_file_that_becomes_a_link_while_the_folder_is_read_is_refused(made: package.Package, root: Path) -> None:
    found = one(made.folder)
    (made.folder / "card.md").unlink()
    (made.folder / "card.md").symlink_to("/etc/passwd")
    assert refusal_of(found, root).code == "package.unsafe_entry"


def test_a_folder_that_is_changed_while_it_is_read_is_refused(tmp_path: Path, root: Path) -> None:
    made = make_package(tmp_path / "big", 1, model_bytes=8 * 1024 * 1024)
    found = one(made.folder)

    def swap(_: int) -> None:
        (made.folder / "manifest.toml").write_text(
            (made.folder / "manifest.toml").read_text().replace("width_px = 16", "width_px = 32")
        )

    error = refusal_of(found, root, progress=swap)
    assert (error.code, "was changed while it was read" in error.message) == ("package.damaged", True)


def test_a_file_added_while_the_folder_is_read_is_noticed(made: package.Package, root: Path) -> None:
    found = one(made.folder)

    def add(_: int) -> None:
        (made.folder / "zz.md").write_text("late")

    assert refusal_of(found, root, progress=add).code == "package.damaged"


def test_an_archive_that_is_swapped_for_another_between_choice_and_copy_is_refused(
    tmp_path: Path, made: package.Package, root: Path
) -> None:
    path = packed(made, tmp_path / "parts.tar")
    found = one(path)
    path.unlink()
    packed(make_package(tmp_path / "other", 1, extra="# another\n"), path)
    assert refusal_of(found, root).code == "package.invalid"


def test_a_manifest_that_is_wrong_is_named_as_the_person_knows_it(made: package.Package, root: Path) -> None:
    found = one(made.folder)
    text = (made.folder / "manifest.toml").read_text()
    (made.folder / "manifest.toml").write_text(text.replace('name = "classify"', "nome = 1"))
    found = Found(path=made.folder, is_archive=False, model="parts", release=1, bytes=found.bytes)
    error = refusal_of(found, root)
    assert error.code == "model.manifest_invalid"
    assert str(made.folder / "manifest.toml") in error.message


# Disks and sticks that fail


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs more rights than this user has")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_what_does_not_fit_is_refused_before_anything_is_copied(tmp_path: Path, small_disk: Path) -> None:
    made = make_package(tmp_path / "big", 1, model_bytes=9_000_000)
    copied: list[int] = []
    error = refusal_of(made.folder, small_disk / "models", progress=copied.append)
    assert error.code == "storage.full"
    assert error.message == (
        "There is no room for parts release 1: it needs 22.2 MB while it is imported, 16.8 MB are free."
    )
    assert copied == []


def test_a_disk_that_fills_up_meanwhile_is_told_from_a_stick_that_fails(tmp_path: Path, small_disk: Path) -> None:
    made = make_package(tmp_path / "big", 1, model_bytes=6_000_000)
    found = one(made.folder)

    def fill(_: int) -> None:
        with contextlib.suppress(OSError), (small_disk / "others").open("wb", buffering=0) as stream:
            while stream.write(bytes(1 << 20)):
                pass

    error = refusal_of(found, small_disk / "models", progress=fill)
    assert error.code == "storage.full"
    assert "there is no room left" in error.message


def test_a_stick_that_is_pulled_out_half_way_is_named(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_package(tmp_path / "big", 1, model_bytes=6_000_000)
    for source in (made.folder, packed(made, tmp_path / "big.tar")):
        found = one(source)
        with monkeypatch.context() as patch:
            patch.setattr("agent.deploy.bundle.open_plain", _dies_after(2))
            error = refusal_of(found, root)
        assert error.code == "storage.unusable"
        assert "can no longer be read: Input/output error." in error.message
        assert error.next_step.startswith("Is the stick still plugged in")


def _dies_after(reads: int) -> Any:
    left = [reads]

    class Dying(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size) or b""

    return Dying


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_kill_at_any_moment_leaves_a_whole_version_or_something_that_is_swept(
    tmp_path: Path, made: package.Package, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for one_root in (tmp_path / "counted", root):
        (one_root / "imports").mkdir(parents=True)
    bundle.stage(one(made.folder), tmp_path / "counted", disk=Disk(seen.append))
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill tidies nothing up
    for number in range(len(seen)):
        left = [number]

        def end_here(_: str, left: list[int] = left) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1

        with pytest.raises(Killed):
            bundle.stage(one(made.folder), root, disk=Disk(end_here))
    monkeypatch.undo()
    names = left_behind(root)
    assert len([name for name in names if name.startswith(".tmp-")]) >= len(seen) - 2
    bundle.sweep(root)
    assert left_behind(root) == names, "what is young may be in the making"
    for path in (root / "imports").iterdir():
        os.utime(path, (0, 0))
    bundle.sweep(root)
    assert left_behind(root) == [made.digest]
    listed = {path.name for path in bundle.imports_folder(root, made.digest).iterdir()}
    assert listed == {made.digest, *(file.digest for file in made.index.files)}
    bundle.sweep(root, keep=(made.digest,))
    assert left_behind(root) == [made.digest]
    bundle.sweep(root, keep=())
    assert left_behind(root) == []


def test_an_import_that_cannot_be_removed_keeps_no_other_from_it(tmp_path: Path) -> None:
    """Root's, say, of an import that was killed: neither the agent's start nor the next import ends at it."""

    def refuse(boundary: str) -> None:
        if boundary == "remove .tmp-1":
            raise PermissionError(13, "Permission denied")

    for name in (".tmp-1", ".tmp-2"):
        folder = tmp_path / "imports" / name
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    bundle.sweep(tmp_path, disk=Disk(refuse))
    assert left_behind(tmp_path) == [".tmp-1"]
