"""Reads an outbox beside the agent that has it open, or without one; nothing is written, nothing is settled.

SQLite's log lets any number of processes read while one writes. Each batch is one short read of its own, so that the
log of a running agent can start from its beginning again in between; what comes meanwhile may be left out, what is
settled meanwhile may be in.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

from agent.uplink import outbox_schema as schema
from agent.uplink.outbox_rows import MAX_ENTRIES, entry_bytes
from agent.uplink.outbox_schema import MAX_SEQ, place
from wire import topics
from wire.errors import LinesideError
from wire.messages import Batch, Entry, Lane

_BUSY_TIMEOUT_S: Final = 5.0
_ENVELOPE: Final = len('{"schema":1,"device":"","epoch":"0123456789abcdef","lane":"","entries":[]}')


class OutboxReader:
    """One look at an outbox file. Use it in a `with` statement.

    Args:
        path: the file.
        device: the name the batches carry.

    Raises:
        LinesideError: `resource.not_found` where there is none, `storage.corrupt` where it cannot be read as one.
    """

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._device = device
        if not path.is_file():
            raise LinesideError(
                "resource.not_found", f"{path}: this device has recorded nothing yet.", "Name the agent's data folder."
            )
        with self._named():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT_S
            )
            self._connection.execute("PRAGMA query_only=1")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def batches(self) -> Iterator[Batch]:
        """Yield everything that is not settled, lane by lane, in batches as they would travel.

        Counters come last: a cell that is counted on meanwhile moves to the end of its lane, and is still met there.

        Raises:
            LinesideError: `storage.corrupt`, `storage.in_use` where the agent holds it for too long.
        """
        for lane in sorted(Lane, key=lambda lane: lane is Lane.COUNTERS):
            end = MAX_SEQ if lane is Lane.COUNTERS else self._last(lane)
            cursor = 0
            while entries := self._after(lane, cursor, end):
                cursor = entries[-1].seq
                yield Batch(device=self._device, epoch=self._epoch, lane=lane, entries=tuple(entries))

    @property
    def _epoch(self) -> str:
        with self._named():
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (schema.EPOCH_KEY,)).fetchone()
        if row is None:
            raise LinesideError("storage.corrupt", f"{self._path} is no outbox.", "Check the device's disk.")
        return str(row[0])

    def _last(self, lane: Lane) -> int:
        with self._named():
            (top,) = self._connection.execute(
                "SELECT max(place) FROM entry WHERE place BETWEEN ? AND ?", (place(lane, 0), place(lane, MAX_SEQ))
            ).fetchone()
        return 0 if top is None else top - place(lane, 0)

    def _after(self, lane: Lane, cursor: int, end: int) -> list[Entry]:
        """Return the entries after a cursor that fit into one batch; at least one where there is one."""
        room = topics.TABLE[lane.value].max_bytes - _ENVELOPE - len(self._device) - len(lane.value)
        entries: list[Entry] = []
        with self._named():
            rows = self._connection.execute(
                "SELECT place, body FROM entry WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?",
                (place(lane, cursor + 1), place(lane, end), MAX_ENTRIES),
            )
            for key, body in rows:
                seq = key & MAX_SEQ
                room -= entry_bytes(seq, body)
                if room < 0 and entries:
                    break
                entries.append(Entry(seq=seq, body=msgspec.Raw(body)))
            rows.close()
        return entries

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Say in words what SQLite could not do."""
        try:
            yield
        except sqlite3.Error as error:
            code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise LinesideError("storage.in_use", f"{self._path} is in use: {error}.", "Try again.") from error
            if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
                raise LinesideError(
                    "storage.unusable",
                    f"{self._path} cannot be read by this user: {error}.",
                    "Export as the user that the agent runs as, or with sudo.",
                ) from error
            raise LinesideError(
                "storage.corrupt", f"{self._path} cannot be read: {error}.", "The agent sets a damaged one aside."
            ) from error


def make_durable(path: Path) -> None:
    """Have what was read of an outbox be on disk before anybody else knows of it: a power cut must not take it back.

    Call it when the reader is closed: closing a file ends the locks that this process has on it.

    Raises:
        OSError: where the disk refuses.
    """
    for file in (path.with_name(f"{path.name}-wal"), path):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
