"""File operations that survive a power cut, each one a boundary at which a test may end the process.

Order, always: write a temporary file, fsync it, rename it, fsync the folder. A temporary name starts with `.tmp-`, so
that whatever a power cut left behind is known as such and swept at the next start.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from wire.errors import LinesideError

TEMPORARY: Final = ".tmp-"

log = logging.getLogger(__name__)


def _nothing(_boundary: str) -> None:
    """Stand at a boundary without doing anything."""


class Disk:
    """Durable file operations.

    Args:
        before: called with the name of each operation just before it is done; tests end the process there.
        owner: user and group that all it makes belongs to, where root writes for an agent that runs as somebody else.
    """

    def __init__(self, before: Callable[[str], None] = _nothing, owner: tuple[int, int] | None = None) -> None:
        self.before = before
        self._owner = owner

    def write(self, path: Path, data: bytes) -> None:
        """Replace a file's content: after a power cut it holds all of the old or all of the new bytes.

        Raises:
            LinesideError: `storage.full`, or `storage.corrupt` for any other failure of the disk.
        """
        temporary = path.with_name(f"{TEMPORARY}{path.name}")
        try:
            self._made_folder(path.parent)
            self.before(f"write {path.name}")
            with temporary.open("wb") as stream:
                self.hand_over(stream.fileno())
                self.before(f"fill {path.name}")
                stream.write(data)
                stream.flush()
                self.before(f"sync {path.name}")
                os.fsync(stream.fileno())
        except OSError as error:
            raise failure(path, error) from error
        self.rename(temporary, path)

    def settle(self, temporary: Path, path: Path) -> None:
        """Give a file that someone else has written its final name, its bytes made durable first."""
        try:
            self.before(f"sync {path.name}")
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            self._made_folder(path.parent)
        except OSError as error:
            raise failure(path, error) from error
        self.rename(temporary, path)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or folder and make the new name durable."""
        try:
            self.before(f"rename {target.name}")
            source.replace(target)
            self._sync_folder(target.parent)
        except OSError as error:
            raise failure(target, error) from error

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, or copy it where the file system cannot link."""
        try:
            self.before(f"link {target.name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
                    raise
                shutil.copyfile(source, target)
                with target.open("rb") as stream:
                    os.fsync(stream.fileno())
        except OSError as error:
            raise failure(target, error) from error

    def remove(self, path: Path) -> None:
        """Remove a file or a folder; one that is not there is fine.

        A folder is renamed first, so that no half of it is ever taken for a whole one.
        """
        try:
            self.before(f"remove {path.name}")
            if path.is_dir() and not path.is_symlink():
                doomed = path if path.name.startswith(TEMPORARY) else path.with_name(f"{TEMPORARY}{path.name}.old")
                if doomed != path:
                    shutil.rmtree(doomed, ignore_errors=True)
                    path.replace(doomed)
                    self._sync_folder(path.parent)  # else a power cut may keep the old name and empty the folder
                    self.before(f"empty {path.name}")
                shutil.rmtree(doomed)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise failure(path, error) from error

    def make_folder(self, folder: Path) -> None:
        """Make a folder, and those it lies in, unless it is there; its name is durable before anything lies in it."""
        try:
            self._made_folder(folder)
        except OSError as error:
            raise failure(folder, error) from error

    def _made_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._made_folder(folder.parent)
            self.before(f"make folder {folder.name}")
            try:
                folder.mkdir(exist_ok=True)
            finally:  # also where Ctrl-C comes right now
                self.hand_over(folder)
            self._sync_folder(folder.parent)

    def hand_over(self, made: Path | int) -> None:
        """Have a folder, or a file that is open, belong to the owner that was named, if one was."""
        if self._owner is not None and (isinstance(made, int) or made.is_dir()):
            os.chown(made, *self._owner)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        try:
            self._sync_folder(folder)
        except OSError as error:
            raise failure(folder, error) from error

    def _sync_folder(self, folder: Path) -> None:
        self.before(f"sync folder {folder.name}")
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sweep(self, folder: Path) -> None:
        """Remove what an interrupted write left in a folder."""
        if folder.is_dir():
            for leftover in sorted(folder.glob(f"{TEMPORARY}*")):
                self.remove(leftover)


@contextlib.contextmanager
def tidying(path: Path) -> Iterator[None]:
    """Do work that nobody waits for: where the disk refuses it, that is logged, and it is left for the next start."""
    try:
        yield
    except (OSError, LinesideError) as error:
        log.warning("%s cannot be tidied: %s", path, error, extra={"event": "store.not_swept"})


def failure(path: Path, error: OSError) -> LinesideError:
    """Name a failure of the disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LinesideError("storage.full", f"{path} cannot be written: there is no room left.", "Make room.")
    return LinesideError("storage.corrupt", f"{path}: the disk refused ({error}).", "Check the disk.")
