"""Pictures on their way to the fleet: a thread uploads what waits in the spool."""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from dataclasses import dataclass, replace
from typing import Final, Protocol

from agent.capture.encode import PictureOfPart
from agent.clock import Clock
from agent.uplink.backoff import Backoff
from agent.uplink.fleet_api import ApiError
from agent.uplink.picture_spool import PictureSpool
from wire import ids
from wire.errors import LinesideError

log = logging.getLogger(__name__)

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
    """Keeps pictures until the fleet has them; the oldest is uploaded first.

    A picture that is accepted by `offer` survives a restart of the agent. It is not synced to the disk: a power cut may
    cost the pictures of the last seconds, which are then found damaged and dropped.

    Args:
        spool: where they wait.
        api: where to.
        clock: for waits.
    """

    def __init__(
        self,
        spool: PictureSpool,
        api: BlobTaker,
        clock: Clock,
        *,
        retry_first_s: float = 0.5,
        retry_most_s: float = 60.0,
        rng: random.Random | None = None,
    ) -> None:
        self._spool = spool
        self._api = api
        self._clock = clock
        self._backoff = Backoff(retry_first_s, retry_most_s, rng)
        self._lock = threading.Lock()
        self._offered = threading.Event()
        self._stop = threading.Event()
        self._stats = PictureStats()
        self._failing = False
        self.heartbeat_ns = time.monotonic_ns()
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

    def offer(self, digest: str, data: bytes, part: PictureOfPart) -> bool:
        """Take an encoded picture; return False where others have a better right to the room.

        Args:
            digest: SHA-256 of `data`; the caller's word is checked before the upload.
            data: JPEG or PNG.
            part: whose picture it is.
        """
        if not ids.is_digest(digest):
            raise LinesideError("request.invalid", f"{digest[:80]!r} is no SHA-256.")
        try:
            taken = self._spool.take(digest, data, part.draw, part.at, gate_rate=part.gate_rate)
        except LinesideError as error:
            self._say("A picture could not be kept: %s", error)
            return False
        self._offered.set()
        return taken

    def stats(self) -> PictureStats:
        """Return what became of the pictures so far."""
        with self._lock:
            return replace(
                self._stats,
                waiting=len(self._spool),
                waiting_bytes=self._spool.bytes,
                dropped_no_room=self._spool.dropped,
            )

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
        oldest = self._spool.oldest()
        if oldest is None:
            return None
        digest, path = oldest
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self._spool.forget(digest, path)  # it had to make room meanwhile
            return 0.0
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
        self._spool.put_last(digest)  # one that always fails must not hold up the others
        return self._backoff.next_s()

    def _forget(self, digest: str, **counts: int) -> None:
        with self._lock:
            self._count(**counts)
        self._spool.forget(digest)

    def _count(self, **more: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})

    def _say(self, text: str, what: object) -> None:
        """Log a trouble once until it has passed."""
        if not self._failing:
            self._failing = True
            log.warning(text, what, extra={"event": "pictures.waiting"})
