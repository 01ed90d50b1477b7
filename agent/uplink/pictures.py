"""Pictures on their way to the fleet: a bounded folder on disk, and a thread that uploads what is in it."""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from agent.clock import Clock
from agent.uplink.backoff import Backoff
from agent.uplink.fleet_api import ApiError
from wire import ids
from wire.errors import LinesideError

log = logging.getLogger(__name__)

MAX_BYTES_DEFAULT: Final = 256 * 1024 * 1024
MAX_COUNT_DEFAULT: Final = 5000
# Answers of the fleet after which the same picture may still be taken later.
_PASSING: Final = frozenset({401, 403, 408, 425, 429})


class BlobTaker(Protocol):
    """What takes the pictures: `FleetApi`."""

    def put_blob(self, digest: str, data: bytes) -> bool:
        """Upload a blob unless it is known; raises LinesideError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureStats:
    """What became of the pictures since the start, and how many wait."""

    waiting: int = 0
    waiting_bytes: int = 0
    uploaded: int = 0
    known_already: int = 0
    dropped_no_room: int = 0
    dropped_refused: int = 0
    dropped_damaged: int = 0
    failed_attempts: int = 0


class PictureUploader:
    """Keeps pictures in a folder under their digest until the fleet has them; the oldest is uploaded first.

    A picture that is accepted by `offer` survives a restart of the agent. It is not synced to the disk: a power cut may
    cost the pictures of the last seconds, which are then found damaged and dropped.

    Args:
        folder: the spool, for this use only; made where it is missing.
        api: where to.
        clock: for waits.
        max_bytes: bound of the folder; a picture that does not fit is dropped and counted.
        max_count: bound of the number of pictures.
    """

    def __init__(
        self,
        folder: Path,
        api: BlobTaker,
        clock: Clock,
        *,
        max_bytes: int = MAX_BYTES_DEFAULT,
        max_count: int = MAX_COUNT_DEFAULT,
        retry_first_s: float = 0.5,
        retry_most_s: float = 60.0,
        rng: random.Random | None = None,
    ) -> None:
        self._folder = folder
        self._api = api
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._backoff = Backoff(retry_first_s, retry_most_s, rng)
        self._lock = threading.Lock()
        self._offered = threading.Event()
        self._stop = threading.Event()
        self._stats = PictureStats()
        self._failing = False
        self.heartbeat_ns = time.monotonic_ns()
        self._waiting = _swept(folder)
        self._bytes = sum(self._waiting.values())
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)

    def start(self) -> None:
        """Begin to upload."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread; what waits stays in the folder."""
        self._stop.set()
        self._offered.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def offer(self, digest: str, data: bytes) -> bool:
        """Take an encoded picture; return False where there is no room for it.

        Args:
            digest: SHA-256 of `data`; the caller's word is checked before the upload.
            data: JPEG or PNG.
        """
        if not ids.is_digest(digest):
            raise LinesideError("request.invalid", f"{digest[:80]!r} is no SHA-256.")
        with self._lock:
            if digest in self._waiting:
                return True
            if self._bytes + len(data) > self._max_bytes or len(self._waiting) >= self._max_count:
                self._count(dropped_no_room=1)
                return False
            path = self._folder / digest
            part = self._folder / f"{digest}.part"
            try:
                part.write_bytes(data)
                part.replace(path)
            except OSError as error:
                self._say("A picture could not be kept: %s.", error)
                self._count(dropped_no_room=1)
                part.unlink(missing_ok=True)
                return False
            self._waiting[digest] = len(data)
            self._bytes += len(data)
        self._offered.set()
        return True

    def stats(self) -> PictureStats:
        """Return what became of the pictures so far."""
        with self._lock:
            return replace(self._stats, waiting=len(self._waiting), waiting_bytes=self._bytes)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.heartbeat_ns = time.monotonic_ns()
            try:
                pause_s = self._upload_oldest()
            except Exception:
                log.exception("A picture could not be uploaded.", extra={"event": "pictures.failed"})
                pause_s = self._backoff.next_s()
            if pause_s is None:
                self._offered.wait(1.0)
                self._offered.clear()
            elif pause_s > 0:
                self._clock.wait(self._stop, pause_s)

    def _upload_oldest(self) -> float | None:
        """Upload one picture; return how long to wait before the next, None where there is none."""
        with self._lock:
            digest = next(iter(self._waiting), None)
        if digest is None:
            return None
        path = self._folder / digest
        try:
            data = path.read_bytes()
        except OSError as error:
            log.warning("A waiting picture cannot be read: %s.", error, extra={"event": "pictures.damaged"})
            self._forget(digest, dropped_damaged=1)
            return 0.0
        if hashlib.sha256(data).hexdigest() != digest:
            log.warning("A waiting picture is damaged: %s.", digest, extra={"event": "pictures.damaged"})
            self._forget(digest, dropped_damaged=1)
            return 0.0
        try:
            sent = self._api.put_blob(digest, data)
        except LinesideError as error:
            return self._failed(digest, error)
        self._failing = False
        self._backoff.reset()
        self._forget(digest, **({"uploaded": 1} if sent else {"known_already": 1}))
        return 0.0

    def _failed(self, digest: str, error: LinesideError) -> float:
        status = error.status if isinstance(error, ApiError) else None
        if status is not None and 400 <= status < 500 and status not in _PASSING:
            log.warning("The fleet refused a picture: %s", error.message, extra={"event": "pictures.refused"})
            self._forget(digest, dropped_refused=1)
            return 0.0
        self._say("Pictures wait: %s", error.message)
        with self._lock:
            self._count(failed_attempts=1)
            if digest in self._waiting:
                self._waiting.move_to_end(digest)  # one that always fails must not hold up the others
        return self._backoff.next_s()

    def _forget(self, digest: str, **counts: int) -> None:
        with self._lock:
            self._bytes -= self._waiting.pop(digest, 0)
            self._count(**counts)
            (self._folder / digest).unlink(missing_ok=True)

    def _count(self, **more: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})

    def _say(self, text: str, what: object) -> None:
        """Log a trouble once until it has passed."""
        if not self._failing:
            self._failing = True
            log.warning(text, what, extra={"event": "pictures.waiting"})


def _swept(folder: Path) -> OrderedDict[str, int]:
    """Make or tidy the folder and return the lengths of the pictures in it, the oldest first."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for path in folder.iterdir():
        if path.name.endswith(".part"):
            path.unlink(missing_ok=True)
        elif ids.is_digest(path.name) and path.is_file():
            status = path.stat()
            found.append((status.st_mtime_ns, path.name, status.st_size))
    return OrderedDict((name, size) for _, name, size in sorted(found))
