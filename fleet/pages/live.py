"""Shares one reading of the board among all who watch: read at most once a second, and only while somebody does."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.concurrency import run_in_threadpool

from fleet import db
from fleet.pages import board
from fleet.web import Fleet
from wire import codec
from wire.errors import LinesideError

MAX_STREAMS: Final = 32
PERIOD_S: Final = 1.0
HEARTBEAT_S: Final = 10.0
LONGEST_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One reading of the board.

    Args:
        mark: a hash of what it shows; the time of the reading does not count.
        taken_s: monotonic.
    """

    board: board.Board
    payload: bytes
    mark: bytes
    taken_s: float


class Live:
    """The newest reading, and a bounded number of streams that follow it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._lock = threading.Lock()
        self._reading: Reading | None = None
        self._streams = 0

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams

    def latest(self) -> Reading:
        """Return a reading that is at most one period old."""
        with self._lock:
            reading = self._reading
            if reading is None or time.monotonic() - reading.taken_s >= PERIOD_S * 0.9:
                reading = self._reading = self._read()
            return reading

    def require_room(self) -> None:
        """Refuse one stream more than there may be.

        Raises:
            LinesideError: `request.too_many` where all are taken.
        """
        if self._streams >= MAX_STREAMS:
            raise LinesideError(
                "request.too_many", f"{MAX_STREAMS} live pages are open already.", "Close one, or reload now and then."
            )

    async def follow(self, goes_on: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
        """Yield server-sent events: the board whenever it changes, a comment now and then.

        Args:
            goes_on: asked at each heartbeat, and before the end of the longest time a stream may last.
        """
        mark, spoke, began = b"", 0.0, time.monotonic()
        self._streams += 1  # here, not before: a stream that nobody ever reads never comes to its `finally`
        try:
            yield b"retry: 2000\n\n"
            while time.monotonic() - began < LONGEST_S:
                reading = await run_in_threadpool(self.latest)
                now = time.monotonic()
                if reading.mark != mark:
                    mark, spoke = reading.mark, now
                    yield b"event: board\ndata: " + reading.payload + b"\n\n"
                elif now - spoke >= HEARTBEAT_S:
                    spoke = now
                    if not await goes_on():
                        return
                    yield b"event: beat\ndata: " + codec.encode(reading.board["at"]) + b"\n\n"
                await asyncio.sleep(PERIOD_S)
        finally:
            self._streams -= 1

    def _read(self) -> Reading:
        fleet = self._fleet
        with db.read_session(fleet.engine) as session:
            shown = board.take(session, lambda digest: fleet.blobs.stat(digest) is not None, fleet.now())
        payload = codec.encode(shown)
        still: dict[str, Any] = {**shown, "at": ""}
        mark = hashlib.sha256(codec.encode(still)).digest()
        return Reading(board=shown, payload=payload, mark=mark, taken_s=time.monotonic())
