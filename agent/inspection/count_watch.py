"""Follows the line's own counter for a station that finds its parts itself, over restarts too."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from typing import Final, Protocol

from agent.clock import Clock
from agent.inspection import reconcile
from agent.inspection.changeover import Tell
from agent.inspection.reconcile import Account
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
        self._account = self._read()
        self._count = 0
        self._line: LineCount | None = None
        self._due_ns = 0

    def note_part(self) -> None:
        """Count a part of our own."""
        self._count += 1
        if self._account is not None:
            self._account = dataclasses.replace(self._account, count=self._account.count + 1)
            self._write()

    def note_line(self, line: LineCount) -> None:
        """Take the line's word."""
        self._line = line
        if self._account is None:
            self._account = reconcile.opened(line, self._count)
            self._due_ns = self._clock.monotonic_ns() + self._period_ns
            self._write()
        elif line.run != self._account.run:
            self._due_ns = 0

    def settle(self) -> None:
        """Compare the counts once a period, between two parts; costs nothing while it is not time."""
        if self._account is None or self._line is None or self._clock.monotonic_ns() < self._due_ns:
            return
        self._due_ns = self._clock.monotonic_ns() + self._period_ns
        was_away = self._account.mark is None
        settled = reconcile.settle(self._account, self._line)
        self._account = settled.account
        if settled.missing:
            log.warning("%d parts were not seen.", settled.missing, extra={"event": "parts.missed"})
            self._record(self._line.run, settled.missing, Reason.AGENT_DOWN if was_away else Reason.NOT_GATED)
        if settled.surplus:
            sentence = f"The part gate counted {settled.surplus} parts more than the line."
            log.warning(sentence, extra={"event": "gate.surplus_found"})
            self._tell("gate.surplus_found", Severity.WARNING, f"{self._station}: {sentence}")
        self._write()

    def _write(self) -> None:
        account = self._account
        if account is None:
            return
        try:
            self._marks.meta_set(self._key, json.dumps([account.run, account.ahead, account.count]))
        except LinesideError as error:  # a full disk is told by the records; the account is written with the next part
            log.debug("The line's count was not kept: %s", error, extra={"event": "count.not_kept"})

    def _read(self) -> Account | None:
        try:
            run, ahead, count = json.loads(self._marks.meta_get(self._key) or "")
            return Account(run=str(run), ahead=int(ahead), count=int(count))
        except (ValueError, TypeError):
            return None
