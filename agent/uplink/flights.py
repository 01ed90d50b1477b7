"""Which entries of the outbox are on their way, since when, and which have to be sent again; values in memory only.

Every unsettled entry is in exactly one of three places: on its way (a flight), to be sent again, or above the lane's
cursor and never sent since this process started. After a restart all of them are above the cursor, so that forgetting
this module's state costs a repetition, never a record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from wire.messages import Lane

MAX_PATIENCE: Final = 6


@dataclass(slots=True, kw_only=True)
class Flight:
    """One batch on its way.

    Args:
        seqs: entries of the batch that are not settled yet.
        due_ns: monotonic time at which they are sent again.
        tries: how many times the most often sent of them has been sent.
    """

    seqs: set[int]
    due_ns: int
    tries: int


@dataclass(slots=True)
class _Lane:
    cursor: int = 0
    flights: list[Flight] = field(default_factory=list)
    again: dict[int, int] = field(default_factory=dict)  # seq -> times sent


class Flights:
    """The book of what is on its way, lane by lane.

    Args:
        resend_after_ns: how long an answer is waited for; doubled with each try, up to `MAX_PATIENCE` times.
    """

    def __init__(self, resend_after_ns: int) -> None:
        self._resend_after_ns = resend_after_ns
        self._lanes = {lane: _Lane() for lane in Lane}

    def cursor(self, lane: Lane) -> int:
        """Return the highest seq that has been sent since the start."""
        return self._lanes[lane].cursor

    def count(self, lane: Lane, now_ns: int) -> int:
        """Return how many batches of a lane are on their way."""
        self._expire(self._lanes[lane], now_ns)
        return len(self._lanes[lane].flights)

    def again(self, lane: Lane, now_ns: int) -> list[int]:
        """Return the seqs that have to be sent again, in order."""
        self._expire(self._lanes[lane], now_ns)
        return sorted(self._lanes[lane].again)

    def next_due_ns(self) -> int | None:
        """Return when the next flight runs out of time, None where there is none."""
        return min((flight.due_ns for lane in self._lanes.values() for flight in lane.flights), default=None)

    def start(self, lane: Lane, seqs: Iterable[int], now_ns: int) -> None:
        """Enter a batch that is being sent."""
        book = self._lanes[lane]
        sent = set(seqs)
        tries = 1 + max((book.again.pop(seq, 0) for seq in sent), default=0)
        wait_ns = self._resend_after_ns * min(2 ** (tries - 1), MAX_PATIENCE)
        book.flights.append(Flight(seqs=sent, due_ns=now_ns + wait_ns, tries=tries))
        book.cursor = max(book.cursor, *sent)

    def settle(self, lane: Lane, first: int, last: int) -> None:
        """Strike out entries that need not be sent again; also those that turned out to be gone."""
        book = self._lanes[lane]
        for flight in book.flights:
            flight.seqs = {seq for seq in flight.seqs if not first <= seq <= last}
        book.flights = [flight for flight in book.flights if flight.seqs]
        for seq in [seq for seq in book.again if first <= seq <= last]:
            del book.again[seq]

    def postpone(self, lane: Lane, seqs: Iterable[int], due_ns: int) -> None:
        """Set when the batches that hold these entries are sent again."""
        wanted = set(seqs)
        for flight in self._lanes[lane].flights:
            if flight.seqs & wanted:
                flight.due_ns = due_ns

    def release_all(self) -> None:
        """Mark all that is on its way as to be sent again, as if for the first time."""
        for book in self._lanes.values():
            for flight in book.flights:
                book.again.update(dict.fromkeys(flight.seqs, 0))
            book.flights = []
            book.again = dict.fromkeys(book.again, 0)

    def _expire(self, book: _Lane, now_ns: int) -> None:
        late = [flight for flight in book.flights if flight.due_ns <= now_ns]
        if late:
            for flight in late:
                book.again.update(dict.fromkeys(flight.seqs, flight.tries))
            book.flights = [flight for flight in book.flights if flight.due_ns > now_ns]
