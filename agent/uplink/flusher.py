"""Makes commits durable and copies them from the write-ahead log to the database, beside the producers.

A put only hands its commit to the kernel, which outlives the process but not a power cut. One thread syncs the log
at the first commit after a pause at once, and then once in `INTERVAL_S`, so that a power cut costs less than 100 ms
plus what the disk needs for one sync. What is durable is told to the outbox, which sends nothing else: the fleet is
never ahead of the device, and a sequence number that was sent is never given out again.

Copying takes three syncs and the writing of megabytes, so it has a thread of its own: new records are not kept waiting.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from agent.uplink import outbox_schema
from wire.messages import Lane

log = logging.getLogger(__name__)

INTERVAL_S: Final = 0.08
CHECKPOINT_COMMITS: Final = 500
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
MAX_LOG_PAGES: Final = 4000
Marks = Mapping[Lane, int]


class Flusher:
    """The threads `outbox-flusher` and `outbox-copier` of one outbox file.

    Args:
        path: the outbox; its log must exist already.
        marks: gives the last committed seq of each lane; called before each sync.
        synced: is told the marks that are durable now.
        writer_lock: held by whoever writes; taken only where the log would grow without bound otherwise.
    """

    def __init__(
        self,
        path: Path,
        marks: Callable[[], Marks],
        synced: Callable[[Flusher, Marks], None],
        writer_lock: threading.RLock,
    ) -> None:
        self._path = path
        self._marks = marks
        self._synced = synced
        self._writer_lock = writer_lock
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._gate = threading.Event()
        self._gate.set()
        self._commits = 0
        self._bytes = 0
        self._failing = False
        self.sync_failures = 0
        self.heartbeat_ns = time.monotonic_ns()
        self._log_file = os.open(path.with_name(f"{path.name}-wal"), os.O_RDWR | os.O_CLOEXEC)
        outbox_schema.sync_folder(path.parent)
        self._thread = threading.Thread(target=self._run, name="outbox-flusher", daemon=True)
        self._copy_wanted = threading.Event()
        self._copier = threading.Thread(target=self._run_copier, name="outbox-copier", daemon=True)
        self._thread.start()
        self._copier.start()

    def committed(self, length: int) -> None:
        """Tell that a commit of about `length` bytes was handed to the kernel."""
        self._commits += 1
        self._bytes += length
        if not self._dirty.is_set():
            self._dirty.set()

    def give_way(self) -> None:
        """Have a producer wait while the flusher needs the writer's lock, which would starve beside a burst."""
        if not self._gate.is_set():
            self._gate.wait(1.0)

    def stop(self, *, wait: bool) -> None:
        """End the threads after a last sync."""
        self._stop.set()
        self._dirty.set()
        self._copy_wanted.set()
        if wait:
            self._copier.join(timeout=10.0)
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        try:
            while not (self._stop.is_set() and not self._dirty.is_set()):
                self.heartbeat_ns = time.monotonic_ns()
                if not self._dirty.wait(1.0):
                    continue
                started = time.monotonic()
                self._dirty.clear()
                self._sync()
                if self._commits >= CHECKPOINT_COMMITS or self._bytes >= CHECKPOINT_BYTES:
                    self._commits = self._bytes = 0
                    self._copy_wanted.set()
                self._stop.wait(max(0.0, INTERVAL_S - (time.monotonic() - started)))
        except Exception:
            log.exception("The outbox's flusher ended.", extra={"event": "outbox.flusher_failed"})
        finally:
            os.close(self._log_file)

    def _run_copier(self) -> None:
        try:
            while self._copy_wanted.wait() and not self._stop.is_set():
                self._copy_wanted.clear()
                self._checkpoint()
                outbox_schema.reserve(self._path)
        except Exception:
            log.exception("The outbox's copier ended.", extra={"event": "outbox.copier_failed"})

    def _sync(self) -> None:
        marks = self._marks()
        try:
            os.fdatasync(self._log_file)
        except OSError as error:
            # A disk that refuses to sync may still be read by the next process: going on sends what can be saved.
            self.sync_failures += 1
            if not self._failing:
                self._failing = True
                log.error("The outbox cannot be made durable: %s.", error, extra={"event": "outbox.sync_failed"})  # noqa: TRY400
        else:
            self._failing = False
        self._synced(self, marks)

    def _checkpoint(self) -> None:
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=1.0)
            try:
                _, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if pages > MAX_LOG_PAGES and copied < pages:
                    self._finish_checkpoint(connection)
            finally:
                connection.close()
        except sqlite3.Error as error:
            log.warning("The outbox's log could not be copied: %s.", error, extra={"event": "outbox.checkpoint_failed"})

    def _finish_checkpoint(self, connection: sqlite3.Connection) -> None:
        """Copy the rest while nobody writes: little is left, and the log starts from its beginning again."""
        self._gate.clear()
        try:
            if self._writer_lock.acquire(timeout=1.0):
                try:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                finally:
                    self._writer_lock.release()
        finally:
            self._gate.set()
