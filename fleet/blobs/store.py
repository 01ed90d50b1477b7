"""Blobs: bytes kept under their own SHA-256, so that a name can never be given to other bytes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from wire import ids
from wire.errors import LinesideError

PIECE_BYTES: Final = 256 * 1024
STALE_TEMP_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobStat:
    """What is known of a blob without reading it."""

    digest: str
    bytes: int


class BlobStore(Protocol):
    """Where blobs are kept."""

    def put(self, digest: str, length: int | None, chunks: Iterable[bytes]) -> bool:
        """Store a blob; False where it was there already. Nothing is kept unless length and digest are right.

        One that was damaged on the disk is replaced.

        Args:
            length: in bytes, None where the sender did not say.

        Raises:
            LinesideError: `deployment.digest_mismatch`, `request.too_large` or `storage.full`.
        """

    def open(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """Return the bytes from `offset` on, in pieces.

        Raises:
            LinesideError: `resource.not_found`.
        """

    def stat(self, digest: str) -> BlobStat | None:
        """Return what is known of a blob, None where it is not there."""

    def is_whole(self, digest: str) -> bool:
        """Read a blob, and tell whether it is there with the bytes that its name says."""

    def delete(self, digest: str) -> bool:
        """Remove a blob; False where it was not there."""


class FolderBlobs:
    """Blobs as files of one folder; a blob is there completely or not at all, also after a power cut."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._temporary = root / "incoming"
        self._max_bytes = max_bytes
        self._temporary.mkdir(parents=True, exist_ok=True)

    def put(self, digest: str, length: int | None, chunks: Iterable[bytes]) -> bool:
        """See `BlobStore.put`."""
        target = self._path(digest)
        if target.is_file() and self.is_whole(digest):
            return False
        if length is not None and length > self._max_bytes:
            raise self._too_large()
        temporary = self._temporary / f"{digest}.{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as stream:
                found, written = self._copy(chunks, stream, self._max_bytes if length is None else length)
                stream.flush()
                os.fsync(stream.fileno())
            if found != digest or (length is not None and written != length):
                raise LinesideError(
                    "deployment.digest_mismatch",
                    f"{written} bytes with the digest {found} came for {digest}.",
                    "Send the file again.",
                )
            target.parent.mkdir(exist_ok=True)
            temporary.replace(target)
            _sync_folder(target.parent)
            _sync_folder(self._root)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LinesideError("storage.full", "There is no room for the blob.", "Make room on disk.") from error
            raise
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def open(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """See `BlobStore.open`."""
        try:
            stream = self._path(digest).open("rb")
        except FileNotFoundError as error:
            raise LinesideError("resource.not_found", f"There is no blob {digest}.", "Upload it first.") from error

        def pieces() -> Iterator[bytes]:
            with stream:
                stream.seek(offset)
                while piece := stream.read(PIECE_BYTES):
                    yield piece

        return pieces()

    def stat(self, digest: str) -> BlobStat | None:
        """See `BlobStore.stat`."""
        try:
            status = self._path(digest).stat()
        except FileNotFoundError:
            return None
        return BlobStat(digest=digest, bytes=status.st_size)

    def is_whole(self, digest: str) -> bool:
        """See `BlobStore.is_whole`."""
        try:
            with self._path(digest).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest() == digest
        except OSError:  # not there, or a sector that cannot be read
            return False

    def delete(self, digest: str) -> bool:
        """See `BlobStore.delete`."""
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def sweep(self, older_than_s: float = STALE_TEMP_S) -> int:
        """Remove what uploads that never ended left behind; returns how many."""
        limit = time.time() - older_than_s
        swept = 0
        for path in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime <= limit:
                    path.unlink()
                    swept += 1
        return swept

    def _copy(self, chunks: Iterable[bytes], stream: BinaryIO, limit: int) -> tuple[str, int]:
        hasher, written = hashlib.sha256(), 0
        for chunk in chunks:
            written += len(chunk)
            if written > limit:
                raise (
                    self._too_large()
                    if written > self._max_bytes
                    else LinesideError(
                        "deployment.digest_mismatch",
                        f"More than the announced {limit} bytes came.",
                        "Send the file again.",
                    )
                )
            hasher.update(chunk)
            stream.write(chunk)
        return hasher.hexdigest(), written

    def _path(self, digest: str) -> Path:
        if not ids.is_digest(digest):
            raise LinesideError("request.invalid", f"{digest!r} is not a SHA-256.", "Use 64 small hexadecimal digits.")
        return self._root / digest[:2] / digest

    def _too_large(self) -> LinesideError:
        return LinesideError("request.too_large", f"A blob may have at most {self._max_bytes} bytes.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
