"""The outbox: what the device has to tell the fleet, kept on disk until the fleet has it as rows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from agent.clock import Clock
from agent.uplink import outbox_schema as schema
from agent.uplink.borrowing import Borrowing, Lender
from agent.uplink.dispatch import Dispatch
from agent.uplink.flusher import Flusher, Marks
from agent.uplink.outbox_rows import Rows, entry_bytes
from wire import codec, topics
from wire.errors import LinesideError
from wire.inspection import Inspection
from wire.messages import BODY_OF_LANE, Batch, Event, Lane, Refusal, SeqRange, Severity

T = TypeVar("T")

MAX_BYTES_DEFAULT: Final = 512 * 1024 * 1024
_ROOM_CHECKED_EVERY_BYTES: Final = 64 * 1024
_LONGEST_SEQ: Final = schema.MAX_SEQ


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxStats:
    """How full the outbox is.

    Args:
        unsettled: records the fleet has not confirmed.
        bytes: pages in use in the file; its log adds at most some 20 MiB.
        dropped: records pushed out by more precious ones in this epoch.
        sync_failures: how often the disk refused to make records durable since the start.
    """

    epoch: str
    unsettled: int
    bytes: int
    dropped: int
    unsettled_by_lane: dict[Lane, int] = field(default_factory=dict)
    dropped_by_lane: dict[Lane, int] = field(default_factory=dict)
    sync_failures: int = 0


class Outbox:
    """Records in lanes, each with its own strictly increasing seq, in one SQLite file; safe for many threads.

    When `put` returns, the record is in the kernel's hands: it survives kill -9 of the agent at any moment, and a power
    cut later than about 100 ms. When it raises, nothing was recorded and no seq was used.

    Args:
        path: the file; its folder must exist. One process at a time may have it open.
        device: the name the batches carry.
        max_bytes: bound of the file; a full outbox pushes out the least precious records and counts them.
        resend_after_s: how long the fleet's answer to a batch is waited for before the batch is sent again.

    Raises:
        LinesideError: `storage.in_use` where another process has it, `storage.full` where it cannot be made.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        device: str,
        max_bytes: int = MAX_BYTES_DEFAULT,
        resend_after_s: float = 10.0,
    ) -> None:
        self._path = path
        self._clock = clock
        self._device = device
        self._max_bytes = max_bytes
        self._resend_after_ns = int(resend_after_s * 1e9)
        self._lock = threading.RLock()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._borrowing = Borrowing()
        self._closed = False
        self._owner = _own(path)
        try:
            opened = schema.open_file(path)
            self._use(Rows(opened))
            self._tell_set_aside(opened.set_aside)
        except BaseException:
            os.close(self._owner)
            raise

    @property
    def epoch(self) -> str:
        """The random id of the file in use; it changes when a damaged file is set aside."""
        return self._rows.epoch

    @property
    def heartbeat_ns(self) -> int:
        """When the flusher's thread last went round, monotonic."""
        return self._flusher.heartbeat_ns

    def borrow_from(self, lender: Lender) -> None:
        """Have somebody with less precious things give up room before any inspection record is dropped or refused."""
        self._borrowing.begin(lender)

    def listen(self, callback: Callable[[], None]) -> None:
        """Have `callback` called (from the flusher's thread) whenever new records may be sent."""
        self._listeners = (*self._listeners, callback)

    # What producers call

    def put(self, lane: Lane, body: object) -> int:
        """Record one thing for the fleet and return its seq.

        Raises:
            LinesideError: `storage.full`, `storage.corrupt`, or `message.too_large` for what no batch can carry.
        """
        if lane is Lane.INSPECTIONS or not isinstance(body, BODY_OF_LANE[lane]):
            raise TypeError(f"{type(body).__name__} cannot be put into the lane {lane.value}")
        encoded = self._encoded(lane, body)

        def action() -> int:
            self._make_room(lane)
            return self._rows.append(lane, encoded)

        self._flusher.give_way()
        return self._write(action, len(encoded))

    def put_inspection(self, inspection: Inspection, *, line_run: str | None) -> int:
        """Record an inspection, count it, and remember its trigger, all or nothing; return its seq.

        Call it in the order of the triggers of a station: a restart goes on from what `last_trigger` says.

        Args:
            inspection: of this device.
            line_run: run of the line's controller that the trigger's sequence belongs to, None where it has none.

        Raises:
            LinesideError: as `put`.
        """
        return self.put_inspections((inspection,), line_run=line_run)

    def put_inspections(self, inspections: Sequence[Inspection], *, line_run: str | None) -> int:
        """Record some inspections as `put_inspection` does one, all of them or none; return the last seq."""
        encoded = [self._encoded(Lane.INSPECTIONS, inspection) for inspection in inspections]
        length = sum(map(len, encoded))

        def action() -> int:
            self._make_room(Lane.INSPECTIONS)
            seq = 0
            for inspection, body in zip(inspections, encoded, strict=True):
                seq = self._rows.append(Lane.INSPECTIONS, body)
                self._rows.count(inspection)
                if line_run is not None and inspection.trigger_sequence is not None:
                    self._rows.remember_trigger(inspection.station, line_run, inspection.trigger_sequence)
            return seq

        self._flusher.give_way()
        try:
            return self._write(action, length)
        except LinesideError as error:
            # The disk itself is full: pictures go before any record is refused.
            if error.code != "storage.full" or not self._borrowing.free_some_disk():
                raise
            return self._write(action, length)

    def emit_counters(self) -> int:
        """Move the whole count of changed cells into the counters lane; return how many cells that were.

        A cell's earlier entry is replaced, so that the lane holds at most one entry per cell, however long the
        network is away.

        Raises:
            LinesideError: as `put`; the cells stay marked as changed then.
        """

        def action() -> int:
            self._make_room(Lane.COUNTERS)
            return self._rows.emit_counters()

        return self._write(action, 0)

    def last_trigger(self, station: str) -> tuple[str, int] | None:
        """Return the line's run and the highest sequence of it that has a record."""
        return self._read(lambda: self._rows.last_trigger(station))

    def meta_get(self, key: str) -> str | None:
        """Return one of the agent's own marks; they outlive a damaged file as far as it can be read."""
        return self._read(lambda: self._rows.mark(key))

    def meta_set(self, key: str, value: str) -> None:
        """Keep one of the agent's own marks.

        Raises:
            LinesideError: as `put`.
        """
        if key == schema.EPOCH_KEY:
            raise ValueError(key)
        self._write(lambda: self._rows.set_mark(key, value), len(value))

    # What the uplink calls

    def next_batch(self, lane: Lane, max_bytes: int, *, live: bool = True) -> Batch | None:
        """Return the next records of a lane that are to be sent, and mark them as on their way.

        Live records go before those that were left behind when the connection began (`unsend_all`); of each, those
        that ran out of time go first (agent/uplink/dispatch.py). Only durable records are given out.

        Args:
            lane: whose records.
            max_bytes: of the encoded batch; the topic's own budget also holds. At least one record is returned.
            live: whether live records may go now; the others always may.
        """
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            room = min(max_bytes, topics.TABLE[lane.value].max_bytes) - self._envelope_bytes(lane)
            entries = self._read(lambda: self._dispatch.next(lane, room, self._durable[lane], now_ns, live=live))
            if not entries:
                return None
            return Batch(device=self._device, epoch=self._rows.epoch, lane=lane, entries=tuple(entries))

    def is_live(self, batch: Batch) -> bool:
        """Tell whether a batch holds the newest records that were sent, not such that were left behind."""
        return self._dispatch.is_live(batch.lane, batch.entries[-1].seq)

    def in_flight(self, lane: Lane) -> int:
        """Return how many batches of a lane are on their way and not out of time."""
        with self._lock:
            return self._dispatch.count(lane, self._clock.monotonic_ns())

    def next_due_ns(self) -> int | None:
        """Return the monotonic time at which the next batch has to be sent again."""
        with self._lock:
            return self._dispatch.next_due_ns()

    def settle(self, epoch: str, lane: Lane, ranges: Iterable[SeqRange | Refusal]) -> int:
        """Remove what the fleet has as rows or refuses for ever; return how many records that were.

        An answer to another epoch, or to what is gone already, removes nothing.

        Raises:
            LinesideError: `storage.full` where the disk does not even take a removal; the records are sent again then.
        """
        with self._lock:
            rows = self._rows
            if epoch != rows.epoch:
                return 0
            bounds = [(max(1, r.first), min(r.last, rows.last[lane])) for r in ranges]
            bounds = [(first, last) for first, last in bounds if first <= last]
            if not bounds:
                return 0
            removed = self._write_with_reserve(
                lambda: sum(self._rows.remove(lane, first, last) for first, last in bounds)
            )
            for first, last in bounds:
                self._dispatch.settle(lane, first, last)
            return removed

    def unsend(self, batch: Batch, after_s: float = 0.0) -> None:
        """Have a batch sent again after a while: it was refused, or could not be handed to the network."""
        with self._lock:
            if batch.epoch == self._rows.epoch:
                due_ns = self._clock.monotonic_ns() + int(after_s * 1e9)
                self._dispatch.postpone(batch.lane, (entry.seq for entry in batch.entries), due_ns)

    def unsend_all(self) -> None:
        """Have everything that is not settled sent again: the connection, or ingest, began anew.

        What was never sent so far gives way to the records that are made from now on.
        """
        with self._lock:
            self._dispatch.begin_anew(self._rows.last)

    def stats(self) -> OutboxStats:
        """Return how full the outbox is; costs a few small reads."""
        with self._lock:
            rows = self._rows
            unsettled = {lane: rows.last[lane] - rows.removed[lane] for lane in Lane}
            return OutboxStats(
                epoch=rows.epoch,
                unsettled=sum(unsettled.values()),
                bytes=self._read(rows.used_bytes),
                dropped=sum(rows.dropped.values()),
                unsettled_by_lane=unsettled,
                dropped_by_lane=dict(rows.dropped),
                sync_failures=self._flusher.sync_failures,
            )

    def close(self) -> None:
        """Make everything durable and close the file."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._flusher.stop(wait=True)
        with self._lock:
            self._rows.close()
            os.close(self._owner)

    def _use(self, rows: Rows) -> None:
        self._rows = rows
        self._committed: Marks = dict(rows.last)
        self._durable: Marks = dict.fromkeys(Lane, 0)
        self._dispatch = Dispatch(rows, self._resend_after_ns)
        self._unchecked_bytes = self._max_bytes
        self._flusher = Flusher(self._path, lambda: self._committed, self._synced, self._lock)
        schema.reserve(self._path)
        self._flusher.committed(0)  # what an earlier process left may not be durable yet

    def _synced(self, flusher: Flusher, marks: Marks) -> None:
        if flusher is self._flusher:
            self._durable = marks
            for listener in self._listeners:
                listener()

    def _write(self, action: Callable[[], T], length: int) -> T:
        """Run a transaction; a damaged file is set aside and the action done in the new one."""
        with self._lock:
            if self._closed:
                raise LinesideError("storage.in_use", f"{self._path} is closed.", "Open the outbox again.")
            try:
                try:
                    result = self._rows.transact(action)
                except sqlite3.DatabaseError as error:
                    if not schema.is_corruption(error):
                        raise
                    self._begin_anew(error)
                    result = self._rows.transact(action)
            except sqlite3.Error as error:
                raise schema.as_lineside(error, self._path) from error
            self._committed = dict(self._rows.last)
            self._unchecked_bytes += length
            self._flusher.committed(length)
            return result

    def _write_with_reserve(self, action: Callable[[], T]) -> T:
        """Run a transaction that makes room; on a full disk it may use the space set aside for this."""
        try:
            return self._write(action, 0)
        except LinesideError as error:
            if error.code != "storage.full" or not schema.release_reserve(self._path):
                raise
            with contextlib.suppress(sqlite3.Error):
                self._rows.checkpoint()
            return self._write(action, 0)

    def _read(self, action: Callable[[], T]) -> T:
        with self._lock:
            try:
                try:
                    return action()
                except sqlite3.DatabaseError as error:
                    if not schema.is_corruption(error):
                        raise
                    self._begin_anew(error)
                    return action()
            except sqlite3.Error as error:
                raise schema.as_lineside(error, self._path) from error

    def _begin_anew(self, error: sqlite3.Error) -> None:
        self._flusher.stop(wait=False)
        self._rows.close()
        salvage = schema.read_salvage(self._path)
        kept = schema.move_aside(self._path, str(error))
        self._use(Rows(schema.open_file(self._path, salvage)))
        self._tell_set_aside(schema.set_aside_words(kept, error))

    def _tell_set_aside(self, words: str) -> None:
        """Have the fleet learn that records of this device are in a file that nobody sends."""
        if words:
            event = Event(at=self._clock.now_utc(), name="outbox.set_aside", severity=Severity.ALARM, text=words[:1000])
            self.put(Lane.EVENTS, event)

    def _make_room(self, lane: Lane) -> None:
        if self._unchecked_bytes < min(_ROOM_CHECKED_EVERY_BYTES, self._max_bytes // 16):
            return
        rows = self._rows
        self._unchecked_bytes = 0
        if lane is Lane.INSPECTIONS:
            self._borrowing.balance(rows.used_bytes() - self._max_bytes)
        rows.make_room(lane, self._max_bytes + self._borrowing.bytes, self._dispatch.never_sent(rows.last))

    def _encoded(self, lane: Lane, body: object) -> bytes:
        encoded = codec.encode(body)
        most = topics.TABLE[lane.value].max_bytes - self._envelope_bytes(lane)
        if entry_bytes(_LONGEST_SEQ, encoded) > most:
            raise LinesideError(
                "message.too_large",
                f"A record of {len(encoded)} bytes is over the {most} bytes that the lane {lane.value} carries.",
                "Have the model report fewer findings.",
            )
        return encoded

    def _envelope_bytes(self, lane: Lane) -> int:
        return len('{"schema":1,"device":"","epoch":"0123456789abcdef","lane":"","entries":[]}') + len(
            self._device + lane.value
        )


def _own(path: Path) -> int:
    """Take the lock that keeps a second process out; it ends with this process, however that ends."""
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise LinesideError(
            "storage.in_use", f"Another process has {path} open.", "Stop the other agent of this device first."
        ) from error
    return descriptor
