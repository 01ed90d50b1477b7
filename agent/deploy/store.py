"""Model packages on this device: blobs by digest, package folders made of them, and which version each model runs.

Layout under the root:
    blobs/<aa>/<digest>         what was downloaded; the index of a version lies under the version's own digest
    packages/<digest>/          a version's files, hard links to blobs
    incoming/<digest>.part      downloads that are not finished
    models/<model>.json         `current` and `previous`
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.deploy.durable import TEMPORARY, Disk, failure, tidying
from agent.deploy.facts import Installed
from agent.deploy.part import SUFFIX, Part
from wire import codec, ids, package
from wire.errors import LinesideError

log = logging.getLogger(__name__)

# These say nothing of a file: the process or the machine has no more to give at the moment.
_NOT_OF_THE_FILE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Blobs whose bytes are not what their name says, or that are not there."""

    digests: tuple[str, ...]


class Store:
    """The packages on disk. One thread writes; any thread may read."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self._root = root
        self._disk = disk or Disk()
        self._incoming = root / "incoming"
        self._packages = root / "packages"
        self._models = root / "models"
        for folder in (root / "blobs", self._incoming, self._packages, self._models):
            self._disk.make_folder(folder)

    @property
    def root(self) -> Path:
        """The store's folder."""
        return self._root

    def sweep(self) -> None:
        """Remove what an interrupted write left behind, and what is in doubt of a download; call it once, at start.

        What cannot be removed is logged: it must not keep the line's models from being loaded.
        """
        for folder in (self._packages, self._models):
            with tidying(folder):
                self._disk.sweep(folder)
        with tidying(self._incoming):
            for leftover in sorted(self._incoming.iterdir()):
                with tidying(leftover):
                    self._sweep_download(leftover)

    def _sweep_download(self, leftover: Path) -> None:
        is_part = leftover.suffix == SUFFIX and ids.is_digest(leftover.stem)
        if is_part and not self.blob_path(leftover.stem).is_file():
            Part(leftover, self._disk).trim()
        else:  # a part beside its blob may be the very same file, whose old name a power cut brought back
            self._disk.remove(leftover)

    # Which version runs

    def models(self) -> tuple[str, ...]:
        """Return the models of which a version is installed."""
        return tuple(sorted(path.stem for path in self._models.glob("*.json") if ids.is_name(path.stem)))

    def installed(self, model: str) -> Installed:
        """Return what is installed of a model; a record that cannot be read counts as nothing installed."""
        try:
            return codec.decode((self._models / f"{model}.json").read_bytes(), Installed)
        except FileNotFoundError:
            return Installed()
        except (OSError, LinesideError):
            log.exception("%s: the record of installed versions is lost.", model, extra={"event": "store.damaged"})
            return Installed()

    def commit(self, model: str, digest: str, former: str | None = None) -> None:
        """Make a version the one that is loaded at boot. Safe to repeat.

        Args:
            former: the version that ran before it, which becomes `previous`; by default the one that was current.
        """
        before = self.installed(model)
        if before.current != digest:
            previous = former if former not in (None, digest) else before.current
            self._point(model, Installed(current=digest, previous=previous))

    def restore(self, model: str, former: str | None) -> None:
        """Make a former version the one that is loaded at boot, and forget the one that failed. Safe to repeat."""
        before = self.installed(model)
        if before.current != former:
            self._point(model, Installed(current=former, previous=None))

    def _point(self, model: str, installed: Installed) -> None:
        self._disk.write(self._models / f"{model}.json", codec.encode(installed))

    # Blobs

    def blob_path(self, digest: str) -> Path:
        return self._root / "blobs" / digest[:2] / digest

    def incoming_path(self, digest: str) -> Path:
        """Return where a download is written; the folder exists."""
        return self._incoming / f"{digest}{SUFFIX}"

    def part(self, digest: str) -> Part:
        """Return the download of a blob, begun or not."""
        return Part(self.incoming_path(digest), self._disk)

    def part_bytes(self, digest: str) -> int:
        """Return how many bytes of a blob's download have come."""
        try:
            return self.incoming_path(digest).stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise failure(self.incoming_path(digest), error) from error

    def incoming_bytes(self) -> int:
        """Return how many bytes of all unfinished downloads have come."""
        return sum(self.part_bytes(path.stem) for path in self._incoming.iterdir())

    def room_bytes(self) -> int:
        """Return how many bytes this process may still write on the store's disk."""
        try:
            found = os.statvfs(self._root)
        except OSError as error:
            raise failure(self._root, error) from error
        return found.f_bavail * found.f_frsize

    def adopt(self, digest: str) -> None:
        """Take a finished download, whose digest was checked, into the store."""
        self._disk.settle(self.incoming_path(digest), self.blob_path(digest))

    def index(self, digest: str) -> package.PackageIndex | None:
        """Return the index of a version, None where it has not been downloaded.

        Raises:
            LinesideError: `deployment.digest_mismatch`, also where it cannot be read, or `package.invalid`.
        """
        try:
            data = self.blob_path(digest).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NOT_OF_THE_FILE:
                raise failure(self.blob_path(digest), error) from error
            raise LinesideError(
                "deployment.digest_mismatch",
                f"The index of version {digest[:12]} cannot be read from the disk: {error.strerror}.",
            ) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise LinesideError("deployment.digest_mismatch", f"The index of version {digest[:12]} is damaged on disk.")
        return package.read_index(data)

    def mended_index(self, digest: str) -> package.PackageIndex | None:
        """Return the index of a version, made anew from the version's folder where it is lost or damaged.

        Going back needs no network then. Where the folder is not whole either, a damaged index is removed, so that it
        is downloaded again, and None is returned.

        Raises:
            LinesideError: `package.invalid`, or `storage.full` or `storage.corrupt` where the disk refuses.
        """
        try:
            index = self.index(digest)
        except LinesideError as error:
            if error.code != "deployment.digest_mismatch":
                raise
            index = None
        if index is not None:
            return index
        try:
            found = self.package(digest)
        except LinesideError:
            self._disk.remove(self.blob_path(digest))
            return None
        with self.part(digest) as part:
            part.restart()
            part.write(package.index_bytes(found.index))
            self.adopt(digest)
        log.warning("The index of %s was made anew.", digest[:12], extra={"event": "store.repaired"})
        return found.index

    def missing(self, index: package.PackageIndex) -> tuple[package.PackageFile, ...]:
        """Return the files of a version that have not been downloaded; their content is not looked at."""
        return tuple(file for file in index.files if not self.blob_path(file.digest).is_file())

    def mend_blobs(self, digest: str, index: package.PackageIndex) -> None:
        """Take blobs of a version that are missing from the version's folder, where they lie there whole."""
        for file in self.missing(index):
            path, blob = self._packages / digest / file.path, self.blob_path(file.digest)
            if path.is_file() and _digest_of(path) == file.digest:
                self._disk.remove(blob)  # whatever has its name
                self._disk.link(path, blob)
                self._disk.sync_folder(blob.parent)

    def damage(self, index: package.PackageIndex) -> Damage | None:
        """Hash every blob of a version and drop those that are damaged, so that they are downloaded again.

        One that cannot be read, from a bad sector, is damaged as well.
        """
        bad = []
        for file in index.files:
            path = self.blob_path(file.digest)
            if _digest_of(path) != file.digest:
                bad.append(file.digest)
                self._disk.remove(path)
                if path.parent.is_dir():  # or a power cut brings it back, to be counted a second time
                    self._disk.sync_folder(path.parent)
        return Damage(digests=tuple(bad)) if bad else None

    def drop(self, digest: str) -> None:
        """Remove the blob, its unfinished download and the package folder of that digest, whichever there is."""
        self._disk.remove(self._packages / digest)
        self._disk.remove(self.incoming_path(digest))
        self._disk.remove(self.blob_path(digest))

    # Packages

    def materialise(self, digest: str, index: package.PackageIndex) -> None:
        """Make a version's folder anew from its blobs; it appears whole or not at all."""
        target = self._packages / digest
        building = self._packages / f"{TEMPORARY}{digest}"
        self._disk.remove(building)
        for file in index.files:
            self._disk.link(self.blob_path(file.digest), building / file.path)
        for folder in (building, *sorted(path for path in building.rglob("*") if path.is_dir())):
            self._disk.sync_folder(folder)
        self._disk.remove(target)
        self._disk.rename(building, target)

    def mended_package(self, digest: str) -> package.Package:
        """Read a version's package as `package` does; its folder is made anew where only its blobs are whole."""
        try:
            return self.package(digest)
        except LinesideError:
            index = self._index_of_whole_blobs(digest)
            if index is None:
                raise
        self.materialise(digest, index)
        log.warning("The folder of %s was made anew.", digest[:12], extra={"event": "store.repaired"})
        return self.package(digest)

    def _index_of_whole_blobs(self, digest: str) -> package.PackageIndex | None:
        try:
            index = self.index(digest)
            files = index.files if index is not None else ()
            return index if all(_digest_of(self.blob_path(file.digest)) == file.digest for file in files) else None
        except LinesideError:
            return None

    def package(self, digest: str) -> package.Package:
        """Read a version's package, every byte of it hashed anew.

        Raises:
            LinesideError: `package.incomplete` where it is not installed, `storage.corrupt` where its files cannot be
                read or are not those it was verified with, or the codes of `wire.package.read_folder`.
        """
        folder = self._packages / digest
        try:
            found = package.read_folder(folder)
        except OSError as error:
            raise failure(folder, error) from error
        if found.digest != digest:
            raise LinesideError(
                "storage.corrupt", f"{found.folder} no longer holds version {digest[:12]}.", "Deploy it again."
            )
        return found

    # Collection

    def unneeded(self, keep: Iterable[str]) -> tuple[str, ...]:
        """Return the packages, blobs and downloads that belong to none of the versions in `keep`, by their digests.

        Raises:
            LinesideError: `storage.corrupt` where it cannot be told at the moment.
        """
        needed = set(keep)
        for digest in tuple(needed):
            needed.update(self._files_of(digest))
        found = {path.name for path in self._packages.iterdir() if ids.is_digest(path.name)}
        found.update(path.name for path in (self._root / "blobs").glob("??/*") if ids.is_digest(path.name))
        found.update(path.stem for path in self._incoming.glob(f"*{SUFFIX}") if ids.is_digest(path.stem))
        return tuple(sorted(found - needed))

    def _files_of(self, digest: str) -> set[str]:
        """Return the files of a version by their digests; where its index is lost or damaged, those in its folder."""
        try:
            index = self.index(digest)
        except LinesideError as error:
            if error.code.startswith("storage."):  # what is needed is not known, so nothing may be collected
                raise
            index = None
        if index is not None:
            return {file.digest for file in index.files}
        digests = (_digest_of(path) for path in sorted((self._packages / digest).rglob("*")) if not path.is_dir())
        return {found for found in digests if found is not None}

    def collect(self, digests: Iterable[str]) -> None:
        """Remove packages and blobs."""
        for digest in digests:
            self.drop(digest)


def _digest_of(path: Path) -> str | None:
    """Return a file's digest; None where it is not there or cannot be read, for a bad sector say."""
    try:
        return package.digest_of_file(path)
    except OSError as error:
        if error.errno in _NOT_OF_THE_FILE:
            raise failure(path, error) from error
        return None
