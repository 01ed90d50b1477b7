"""Finds model packages where a person points: one archive, one package folder, or a stick with several of either.

Nothing found here is trusted: a name and a size are read, not the files. Links are never followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from wire import archive, package
from wire.errors import LinesideError
from wire.manifest import FILE_NAME

MAX_LOOKED_AT: Final = 2000
_LEVELS: Final = 3  # STICK/models/parts-7/
_USTAR_AT: Final = 257


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A package that lies there.

    Args:
        path: of its folder or its archive.
        bytes: of all its files, as it says.
        digest: of the version; None for a folder, whose files have not been read.
    """

    path: Path
    is_archive: bool
    model: str
    release: int
    bytes: int
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """Something that looks like a package and is none."""

    path: Path
    error: LinesideError


def search(bundle: Path) -> tuple[tuple[Found, ...], tuple[Unusable, ...]]:
    """Return the packages in an archive, a folder, or a folder with several, each with its name and size.

    Raises:
        LinesideError: `resource.not_found` where there is nothing, or nothing like a package; where a single thing was
            named, what is wrong with it; `storage.unusable` where the place cannot be read.
    """
    try:
        found = os.lstat(bundle)
    except OSError as error:
        raise _gone(bundle, error) from error
    if stat.S_ISLNK(found.st_mode):
        raise LinesideError("package.unsafe_entry", f"{bundle} is a link.", "Name the file or folder itself.")
    if stat.S_ISREG(found.st_mode):
        return (_archive(bundle),), ()
    if not stat.S_ISDIR(found.st_mode):
        raise LinesideError(
            "package.unsafe_entry", f"{bundle} is neither a file nor a folder.", "Name a packed package or its folder."
        )
    if (bundle / FILE_NAME).exists():
        return (_folder(bundle),), ()
    usable: list[Found] = []
    unusable: list[Unusable] = []
    for path in _candidates(bundle):
        try:
            usable.append(_folder(path) if path.is_dir() else _archive(path))
        except LinesideError as error:
            unusable.append(Unusable(path=path, error=error))
    if not usable and not unusable:
        raise LinesideError(
            "resource.not_found",
            f"There is no model package in {bundle}.",
            "Name a file made by `lineside model pack`, a package folder, or a folder that holds some.",
        )
    return tuple(sorted(usable, key=lambda one: (one.model, one.release, str(one.path)))), tuple(unusable)


def plain_files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the name and condition of each file of a package folder, none of them opened.

    Raises:
        LinesideError: `package.unsafe_entry` where there is a link, a device or a pipe; `package.too_large` where there
            is more than a package may hold; `storage.unusable` where the folder cannot be read.
    """
    count = total = 0
    for path, entry in _walk(folder, levels=8):
        if entry.is_dir(follow_symlinks=False):
            continue
        if not entry.is_file(follow_symlinks=False):
            raise LinesideError(
                "package.unsafe_entry",
                f"{path} is a link or no plain file.",
                "Make the folder anew from the package's own files.",
            )
        condition = _condition(path)
        length = condition.st_size
        count, total = count + 1, total + length
        if count > package.MAX_FILES or length > package.MAX_FILE_BYTES or total > package.MAX_PACKAGE_BYTES:
            raise LinesideError(
                "package.too_large",
                f"{folder} holds more than a package may: {count} files, {total} bytes, {path.name} alone {length}.",
                "Is it the folder of one package only?",
            )
        yield path.relative_to(folder).as_posix(), condition


def open_plain(path: Path) -> IO[bytes]:
    """Open a file for reading, whatever stands in its place by now: no link is followed, no pipe waited for.

    Raises:
        LinesideError: `package.unsafe_entry`; an OSError is passed on.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LinesideError("package.unsafe_entry", f"{path} is no plain file.", "Do not use it.")
    return os.fdopen(descriptor, "rb")


def reading_failed(path: Path, error: OSError) -> LinesideError:
    """Name a failure of the place a bundle is read from: most often the stick was pulled out."""
    return LinesideError(
        "storage.unusable",
        f"{path} can no longer be read: {error.strerror or error}.",
        "Is the stick still plugged in, and whole? Then import again; nothing was changed on this device.",
    )


def _archive(path: Path) -> Found:
    try:
        with open_plain(path) as stream:
            index = archive.read_index(stream, path.name)
            is_whole = os.fstat(stream.fileno()).st_size >= archive.packed_bytes(index)
    except OSError as error:
        raise reading_failed(path, error) from error
    if not is_whole:
        raise LinesideError(
            "package.archive_truncated",
            f"{path.name} is cut short: of {index.model} release {index.release} a part is missing.",
            "Copy it onto the stick again, and eject the stick before you pull it out.",
        )
    return Found(
        path=path,
        is_archive=True,
        model=index.model,
        release=index.release,
        bytes=index.total_bytes,
        digest=package.digest_of(index),
    )


def _folder(folder: Path) -> Found:
    total = sum(condition.st_size for _, condition in plain_files(folder))
    try:
        manifest = package.read_manifest(folder / FILE_NAME)
    except OSError as error:
        raise reading_failed(folder / FILE_NAME, error) from error
    return Found(path=folder, is_archive=False, model=manifest.name, release=manifest.release, bytes=total)


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield what looks like a package, a few levels down; what lies inside a package is no other one."""
    packages: list[Path] = []
    for path, entry in _walk(folder, levels=_LEVELS):
        if any(path.is_relative_to(one) for one in packages):
            continue
        if entry.is_dir(follow_symlinks=False):
            if (path / FILE_NAME).is_file():
                packages.append(path)
                yield path
        elif entry.is_file(follow_symlinks=False) and _is_tar(path):
            yield path


def _is_tar(path: Path) -> bool:
    try:
        with open_plain(path) as stream:
            head = stream.read(_USTAR_AT + 5)
    except (OSError, LinesideError):
        return False
    return head[_USTAR_AT:] == b"ustar" and head.startswith(archive.INDEX_NAME.encode())


def _walk(folder: Path, levels: int) -> Iterator[tuple[Path, os.DirEntry[str]]]:
    """Yield what lies in a folder and below, in order of names, hidden things left out."""
    looked_at = 0
    waiting = [(folder, 1)]
    while waiting:
        here, level = waiting.pop(0)
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            raise reading_failed(here, error) from error
        for entry in entries:
            looked_at += 1
            if looked_at > MAX_LOOKED_AT:
                raise LinesideError(
                    "package.too_large",
                    f"{folder} holds more than {MAX_LOOKED_AT} files and folders.",
                    "Name the package itself.",
                )
            if entry.name.startswith("."):  # what other systems leave on a stick; no package can hold it
                continue
            path = Path(entry.path)
            yield path, entry
            if entry.is_dir(follow_symlinks=False) and level < levels:
                waiting.append((path, level + 1))


def _condition(path: Path) -> os.stat_result:
    try:
        return os.lstat(path)
    except OSError as error:
        raise reading_failed(path, error) from error


def _gone(path: Path, error: OSError) -> LinesideError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return LinesideError(
            "resource.not_found", f"There is no {path}.", "Is the stick plugged in and mounted? See: lsblk."
        )
    return reading_failed(path, error)
