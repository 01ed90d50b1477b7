"""A package as one file: a plain tar archive whose bytes follow from its content, and a reader for hostile ones.

First `index.json`, the package's index, whose SHA-256 names the version; then the files in the index's order. Regular
files only, no owner, no time, no compression: two packs of one package are the same bytes, and an archive can hold no
link, no device and no bomb. Source of the format: POSIX.1-1988 (ustar).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from wire import package
from wire.errors import LinesideError
from wire.package import Package, PackageIndex

INDEX_NAME: Final = "index.json"
MAX_INDEX_BYTES: Final = 1024 * 1024
_BLOCK: Final = 512
_PIECE: Final = 1024 * 1024
_NAME_BYTES, _PREFIX_BYTES = 100, 155
_GET_AGAIN: Final = "Get the archive again, from who packed it."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: str
    size: int


def pack(folder: Path, file: Path) -> Package:
    """Write a package folder as one archive; return the package.

    Raises:
        LinesideError: as `wire.package.read_folder`; `resource.conflict` where the file exists already, `storage.full`.
    """
    found = package.read_folder(folder)
    if file.exists():
        raise LinesideError("resource.conflict", f"{file} exists already.", "Choose another name, or remove it.")
    index = package.index_bytes(found.index)
    draft = file.with_name(f".{file.name}.{os.getpid()}.draft")
    try:
        with draft.open("xb") as stream:
            _write(stream, INDEX_NAME, len(index))
            stream.write(index + _padding(len(index)))
            for entry in found.index.files:
                _write(stream, entry.path, entry.bytes)
                _copy_file(folder / entry.path, stream, entry)
                stream.write(_padding(entry.bytes))
            stream.write(bytes(2 * _BLOCK))
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError as error:
        raise _storage(file, error) from error
    finally:
        draft.unlink(missing_ok=True)
    return found


def unpack(file: Path, folder: Path) -> Package:
    """Write an archive's package to a folder that is not there yet, or is empty; nothing is left where it is refused.

    Raises:
        LinesideError: `package.not_an_archive`, `package.archive_truncated`, `package.unsafe_entry` (a link, a device,
            a folder), `package.unsafe_path`, `package.too_large`, `package.damaged` (a file is not the one the index
            lists), `package.invalid`, `package.incomplete`, `model.manifest_invalid`, `resource.not_found`,
            `resource.conflict` or `storage.full`.
    """
    if not file.is_file():
        raise LinesideError("resource.not_found", f"There is no file {file}.", "Name an archive made by `model pack`.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LinesideError("resource.conflict", f"{folder} exists already.", "Choose a folder that does not exist.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            with file.open("rb") as stream:
                index = _extract(stream, draft, file.name)
            draft.chmod(0o755)
            found = package.read_folder(draft)
            if found.digest != package.digest_of(index):
                raise LinesideError(
                    "package.invalid", f"{file.name}: its index and its manifest name different versions.", _GET_AGAIN
                )
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise _storage(folder, error) from error
    return package.read_folder(folder)


def read_index(stream: IO[bytes], name: str) -> PackageIndex:
    """Read the index at the beginning of an archive; `read_files` goes on from there.

    Args:
        name: of the archive, for the person who reads the error.

    Raises:
        LinesideError: as `unpack`; an OSError of the stream is passed on.
    """
    first = next(_entries(stream, name), None)
    if first is None or first.name != INDEX_NAME:
        raise LinesideError("package.not_an_archive", f"{name} does not begin with {INDEX_NAME}.", _GET_AGAIN)
    if first.size > MAX_INDEX_BYTES:
        raise LinesideError("package.too_large", f"{name}: {INDEX_NAME} has {first.size} bytes.", _GET_AGAIN)
    index = package.read_index(_read(stream, first.size, name))
    _skip_padding(stream, first.size, name)
    return index


def packed_bytes(index: PackageIndex) -> int:
    """Return how long the archive of a package is."""
    lengths = (len(package.index_bytes(index)), *(file.bytes for file in index.files))
    return sum(_BLOCK + length + len(_padding(length)) for length in lengths) + 2 * _BLOCK


def read_files(
    stream: IO[bytes], name: str, index: PackageIndex
) -> Iterator[tuple[package.PackageFile, Iterator[bytes]]]:
    """Yield each file that the index lists, and its bytes, which must be read before the next file is asked for.

    That the archive is as its index says is only known when this has come to its end.

    Raises:
        LinesideError: as `unpack`; an OSError of the stream is passed on.
    """
    entries = _entries(stream, name, is_first=False)
    for listed in index.files:
        entry = next(entries, None)
        if entry is None:
            raise LinesideError(
                "package.incomplete", f"{name} lacks {listed.path!r}, which its index lists.", _GET_AGAIN
            )
        if entry.name != listed.path or entry.size != listed.bytes:
            raise LinesideError(
                "package.damaged",
                f"{name} holds {entry.name!r} ({entry.size} bytes) where its index lists {listed.path!r} "
                f"({listed.bytes} bytes).",
                _GET_AGAIN,
            )
        yield listed, _checked(stream, name, listed)
        _skip_padding(stream, listed.bytes, name)
    if next(entries, None) is not None:
        raise LinesideError("package.damaged", f"{name} holds a file that its index does not list.", _GET_AGAIN)


def _checked(stream: IO[bytes], name: str, listed: package.PackageFile) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for piece in _pieces(stream, listed.bytes, name):
        digest.update(piece)
        yield piece
    if digest.hexdigest() != listed.digest:
        raise LinesideError("package.damaged", f"{name}: {listed.path!r} is not the file its index lists.", _GET_AGAIN)


def _extract(stream: IO[bytes], folder: Path, name: str) -> PackageIndex:
    index = read_index(stream, name)
    for listed, pieces in read_files(stream, name, index):
        target = folder / listed.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            for piece in pieces:
                out.write(piece)
    return index


def _entries(stream: IO[bytes], name: str, *, is_first: bool = True) -> Iterator[_Entry]:
    """Yield each entry; the caller reads its bytes and their padding before it asks for the next."""
    while True:
        header = stream.read(_BLOCK)
        if len(header) < _BLOCK:
            raise LinesideError(
                "package.not_an_archive" if is_first else "package.archive_truncated",
                f"{name} is {'too short' if is_first else 'cut short'}.",
                _GET_AGAIN,
            )
        if header == bytes(_BLOCK) and not is_first:
            if stream.read(_BLOCK) != bytes(_BLOCK):
                raise LinesideError("package.archive_truncated", f"{name} is cut short at its end.", _GET_AGAIN)
            if stream.read(1):
                raise LinesideError("package.damaged", f"{name} goes on after its end.", _GET_AGAIN)
            return
        yield _entry(header, name, is_first=is_first)
        is_first = False


def _entry(header: bytes, name: str, *, is_first: bool) -> _Entry:
    path = _text(header[:_NAME_BYTES])
    size, checksum = _octal(header[124:136]), _octal(header[148:156])
    if (
        header[257:265] != b"ustar\x0000"
        or checksum != sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
        or size is None
    ):
        raise LinesideError(
            "package.not_an_archive" if is_first else "package.damaged",
            f"{name} {'is no archive of a package' if is_first else 'holds a damaged entry'}.",
            _GET_AGAIN,
        )
    prefix = _text(header[345:500])
    path = f"{prefix}/{path}" if prefix else path
    if header[156:157] != b"0" or header[157:257].strip(b"\0"):
        raise LinesideError("package.unsafe_entry", f"{name}: {path!r} is not a plain file.", "Do not use it.")
    if re.fullmatch(package.PATH_PATTERN, path) is None:
        raise LinesideError("package.unsafe_path", f"{name}: {path!r} cannot be part of a package.", "Do not use it.")
    if size > package.MAX_FILE_BYTES:
        raise LinesideError("package.too_large", f"{name}: {path!r} has {size} bytes.", "Use a smaller model.")
    return _Entry(name=path, size=size)


def _write(stream: IO[bytes], path: str, size: int) -> None:
    name, prefix = _split(path)
    header = bytearray(_BLOCK)
    for start, text in (
        (0, name.encode()),
        (100, b"0000644\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (124, b"%011o\0" % size),
        (136, b"00000000000\0"),
        (148, b" " * 8),
        (156, b"0"),
        (257, b"ustar\x0000"),
        (345, prefix.encode()),
    ):
        header[start : start + len(text)] = text
    header[148:156] = b"%06o\0 " % sum(header)
    stream.write(header)


def _split(path: str) -> tuple[str, str]:
    """Return a path's end and beginning, as the header's two fields take them."""
    if len(path) <= _NAME_BYTES:
        return path, ""
    for match in re.finditer("/", path):
        prefix, name = path[: match.start()], path[match.end() :]
        if len(prefix) <= _PREFIX_BYTES and len(name) <= _NAME_BYTES:
            return name, prefix
    raise LinesideError("package.invalid", f"{path!r} is too long for an archive.", "Use shorter names of files.")


def _copy_file(path: Path, out: IO[bytes], listed: package.PackageFile) -> None:
    digest, left = hashlib.sha256(), listed.bytes
    with path.open("rb") as stream:
        while piece := stream.read(min(_PIECE, left + 1)):
            left -= len(piece)
            digest.update(piece)
            if left < 0:
                break
            out.write(piece)
    if left != 0 or digest.hexdigest() != listed.digest:
        raise LinesideError("package.damaged", f"{path} was changed while it was packed.", "Pack it again.")


def _pieces(stream: IO[bytes], size: int, name: str) -> Iterator[bytes]:
    left = size
    while left > 0:
        piece = stream.read(min(_PIECE, left))
        if not piece:
            raise LinesideError("package.archive_truncated", f"{name} is cut short.", _GET_AGAIN)
        left -= len(piece)
        yield piece


def _read(stream: IO[bytes], size: int, name: str) -> bytes:
    return b"".join(_pieces(stream, size, name))


def _skip_padding(stream: IO[bytes], size: int, name: str) -> None:
    padding = _padding(size)
    if _read(stream, len(padding), name) != padding:
        raise LinesideError("package.damaged", f"{name} holds bytes between its files.", _GET_AGAIN)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", errors="replace")


def _octal(field: bytes) -> int | None:
    digits = field.rstrip(b"\0 ")
    with contextlib.suppress(ValueError):
        return int(digits, 8) if re.fullmatch(rb"[0-7]{1,11}", digits) else None
    return None


def _storage(path: Path, error: OSError) -> LinesideError:
    return LinesideError(
        "storage.full", f"{path} cannot be written: {error.strerror}.", "Make room, or check the path."
    )
