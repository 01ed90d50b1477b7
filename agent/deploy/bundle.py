"""Brings a package from a stick or folder onto the device, as content-addressed files a deployment downloads from.

`imports/<version digest>/<blob digest>`, the version's index under the version's own digest. A folder appears whole or
not at all; what an interruption left is a temporary one.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from agent.deploy.bundle_search import Found, open_plain, plain_files, reading_failed
from agent.deploy.durable import TEMPORARY, Disk, failure, tidying
from agent.deploy.part import Part
from wire import archive, ids, package
from wire.errors import LinesideError

FOLDER: Final = "imports"
_PIECE_BYTES: Final = 1024 * 1024
# What is younger may be a command's that works at this moment, or an order's that is about to be given.
_LEAVE_ALONE_S: Final = 3600.0
# Folders, the index, and what a file system needs for its own.
_SOME_BYTES: Final = 4 * 1024 * 1024


def _silent(_bytes: int) -> None:
    """Tell nobody how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A version that lies in the imports folder, every byte of it compared with its digest."""

    model: str
    release: int
    digest: str
    bytes: int


class FolderSource:
    """Gives out the blobs of a staged version; a `download.BlobSource`.

    Args:
        root: the store's folder.
        digest: of the version.
    """

    def __init__(self, root: Path, digest: str) -> None:
        self._folder = imports_folder(root, digest)

    def fetch_blob(
        self,
        digest: str,
        part: Part,
        max_bytes: int,
        *,
        exact: bool,  # noqa: ARG002  (a file has an end of its own)
        go_on: Callable[[], bool],
    ) -> bool:
        path = self._folder / digest
        try:
            with open_plain(path) as stream:
                stream.seek(part.length)
                while part.length < max_bytes:
                    if not go_on():
                        return False
                    piece = stream.read(min(_PIECE_BYTES, max_bytes - part.length))
                    if not piece:
                        break
                    part.write(piece)
        except FileNotFoundError as error:
            raise LinesideError(
                "resource.not_found", f"{path} has gone from this device.", "Import the version again."
            ) from error
        except OSError as error:
            raise failure(path, error) from error
        return True


def imports_folder(root: Path, digest: str) -> Path:
    """Return where a version lies after it was staged, whether it is there or not."""
    return root / FOLDER / digest


def is_staged(root: Path, digest: str) -> bool:
    """Tell whether a version lies in the imports folder."""
    return imports_folder(root, digest).is_dir()


def stage(
    found: Found,
    root: Path,
    *,
    keep_free_bytes: int = 0,
    disk: Disk | None = None,
    progress: Callable[[int], None] = _silent,
) -> Staged:
    """Copy a package into the imports folder, durably, and check all of it but the model itself.

    Args:
        found: which (agent/deploy/bundle_search.py).
        root: the store's folder.
        keep_free_bytes: of the disk, that stay free beside it.
        progress: told how many bytes have been copied, now and then.

    Raises:
        LinesideError: the codes of `wire.archive.unpack`; `storage.unusable` where the bundle can no longer be read;
            `package.damaged` where it was changed meanwhile; `storage.full`, before anything is copied where that is
            plain to see. Nothing is left behind then.
    """
    disk = disk or Disk()
    target_root = root / FOLDER
    _need_room(root, found, keep_free_bytes)
    draft = target_root / f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}"
    disk.make_folder(target_root)
    try:
        draft.mkdir()
        disk.hand_over(draft)
    except OSError as error:
        raise failure(draft, error) from error
    try:
        (_unpack if found.is_archive else _copy)(found.path, draft / "package", progress)
        made = _checked(found, draft / "package")
        _address(made, draft / "blobs", disk)
        target = imports_folder(root, made.digest)
        disk.remove(target)  # one of an earlier import; its bytes may be damaged
        disk.rename(draft / "blobs", target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    index = made.index
    return Staged(model=index.model, release=index.release, digest=made.digest, bytes=index.total_bytes)


def discard(root: Path, digest: str, disk: Disk | None = None) -> None:
    """Remove a staged version; one that is not there is fine."""
    (disk or Disk()).remove(imports_folder(root, digest))


def sweep(root: Path, keep: Iterable[str] | None = None, disk: Disk | None = None) -> None:
    """Remove what interrupted imports left, and staged versions that nobody asks for; what is young is left alone.

    What cannot be removed, because root has left it for instance, is logged and stays.

    Args:
        root: the store's folder.
        keep: the versions that a deployment or an order still needs; None keeps them all.
    """
    disk = disk or Disk()
    needed = None if keep is None else set(keep)
    folder = root / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        is_unneeded = needed is not None and ids.is_digest(path.name) and path.name not in needed
        if not is_unneeded and not path.name.startswith(TEMPORARY):
            continue
        try:
            age_s = abs(time.time() - path.lstat().st_mtime)  # a clock that was set back must not keep it for ever
        except OSError:
            continue
        if age_s > _LEAVE_ALONE_S:
            with tidying(path):
                disk.remove(path)


def _need_room(root: Path, found: Found, keep_free_bytes: int) -> None:
    """Refuse what does not fit: the version lies here once in the imports folder and once in the store."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(root).free
    except OSError as error:
        raise failure(root, error) from error
    needed_bytes = 2 * found.bytes + _SOME_BYTES + keep_free_bytes
    if free_bytes < needed_bytes:
        raise LinesideError(
            "storage.full",
            f"There is no room for {found.model} release {found.release}: it needs {_mb(needed_bytes)} "
            f"while it is imported, {_mb(free_bytes)} are free.",
            "Make room: `lineside models gc` removes versions that nobody needs.",
        )


def _mb(count_bytes: int) -> str:
    return f"{count_bytes / 1e6:.1f} MB"


def _unpack(path: Path, folder: Path, progress: Callable[[int], None]) -> None:
    try:
        with open_plain(path) as stream:
            index = archive.read_index(stream, path.name)
            for listed, pieces in archive.read_files(stream, path.name, index):
                _write(folder / listed.path, _reading(path, pieces), progress)
    except OSError as error:
        raise reading_failed(path, error) from error


def _copy(source: Path, folder: Path, progress: Callable[[int], None]) -> None:
    before = dict(plain_files(source))
    for name, condition in before.items():
        path = source / name
        try:
            with open_plain(path) as stream:
                _refuse_changed(path, condition, os.fstat(stream.fileno()))
                _write(folder / name, _reading(path, _pieces(stream, condition.st_size)), progress)
        except OSError as error:
            raise reading_failed(path, error) from error
    for name, condition in plain_files(source):
        _refuse_changed(source / name, before.get(name), condition)


def _pieces(stream: IO[bytes], length: int) -> Iterator[bytes]:
    """Yield so many bytes of a file and no more, should it grow meanwhile."""
    while length > 0 and (piece := stream.read(min(_PIECE_BYTES, length))):
        length -= len(piece)
        yield piece


def _refuse_changed(path: Path, before: os.stat_result | None, now: os.stat_result) -> None:
    if before is None or (before.st_ino, before.st_size, before.st_mtime_ns) != (
        now.st_ino,
        now.st_size,
        now.st_mtime_ns,
    ):
        raise LinesideError("package.damaged", f"{path} was changed while it was read.", "Import it again.")


def _write(target: Path, pieces: Iterator[bytes], progress: Callable[[int], None]) -> None:
    """Write a file durably; what fails here is this device's disk."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            for piece in pieces:
                out.write(piece)
                progress(len(piece))
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise failure(target, error) from error


def _reading(path: Path, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what is read; what fails here is the stick."""
    try:
        yield from pieces
    except OSError as error:
        raise reading_failed(path, error) from error


def _checked(found: Found, folder: Path) -> package.Package:
    """Read the package that was copied; it is on this device's own disk now, where nobody swaps it."""
    try:
        made = package.read_folder(folder)
        made.golden()
    except LinesideError as error:
        error.message = error.message.replace(str(folder), str(found.path))  # which the person knows
        raise
    if found.digest is not None and made.digest != found.digest:
        raise LinesideError(
            "package.invalid",
            f"{found.path.name}: its index and its files name different versions, or it was changed meanwhile.",
            "Import it again; if that does not help, have it packed again.",
        )
    if (made.index.model, made.index.release) != (found.model, found.release):
        raise LinesideError("package.damaged", f"{found.path} was changed while it was read.", "Import it again.")
    return made


def _address(made: package.Package, folder: Path, disk: Disk) -> None:
    """Give the files of a package the names of their digests, and write the index."""
    try:
        folder.mkdir()
        for listed in made.index.files:
            (made.folder / listed.path).replace(folder / listed.digest)
    except OSError as error:
        raise failure(folder, error) from error
    disk.write(folder / made.digest, package.index_bytes(made.index))
    disk.sync_folder(folder)
