"""A package as one file: the same bytes each time, the same digest afterwards, and nothing hostile comes out of it."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import tiny_models
from wire import archive, package
from wire.errors import REGISTER, LinesideError


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[package.Package, bytes]:
    folder = tmp_path_factory.mktemp("packed")
    found = tiny_models.make(folder / "p")
    archive.pack(found.folder, folder / "p.tar")
    return found, (folder / "p.tar").read_bytes()


def unpack(data: bytes, tmp_path: Path) -> package.Package:
    (tmp_path / "a.tar").write_bytes(data)
    return archive.unpack(tmp_path / "a.tar", tmp_path / "out" / "p")


def refusal_of(data: bytes, tmp_path: Path) -> str:
    with pytest.raises(LinesideError) as caught:
        unpack(data, tmp_path)
    left = [path for path in tmp_path.rglob("*") if path.name not in ("a.tar", "out")]
    assert left == [], "something was left behind"
    assert caught.value.code in REGISTER
    return caught.value.code


def test_what_is_unpacked_is_what_was_packed(packed: tuple[package.Package, bytes], tmp_path: Path) -> None:
    found, data = packed
    again = unpack(data, tmp_path)
    assert (again.digest, again.index) == (found.digest, found.index)
    for file in found.index.files:
        assert (again.folder / file.path).read_bytes() == (found.folder / file.path).read_bytes()


def test_two_packs_are_the_same_bytes_whatever_the_times_and_rights(
    packed: tuple[package.Package, bytes], tmp_path: Path
) -> None:
    _, data = packed
    again = unpack(data, tmp_path)
    os.utime(again.folder / "manifest.toml", (1, 1))
    (again.folder / "manifest.toml").chmod(0o600)
    archive.pack(again.folder, tmp_path / "second.tar")
    assert (tmp_path / "second.tar").read_bytes() == data


def test_another_tool_can_read_it(packed: tuple[package.Package, bytes]) -> None:
    found, data = packed
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["index.json", *(file.path for file in found.index.files)]
        assert all(member.mtime == 0 and member.isreg() for member in tar)


def test_long_names_are_split_and_too_long_ones_refused(tmp_path: Path) -> None:
    found = tiny_models.make(tmp_path / "p")
    (found.folder / "deep" / ("d" * 90)).mkdir(parents=True)
    (found.folder / "deep" / ("d" * 90) / ("f" * 90)).write_bytes(b"x")
    packed = archive.pack(found.folder, tmp_path / "p.tar")
    assert archive.unpack(tmp_path / "p.tar", tmp_path / "q").digest == packed.digest

    (found.folder / ("f" * 150)).write_bytes(b"x")
    with pytest.raises(LinesideError, match="too long") as caught:
        archive.pack(found.folder, tmp_path / "r.tar")
    assert caught.value.code == "package.invalid"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "p.tar", "q"]


def test_nothing_that_exists_is_overwritten(packed: tuple[package.Package, bytes], tmp_path: Path) -> None:
    found, data = packed
    (tmp_path / "a.tar").write_bytes(data)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for act in (
        lambda: archive.unpack(tmp_path / "a.tar", tmp_path / "full"),
        lambda: archive.pack(found.folder, tmp_path / "a.tar"),
    ):
        with pytest.raises(LinesideError) as caught:
            act()
        assert caught.value.code == "resource.conflict"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def with_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def changed(data: bytes, member: str, change: Callable[[bytearray], None]) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        offset = tar.getmember(member).offset
    header = bytearray(data[offset : offset + 512])
    change(header)
    return data[:offset] + with_checksum(header) + data[offset + 512 :]


def named(path: bytes) -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        header[:100] = path.ljust(100, b"\0")

    return change


def typed(kind: bytes, target: bytes = b"") -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        header[156:157] = kind
        header[157:257] = target.ljust(100, b"\0")

    return change


def sized(field: bytes) -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        header[124:136] = field

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (named(b"../manifest.toml"), "package.unsafe_path"),
        (named(b"/etc/passwd"), "package.unsafe_path"),
        (named(b"a/../../b"), "package.unsafe_path"),
        (named(b".hidden"), "package.unsafe_path"),
        (named(b"a\\b"), "package.unsafe_path"),
        (named(b"a//b"), "package.unsafe_path"),
        (named(b""), "package.unsafe_path"),
        (named("ä".encode()), "package.unsafe_path"),
        (named(b"manifest.toml\n"), "package.unsafe_path"),
        (named(b"golden/blue.png"), "package.damaged"),
        (typed(b"2", b"/etc/passwd"), "package.unsafe_entry"),
        (typed(b"1", b"model.onnx"), "package.unsafe_entry"),
        (typed(b"5"), "package.unsafe_entry"),
        (typed(b"3"), "package.unsafe_entry"),
        (typed(b"6"), "package.unsafe_entry"),
        (typed(b"L"), "package.unsafe_entry"),
        (typed(b"x"), "package.unsafe_entry"),
        (typed(b"S"), "package.unsafe_entry"),
        (sized(b"77777777777\0"), "package.too_large"),
        (sized(b"\x80" + bytes(11)), "package.damaged"),
        (sized(b"-0000000001\0"), "package.damaged"),
        (sized(b"00000000001\0"), "package.damaged"),
    ],
)
def test_a_hostile_entry_is_refused_with_a_code(
    packed: tuple[package.Package, bytes], change: Callable[[bytearray], None], code: str, tmp_path: Path
) -> None:
    assert refusal_of(changed(packed[1], "manifest.toml", change), tmp_path) == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data[:-1], "package.archive_truncated"),
        (lambda data: data[:-1024], "package.archive_truncated"),
        (lambda data: data[: len(data) // 2], "package.archive_truncated"),
        (lambda data: data[:511], "package.not_an_archive"),
        (lambda data: b"", "package.not_an_archive"),
        (lambda data: b"PK\x03\x04" + data, "package.not_an_archive"),
        (lambda data: bytes(2048), "package.not_an_archive"),
        (lambda data: data + b"\0", "package.damaged"),
        (lambda data: data.replace(b"red-is-bad", b"red-is-god"), "package.damaged"),
        (lambda data: data.replace(b'"release":1', b'"release":2'), "package.invalid"),
        (lambda data: data.replace(b'"schema":1}', b'"schema":9}'), "package.invalid"),
        (lambda data: data.replace(b'"path":"model.onnx"', b'"path":"../el.onnx"'), "package.invalid"),
    ],
)
def test_a_damaged_archive_is_refused_with_a_code(
    packed: tuple[package.Package, bytes], change: Callable[[bytes], bytes], code: str, tmp_path: Path
) -> None:
    assert change(packed[1]) != packed[1]
    assert refusal_of(change(packed[1]), tmp_path) == code


def test_any_flipped_bit_is_noticed(packed: tuple[package.Package, bytes], tmp_path: Path) -> None:
    generator = random.Random(20261121)
    for _ in range(150):
        data = bytearray(packed[1])
        at = generator.randrange(len(data))
        data[at] ^= 1 << generator.randrange(8)
        assert refusal_of(bytes(data), tmp_path).startswith("package.")
