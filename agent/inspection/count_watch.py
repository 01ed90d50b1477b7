"""Follows the line's own counter for a station that finds its parts itself, over restarts too."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Final, Protocol

from agent.clock import Clock
from agent.inspection import reconcile
from agent.inspection.changeover import Tell
from agent.inspection.reconcile import Account, Settled
from agent.line.trigger import LineCount
from wire.errors import LinesideError
from wire.inspection import Reason
from wire.messages import Severity

log = logging.getLogger(__name__)

PERIOD_S: Final = 60.0


class Marks(Protocol):
    """Where the account is kept over a restart."""

    def meta_get(self, key: str) -> str | None: ...
    def meta_set(self, key: str, value: str) -> None: ...


class CountWatch:
    """Used by one thread at a time.

    The account is written down after each part, beside its record and not with it: after a kill between the two the
    next comparison is off by that one part.

    Args:
        record: makes the records of so many parts that nobody here saw, in the name of the line's run.
        tell: an event for people.
    """

    def __init__(
        self,
        station: str,
        marks: Marks,
        clock: Clock,
        record: Callable[[str, int, Reason], None],
        tell: Tell,
        period_s: float = PERIOD_S,
    ) -> None:
        self._station = station
        self._record = record
        self._tell = tell
        self._key = f"line_count.{station}"
        self._marks = marks
        self._clock = clock
        self._period_ns = int(period_s * 1e9)
        self._before = self._read()
        self._account: Account | None = None
        self._due_ns = 0

    def note_part(self) -> None:
        """Count a part of our own."""
        if self._account is not None:
            self._account = reconcile.with_part(self._account)
            self._write()

    def note_line(self, line: LineCount) -> None:
        """Take the line's word; its first word after a start tells what passed while nobody counted here."""
        if self._account is not None:
            former, self._account = self._account, reconcile.with_line(self._account, line)
            if self._account.run != former.run:
                self._write()
            return
        self._account = reconcile.opened(line, 0)
        self._due_ns = self._clock.monotonic_ns() + self._period_ns
        if self._before is not None and self._before.run == line.run:
            self._take(reconcile.settle_after_start(reconcile.with_line(self._before, line)), Reason.AGENT_DOWN)
        self._write()

    def settle(self) -> None:
        """Compare the counts once a period, between two parts; costs nothing while it is not time."""
        if self._account is None or self._clock.monotonic_ns() < self._due_ns:
            return
        self._due_ns = self._clock.monotonic_ns() + self._period_ns
        self._take(reconcile.settle(self._account), Reason.NOT_GATED)
        self._write()

    def _take(self, settled: Settled, reason: Reason) -> None:
        self._account = settled.account
        if settled.missing:
            log.warning("%d parts were not seen.", settled.missing, extra={"event": "parts.missed"})
            self._record(settled.account.run, settled.missing, reason)
        if settled.surplus:
            sentence = f"The part gate counted {settled.surplus} parts more than the line."
            log.warning(sentence, extra={"event": "gate.surplus_found"})
            self._tell("gate.surplus_found", Severity.WARNING, f"{self._station}: {sentence}")

    def _write(self) -> None:
        account = self._account
        if account is None:
            return
        try:
            self._marks.meta_set(
                self._key, json.dumps([account.run, account.line, account.ahead, account.count, account.known])
            )
        except LinesideError as error:  # a full disk is told by the records; the account is written with the next part
            log.debug("The line's count was not kept: %s", error, extra={"event": "count.not_kept"})

    def _read(self) -> Account | None:
        try:
            run, line, ahead, count, known = json.loads(self._marks.meta_get(self._key) or "")
            return Account(run=str(run), line=int(line), ahead=int(ahead), count=int(count), known=bool(known))
        except (ValueError, TypeError):
            return None
