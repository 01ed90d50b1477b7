"""The outbox's file: its tables, how it is opened, and what happens to one that is damaged.

Layout rules the rest of the outbox relies on:

- `entry.place` is lane number * 2**48 + seq: one integer key, so that a lane is one contiguous range.
- `put` writes no lane row. `lane.high` is the highest seq ever removed and `lane.removed` how many were; the last seq
  given out is max(lane.high, highest seq present), so that a seq is never used again in an epoch, restart or not.
- `counter.count` is absolute in this epoch; `changed` says that the counters lane does not hold the figure yet, and
  `seq` is the cell's latest entry there.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from wire import mint
from wire.errors import LinesideError
from wire.messages import Lane

log = logging.getLogger(__name__)

SEQ_BITS: Final = 48
MAX_SEQ: Final = (1 << SEQ_BITS) - 1
VERSION: Final = 1
MAX_SET_ASIDE: Final = 3
RESERVE_BYTES: Final = 4 * 1024 * 1024
MAX_LOG_BYTES: Final = 16 * 1024 * 1024
CHECKED_WHOLE_BYTES: Final = 32 * 1024 * 1024
LANE_NUMBER: Final[dict[Lane, int]] = {
    Lane.INSPECTIONS: 1,
    Lane.COUNTERS: 2,
    Lane.DEPLOYMENTS: 3,
    Lane.EVENTS: 4,
    Lane.HEALTH: 5,
    Lane.SHADOW: 6,
}
_TABLES: Final = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE lane(number INTEGER PRIMARY KEY, high INTEGER NOT NULL, removed INTEGER NOT NULL,
    dropped INTEGER NOT NULL);
CREATE TABLE entry(place INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE counter(id INTEGER PRIMARY KEY, minute INTEGER NOT NULL, station TEXT NOT NULL, recipe TEXT NOT NULL,
    model_digest TEXT NOT NULL, verdict TEXT NOT NULL, stratum TEXT NOT NULL, count INTEGER NOT NULL,
    changed INTEGER NOT NULL, seq INTEGER NOT NULL,
    UNIQUE(minute, station, recipe, model_digest, verdict, stratum));
CREATE INDEX counter_changed ON counter(id) WHERE changed = 1;
CREATE INDEX counter_seq ON counter(seq);
CREATE TABLE last_trigger(station TEXT PRIMARY KEY, run TEXT NOT NULL, sequence INTEGER NOT NULL) WITHOUT ROWID;
"""
EPOCH_KEY: Final = "outbox.epoch"
_CORRUPTION: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCounts:
    """What a lane's row and its entries say at opening."""

    last: int
    removed: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """What could still be read from a damaged file and must outlive it: the agent's own marks, never records."""

    meta: dict[str, str] = field(default_factory=dict)
    last_triggers: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An outbox file, ready for use.

    Args:
        set_aside: what a damaged file was renamed to, and why; empty where none was.
    """

    connection: sqlite3.Connection
    epoch: str
    lanes: dict[Lane, LaneCounts]
    set_aside: str = ""


def place(lane: Lane, seq: int) -> int:
    """Return the key of an entry."""
    return (LANE_NUMBER[lane] << SEQ_BITS) + seq


def is_corruption(error: sqlite3.Error) -> bool:
    """Tell whether SQLite says that the file itself is damaged."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _CORRUPTION


def as_lineside(error: sqlite3.Error, path: Path) -> LinesideError:
    """Say in Lineside's words what SQLite could not do; nothing of the attempt has been recorded."""
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return LinesideError("storage.full", f"{path} cannot be written: {error}.", "Make room on the device's disk.")
    if code in _CORRUPTION:
        return LinesideError("storage.corrupt", f"{path} is damaged: {error}.", "Check the device's disk.")
    return LinesideError("internal.unexpected", f"{path} cannot be used: {error}.")


def open_file(path: Path, salvage: Salvage = Salvage()) -> Opened:
    """Open the outbox, or make a new one; a damaged one is set aside and a new epoch begins.

    Args:
        path: the file; its folder must exist.
        salvage: marks to be written into it.

    Raises:
        LinesideError: `storage.full` where not even an empty file can be made.
    """
    try:
        try:
            return _opened(_connect(path), salvage)
        except sqlite3.DatabaseError as error:
            if not is_corruption(error):
                raise
            salvage = read_salvage(path)
            kept = move_aside(path, str(error))
            opened = _opened(_connect(path), salvage)
            return replace(opened, set_aside=set_aside_words(kept, error))
    except sqlite3.Error as error:
        raise as_lineside(error, path) from error


def move_aside(path: Path, why: str) -> Path:
    """Rename a damaged file to `outbox.db.corrupt-<n>`, keep the latest few, and say so in the log."""
    prefix = f"{path.name}.corrupt-"
    numbers = sorted(
        int(name.removeprefix(prefix))
        for name in (other.name for other in path.parent.glob(f"{prefix}*"))
        if name.removeprefix(prefix).isdecimal()
    )
    for old in numbers[: max(0, len(numbers) - MAX_SET_ASIDE + 1)]:
        for suffix in ("", "-wal"):
            path.with_name(f"{prefix}{old}{suffix}").unlink(missing_ok=True)
    target = path.with_name(f"{prefix}{numbers[-1] + 1 if numbers else 1}")
    path.rename(target)
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists():
        wal.rename(target.with_name(f"{target.name}-wal"))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    log.error(
        "The outbox %s was damaged (%s) and is set aside as %s; a new epoch begins.",
        path,
        why,
        target.name,
        extra={"event": "outbox.set_aside"},
    )
    return target


def set_aside_words(kept: Path, error: sqlite3.Error) -> str:
    """Say of a damaged file what a person should know."""
    return f"The outbox was damaged ({error}) and is kept as {kept.name}; records in it are not sent by themselves."


def read_salvage(path: Path) -> Salvage:
    """Read the agent's marks from a damaged file as far as it lets them be read."""
    meta: dict[str, str] = {}
    triggers: list[tuple[str, str, int]] = []
    try:
        connection = sqlite3.connect(path, isolation_level=None)
    except sqlite3.Error:
        return Salvage()
    try:
        for key, value in connection.execute("SELECT key, value FROM meta WHERE key <> ?", (EPOCH_KEY,)):
            meta[str(key)] = str(value)  # one by one: what comes before the damage is kept
        for station, run, sequence in connection.execute("SELECT station, run, sequence FROM last_trigger"):
            if isinstance(station, str) and isinstance(run, str) and isinstance(sequence, int):
                triggers.append((station, run, sequence))
    except (sqlite3.Error, UnicodeDecodeError) as error:
        log.warning(
            "Not all marks of the damaged outbox could be read: %s.", error, extra={"event": "outbox.marks_lost"}
        )
    finally:
        connection.close()
    return Salvage(meta=meta, last_triggers=tuple(triggers))


def reserve(path: Path) -> None:
    """Set some disk space aside while there is plenty: a removal needs room too, and on a full disk there is none."""
    kept = path.with_name(f"{path.name}.reserve")
    try:
        if kept.exists() or shutil.disk_usage(path.parent).free < 2 * RESERVE_BYTES:
            return
        descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        kept.unlink(missing_ok=True)
        log.warning("No space can be reserved: %s.", error, extra={"event": "outbox.reserve_failed"})


def release_reserve(path: Path) -> bool:
    """Give the reserved space back to the disk; False where there was none."""
    kept = path.with_name(f"{path.name}.reserve")
    found = kept.exists()
    kept.unlink(missing_ok=True)
    return found


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        # A commit is handed to the kernel and not waited for; the flusher syncs and checkpoints beside the producers.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute(f"PRAGMA journal_size_limit={MAX_LOG_BYTES}")
        if connection.execute("PRAGMA user_version").fetchone() == (0,):
            connection.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES(?, ?)", (EPOCH_KEY, mint.epoch_id()))
            connection.executemany("INSERT INTO lane VALUES(?, 0, 0, 0)", [(n,) for n in LANE_NUMBER.values()])
            connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _opened(connection: sqlite3.Connection, salvage: Salvage) -> Opened:
    try:
        _add_later_lanes(connection)
        _check(connection)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT OR REPLACE INTO meta VALUES(?, ?)", list(salvage.meta.items()))
        connection.executemany("INSERT OR REPLACE INTO last_trigger VALUES(?, ?, ?)", salvage.last_triggers)
        connection.execute("COMMIT")
        (epoch,) = connection.execute("SELECT value FROM meta WHERE key = ?", (EPOCH_KEY,)).fetchone()
        lanes = {lane: _counts_of(connection, lane) for lane in Lane}
    except BaseException:
        connection.close()
        raise
    return Opened(connection=connection, epoch=epoch, lanes=lanes)


def _add_later_lanes(connection: sqlite3.Connection) -> None:
    """Give a file of an earlier version the lanes that came later; one that is missing among the others is damage."""
    (last,) = connection.execute("SELECT max(number) FROM lane").fetchone()
    later = [number for number in LANE_NUMBER.values() if last is not None and number > last]
    if later:
        connection.executemany("INSERT INTO lane VALUES(?, 0, 0, 0)", [(number,) for number in later])


def _check(connection: sqlite3.Connection) -> None:
    """Raise what SQLite raises for a damaged file; a large one is checked only where it is used."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    damage = f"schema version {version}" if version != VERSION else ""
    if not damage and pages * page_bytes <= CHECKED_WHOLE_BYTES:
        (word,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        damage = "" if word == "ok" else str(word)
    rows = connection.execute("SELECT count(*) FROM lane").fetchone() if not damage else (len(LANE_NUMBER),)
    if damage or rows != (len(LANE_NUMBER),):
        error = sqlite3.DatabaseError(damage or "lanes are missing")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _counts_of(connection: sqlite3.Connection, lane: Lane) -> LaneCounts:
    number = LANE_NUMBER[lane]
    high, removed, dropped = connection.execute(
        "SELECT high, removed, dropped FROM lane WHERE number = ?", (number,)
    ).fetchone()
    (top,) = connection.execute(
        "SELECT max(place) FROM entry WHERE place BETWEEN ? AND ?", (place(lane, 0), place(lane, MAX_SEQ))
    ).fetchone()
    return LaneCounts(last=max(high, 0 if top is None else top - place(lane, 0)), removed=removed, dropped=dropped)
