"""Which entries of the outbox are on their way, since when, and which have to be sent again; values in memory only.

Every unsettled entry is in exactly one of four places: on its way (a flight), to be sent again, left behind (never sent
since this process started, and older than the connection), or above the lane's cursor, where the live ones are. After
a restart all of them are above the cursor, so that forgetting this module's state costs a repetition, never a record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from wire.messages import Lane

MAX_PATIENCE: Final = 6
MAX_SPANS: Final = 64
Span = tuple[int, int]


@dataclass(slots=True, kw_only=True)
class Flight:
    """One batch on its way.

    Args:
        seqs: entries of the batch that are not settled yet.
        due_ns: monotonic time at which they are sent again.
        tries: how many times the most often sent of them has been sent.
        behind: they were left behind when the connection began.
    """

    seqs: set[int]
    due_ns: int
    tries: int
    behind: bool = False


@dataclass(slots=True)
class _Lane:
    cursor: int = 0
    behind: list[Span] = field(default_factory=list)
    flights: list[Flight] = field(default_factory=list)
    # Whether they were left behind -> seq -> times sent.
    again: dict[bool, dict[int, int]] = field(default_factory=lambda: {False: {}, True: {}})


class Flights:
    """The book of what is on its way, lane by lane.

    Args:
        resend_after_ns: how long an answer is waited for; doubled with each try, up to `MAX_PATIENCE` times.
    """

    def __init__(self, resend_after_ns: int) -> None:
        self._resend_after_ns = resend_after_ns
        self._lanes = {lane: _Lane() for lane in Lane}

    def cursor(self, lane: Lane) -> int:
        """Return the seq above which the live entries are."""
        return self._lanes[lane].cursor

    def behind(self, lane: Lane) -> Span | None:
        """Return the oldest span of entries that were left behind, None where all of them are sent."""
        spans = self._lanes[lane].behind
        return spans[0] if spans else None

    def leave_behind(self, lane: Lane, last: int) -> None:
        """Have all that was never sent up to `last` give way to what comes after it."""
        book = self._lanes[lane]
        if last > book.cursor:
            book.behind.append((book.cursor + 1, last))
            book.cursor = last
        if len(book.behind) > MAX_SPANS:  # one span over all: what was sent already may go twice, which is harmless
            book.behind = [(book.behind[0][0], book.behind[-1][1])]

    def caught_up(self, lane: Lane, through: int) -> None:
        """Note that nothing up to `through` is left behind any more."""
        book = self._lanes[lane]
        book.behind = [(max(first, through + 1), last) for first, last in book.behind if last > through]

    def never_sent(self, lane: Lane, last: int) -> list[Span]:
        """Return the spans of entries that cannot be on their way, the oldest first."""
        book = self._lanes[lane]
        return [*book.behind, (book.cursor + 1, last)]

    def count(self, lane: Lane, now_ns: int, *, behind: bool = False) -> int:
        """Return how many batches of a lane are on their way.

        Args:
            behind: only those that were left behind.
        """
        self._expire(self._lanes[lane], now_ns)
        return sum(1 for flight in self._lanes[lane].flights if flight.behind or not behind)

    def again(self, lane: Lane, now_ns: int, *, behind: bool) -> list[int]:
        """Return the seqs that have to be sent again, in order: the live ones, or those that were left behind."""
        self._expire(self._lanes[lane], now_ns)
        return sorted(self._lanes[lane].again[behind])

    def next_due_ns(self) -> int | None:
        """Return when the next flight runs out of time, None where there is none."""
        return min((flight.due_ns for lane in self._lanes.values() for flight in lane.flights), default=None)

    def start(self, lane: Lane, seqs: Iterable[int], now_ns: int, *, behind: bool = False) -> None:
        """Enter a batch that is being sent.

        Args:
            behind: its entries were left behind when the connection began.
        """
        book = self._lanes[lane]
        sent = set(seqs)
        tries = 1 + max((again.pop(seq, 0) for again in book.again.values() for seq in sent), default=0)
        wait_ns = self._resend_after_ns * min(2 ** (tries - 1), MAX_PATIENCE)
        book.flights.append(Flight(seqs=sent, due_ns=now_ns + wait_ns, tries=tries, behind=behind))
        if book.behind and book.behind[0][0] <= max(sent) <= book.behind[0][1]:
            self.caught_up(lane, max(sent))
        book.cursor = max(book.cursor, *sent)

    def settle(self, lane: Lane, first: int, last: int) -> None:
        """Strike out entries that need not be sent again; also those that turned out to be gone."""
        book = self._lanes[lane]
        for flight in book.flights:
            flight.seqs = {seq for seq in flight.seqs if not first <= seq <= last}
        book.flights = [flight for flight in book.flights if flight.seqs]
        for again in book.again.values():
            for seq in [seq for seq in again if first <= seq <= last]:
                del again[seq]

    def postpone(self, lane: Lane, seqs: Iterable[int], due_ns: int) -> None:
        """Set when the batches that hold these entries are sent again."""
        wanted = set(seqs)
        for flight in self._lanes[lane].flights:
            if flight.seqs & wanted:
                flight.due_ns = due_ns

    def release_all(self) -> None:
        """Mark all that is on its way as left behind and to be sent again, as if for the first time."""
        for book in self._lanes.values():
            seqs = [seq for flight in book.flights for seq in flight.seqs]
            seqs += [seq for again in book.again.values() for seq in again]
            book.flights = []
            book.again = {False: {}, True: dict.fromkeys(seqs, 0)}

    def _expire(self, book: _Lane, now_ns: int) -> None:
        late = [flight for flight in book.flights if flight.due_ns <= now_ns]
        if late:
            for flight in late:
                book.again[flight.behind].update(dict.fromkeys(flight.seqs, flight.tries))
            book.flights = [flight for flight in book.flights if flight.due_ns > now_ns]
