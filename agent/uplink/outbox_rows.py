"""The rows of one outbox file: entries, counter cells and marks; one caller at a time, writes inside `transact`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from agent.uplink import outbox_schema as schema
from agent.uplink.outbox_schema import LANE_NUMBER, MAX_SEQ, place
from wire import codec
from wire.errors import LinesideError
from wire.inspection import Inspection, Verdict
from wire.messages import Counter, Entry, Lane

T = TypeVar("T")

MAX_ENTRIES: Final = 1000
KEPT_CELLS: Final = 100_000
EMITTED_AT_ONCE: Final = 2000
DROPPED_AT_ONCE: Final = 200
# When the file is full: what a put of a lane may push out, the least precious first. Dropped counters are only late,
# since their cell goes out again with its whole count. Reports on deployments are few and are never dropped. What a
# candidate made of a part is worth the least: no part was ever routed by it.
GIVES_WAY: Final[dict[Lane, tuple[Lane, ...]]] = {
    Lane.INSPECTIONS: (Lane.SHADOW, Lane.HEALTH, Lane.EVENTS, Lane.COUNTERS, Lane.INSPECTIONS),
    Lane.COUNTERS: (Lane.SHADOW, Lane.HEALTH, Lane.EVENTS, Lane.COUNTERS),
    Lane.DEPLOYMENTS: (Lane.SHADOW, Lane.HEALTH, Lane.EVENTS, Lane.COUNTERS),
    Lane.EVENTS: (Lane.SHADOW, Lane.HEALTH, Lane.EVENTS),
    Lane.HEALTH: (Lane.SHADOW, Lane.HEALTH),
    Lane.SHADOW: (Lane.SHADOW,),
}


class Rows:
    """Reads and writes of one file; raises what SQLite raises.

    Attributes:
        last: the last seq given out, by lane.
        removed: how many entries were ever removed, by lane: last - removed are left.
        dropped: how many of these were dropped for want of room.
    """

    def __init__(self, opened: schema.Opened) -> None:
        self._connection = opened.connection
        self.epoch = opened.epoch
        self.last = {lane: counts.last for lane, counts in opened.lanes.items()}
        self.removed = {lane: counts.removed for lane, counts in opened.lanes.items()}
        self.dropped = {lane: counts.dropped for lane, counts in opened.lanes.items()}

    def transact(self, action: Callable[[], T]) -> T:
        """Run `action` in one transaction; all it did is undone when it raises."""
        before = dict(self.last), dict(self.removed), dict(self.dropped)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = action()
            self._connection.execute("COMMIT")
        except BaseException:
            self.last, self.removed, self.dropped = before
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return result

    def close(self) -> None:
        self._connection.close()

    def checkpoint(self) -> None:
        """Copy the log to the database as far as possible, so that the log starts from its beginning again."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def used_bytes(self) -> int:
        """Return the bytes of the pages in use."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * page_bytes)

    def append(self, lane: Lane, body: bytes) -> int:
        """Add an entry at the end of a lane and return its seq."""
        seq = self.last[lane] + 1
        self._connection.execute("INSERT INTO entry VALUES(?, ?)", (place(lane, seq), body))
        self.last[lane] = seq
        return seq

    def remove(self, lane: Lane, first: int, last: int) -> int:
        """Remove the entries of a range and return how many there were."""
        removed = self._connection.execute(
            "DELETE FROM entry WHERE place BETWEEN ? AND ?", (place(lane, first), place(lane, last))
        ).rowcount
        if removed:
            self._count_removed(lane, removed, last)
        return removed

    def make_room(self, lane: Lane, max_bytes: int, spans: Mapping[Lane, Sequence[tuple[int, int]]]) -> None:
        """Drop entries that are less precious than `lane` until the file is within its bound.

        Args:
            spans: seqs from and to which entries cannot be on their way and may be dropped, the oldest first, by lane.

        Raises:
            LinesideError: `storage.full` where nothing may be dropped.
        """
        while self.used_bytes() > max_bytes:
            if not any(self._drop_oldest(victim, span) for victim in GIVES_WAY[lane] for span in spans[victim]):
                raise LinesideError(
                    "storage.full",
                    f"The outbox holds {max_bytes} bytes of records the fleet has not confirmed.",
                    "Connect the device to its fleet, or allow the outbox more bytes.",
                )

    def entries_after(self, lane: Lane, cursor: int, last: int, room: int) -> list[Entry]:
        """Return entries after a cursor, in order, as many as fit; at least one where there is one."""
        rows = self._connection.execute(
            "SELECT place, body FROM entry WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?",
            (place(lane, cursor + 1), place(lane, last), MAX_ENTRIES),
        )
        entries: list[Entry] = []
        for key, body in rows:
            seq = key & MAX_SEQ
            room -= entry_bytes(seq, body)
            if room < 0 and entries:
                break
            entries.append(Entry(seq=seq, body=msgspec.Raw(body)))
        rows.close()
        return entries

    def entry(self, lane: Lane, seq: int) -> Entry | None:
        """Return one entry, None where it is settled or dropped."""
        row = self._connection.execute("SELECT body FROM entry WHERE place = ?", (place(lane, seq),)).fetchone()
        return None if row is None else Entry(seq=seq, body=msgspec.Raw(row[0]))

    def count(self, inspection: Inspection) -> None:
        """Add an inspection to its counter cell."""
        self._connection.execute(
            "INSERT INTO counter(minute, station, recipe, model_digest, verdict, stratum, count, changed, seq)"
            " VALUES(?, ?, ?, ?, ?, ?, 1, 1, 0)"
            " ON CONFLICT(minute, station, recipe, model_digest, verdict, stratum)"
            " DO UPDATE SET count = count + 1, changed = 1",
            (
                int(inspection.judged_at.timestamp() // 60),
                inspection.station,
                inspection.recipe,
                (inspection.views[0].model_digest if inspection.views else None) or "",
                inspection.verdict.value,
                inspection.sampling.stratum,
            ),
        )

    def emit_counters(self) -> int:
        """Put the whole count of changed cells into the counters lane; return how many there were."""
        cells = self._connection.execute(
            "SELECT id, minute, station, recipe, model_digest, verdict, stratum, count, seq FROM counter"
            " WHERE changed = 1 ORDER BY id LIMIT ?",
            (EMITTED_AT_ONCE,),
        ).fetchall()
        for cell, minute, station, recipe, digest, verdict, stratum, count, earlier in cells:
            counter = Counter(
                minute=datetime.fromtimestamp(minute * 60, UTC),
                station=station,
                recipe=recipe,
                model_digest=digest or None,
                verdict=Verdict(verdict),
                stratum=stratum,
                count=count,
            )
            if earlier:  # a later whole count says all that the earlier one did
                self.remove(Lane.COUNTERS, earlier, earlier)
            seq = self.append(Lane.COUNTERS, codec.encode(counter))
            self._connection.execute("UPDATE counter SET changed = 0, seq = ? WHERE id = ?", (seq, cell))
        if cells:
            # By order of making, not by age: a clock that jumps must not make a live minute start from 0 again.
            self._connection.execute(
                "DELETE FROM counter WHERE changed = 0 AND id <= (SELECT max(id) FROM counter) - ?", (KEPT_CELLS,)
            )
        return len(cells)

    def remember_trigger(self, station: str, run: str, sequence: int) -> None:
        """Note the highest sequence of a line's run that has a record."""
        self._connection.execute(
            "INSERT INTO last_trigger VALUES(?, ?, ?) ON CONFLICT(station) DO UPDATE SET"
            " sequence = CASE WHEN run = excluded.run THEN max(sequence, excluded.sequence)"
            " ELSE excluded.sequence END, run = excluded.run",
            (station, run, sequence),
        )

    def last_trigger(self, station: str) -> tuple[str, int] | None:
        row = self._connection.execute(
            "SELECT run, sequence FROM last_trigger WHERE station = ?", (station,)
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def mark(self, key: str) -> str | None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_mark(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, value))

    def _drop_oldest(self, lane: Lane, span: tuple[int, int]) -> int:
        keys = [
            key
            for (key,) in self._connection.execute(
                "SELECT place FROM entry WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?",
                (place(lane, span[0]), place(lane, span[1]), DROPPED_AT_ONCE),
            )
        ]
        if not keys:
            return 0
        first, last = keys[0] & MAX_SEQ, keys[-1] & MAX_SEQ
        if lane is Lane.COUNTERS:
            self._connection.execute("UPDATE counter SET changed = 1 WHERE seq BETWEEN ? AND ?", (first, last))
        dropped = self.remove(lane, first, last)
        self.dropped[lane] += dropped
        self._connection.execute(
            "UPDATE lane SET dropped = ? WHERE number = ?", (self.dropped[lane], LANE_NUMBER[lane])
        )
        return dropped

    def _count_removed(self, lane: Lane, removed: int, high: int) -> None:
        self.removed[lane] += removed
        self._connection.execute(
            "UPDATE lane SET high = max(high, ?), removed = ? WHERE number = ?",
            (high, self.removed[lane], LANE_NUMBER[lane]),
        )


def entry_bytes(seq: int, body: bytes | msgspec.Raw) -> int:
    """Return what an entry adds to an encoded batch, its comma included."""
    return len('{"seq":,"body":},') + len(str(seq)) + len(bytes(body))
