"""Which entries of the outbox are sent next: live ones before those of an outage, and neither without the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from agent.uplink.flights import Flights, Span
from agent.uplink.outbox_rows import Rows, entry_bytes
from wire.messages import Entry, Lane

# Of the uplink's window of 15 batches, and of the batches sent: what records of an outage may take beside live ones.
BEHIND_WINDOW: Final = 12
BEHIND_TURN: Final = 4


class Dispatch:
    """Used under the outbox's lock.

    Args:
        rows: of the outbox file in use.
        resend_after_ns: see `Flights`.
    """

    def __init__(self, rows: Rows, resend_after_ns: int) -> None:
        self._rows = rows
        self._flights = Flights(resend_after_ns)
        self._live_in_row = dict.fromkeys(Lane, 0)

    def next(self, lane: Lane, room: int, durable: int, now_ns: int, *, live: bool) -> list[Entry]:
        """Return the entries that go next, and enter them as being on their way.

        Args:
            room: bytes; at least one entry is returned where there is one.
            durable: entries above are not sent yet.
            live: whether live entries may go now.
        """
        entries, behind = self._next(lane, room, durable, now_ns, live=live)
        if entries:
            self._flights.start(lane, (entry.seq for entry in entries), now_ns, behind=behind)
        return entries

    def is_live(self, lane: Lane, seq: int) -> bool:
        """Tell whether an entry that was sent is the newest that was, and not left behind."""
        return seq >= self._flights.cursor(lane)

    def count(self, lane: Lane, now_ns: int) -> int:
        """Return how many batches of a lane are on their way and not out of time."""
        return self._flights.count(lane, now_ns)

    def next_due_ns(self) -> int | None:
        """Return the monotonic time at which the next batch has to be sent again."""
        return self._flights.next_due_ns()

    def settle(self, lane: Lane, first: int, last: int) -> None:
        """Strike out entries that need not be sent again."""
        self._flights.settle(lane, first, last)

    def postpone(self, lane: Lane, seqs: Iterable[int], due_ns: int) -> None:
        """Set when the batches that hold these entries are sent again."""
        self._flights.postpone(lane, seqs, due_ns)

    def begin_anew(self, last: Mapping[Lane, int]) -> None:
        """Have all that is not settled sent again, after what is put from now on.

        Args:
            last: the last seq of each lane.
        """
        self._flights.release_all()
        for lane, seq in last.items():
            self._flights.leave_behind(lane, seq)

    def never_sent(self, last: Mapping[Lane, int]) -> dict[Lane, list[Span]]:
        """Return the spans of entries that cannot be on their way, the oldest first."""
        return {lane: self._flights.never_sent(lane, seq) for lane, seq in last.items()}

    def _next(self, lane: Lane, room: int, durable: int, now_ns: int, *, live: bool) -> tuple[list[Entry], bool]:
        """Return what goes next, and whether it was left behind."""
        window = BEHIND_WINDOW if lane is Lane.INSPECTIONS else 1
        may_behind = self._flights.count(lane, now_ns, behind=True) < window
        if may_behind and self._live_in_row[lane] >= BEHIND_TURN - 1:
            entries = self._behind(lane, room, durable, now_ns)
            if entries:
                self._live_in_row[lane] = 0
                return entries, True
        if live and (entries := self._live(lane, room, durable, now_ns)):
            self._live_in_row[lane] += 1
            return entries, False
        return (self._behind(lane, room, durable, now_ns) if may_behind else []), True

    def _live(self, lane: Lane, room: int, durable: int, now_ns: int) -> list[Entry]:
        return self._again(lane, room, now_ns, behind=False) or self._rows.entries_after(
            lane, self._flights.cursor(lane), durable, room
        )

    def _again(self, lane: Lane, room: int, now_ns: int, *, behind: bool) -> list[Entry]:
        entries: list[Entry] = []
        for seq in self._flights.again(lane, now_ns, behind=behind):
            entry = self._rows.entry(lane, seq)
            if entry is None:
                self._flights.settle(lane, seq, seq)
                continue
            room -= entry_bytes(seq, entry.body)
            if room < 0 and entries:
                break
            entries.append(entry)
        return entries

    def _behind(self, lane: Lane, room: int, durable: int, now_ns: int) -> list[Entry]:
        if entries := self._again(lane, room, now_ns, behind=True):
            return entries
        while (span := self._flights.behind(lane)) is not None:
            first, last = span
            if entries := self._rows.entries_after(lane, first - 1, min(last, durable), room):
                return entries
            if durable < last:
                return []  # the rest is not durable yet
            self._flights.caught_up(lane, last)
        return []
