"""Writes a station's records in the order of its triggers, without a gap, whatever the disk does meanwhile."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from agent.inspection import account
from wire.errors import LinesideError
from wire.inspection import Inspection, Reason

log = logging.getLogger(__name__)

MAX_OWED: Final = 10_000
MAX_MISSED_RECORDS: Final = 100_000
FILLED_AT_ONCE: Final = 200


class Outbox(Protocol):
    """What is needed of the outbox."""

    def put_inspection(self, inspection: Inspection, *, line_run: str | None) -> int: ...
    def put_inspections(self, inspections: Sequence[Inspection], *, line_run: str | None) -> int: ...
    def last_trigger(self, station: str) -> tuple[str, int] | None: ...
    def meta_get(self, key: str) -> str | None: ...
    def meta_set(self, key: str, value: str) -> None: ...


class Ledger:
    """One station's records. A sequence that no record stands for is filled with NO_VERDICT.

    A controller that was met behind its last record counts anew without saying so. What follows is another run, with
    `~1` and so on behind its name: its parts must not be taken for those on record.

    The reason tells who was away: `agent_down` for what the line counted before we met it, at the start or after a
    connection was lost; `missed_trigger` for what it counted while we listened.

    A record the disk has no room for is owed: it is written before any later one, so that no later record can hide it.
    Beyond `MAX_OWED` records, and after a crash, the gap itself is what is left, and it is filled like any other.

    Args:
        missed: makes the record of one missed part from run, sequence and reason.
        unrecorded: makes, of a record that found no room, the one that says so.
        line_tells_position: `meet` is told the controller's own count, not what a first message lets us think: a
            message that is sent again looks like a count that went back.
    """

    def __init__(
        self,
        station: str,
        outbox: Outbox,
        missed: Callable[[str, int, Reason], Inspection],
        unrecorded: Callable[[Inspection], Inspection],
        *,
        line_tells_position: bool = True,
    ) -> None:
        self._station = station
        self._outbox = outbox
        self._missed = missed
        self._unrecorded = unrecorded
        self._line_tells_position = line_tells_position
        self._owed: deque[tuple[Inspection, str | None]] = deque()
        self._again = self._counted_again()
        self._last = self._last_on_record()
        self._met: tuple[str, int] | None = None
        self.missed_count = 0

    def meet(self, run: str, sequence: int) -> None:
        """Note where the line stands: parts up to `sequence` that have no record were missed.

        A device that is new to a line has no part of its past to answer for.
        """
        if self._line_tells_position:
            self._note_if_back(run, sequence)
        run = self._name_of(run)
        self._met = (run, sequence)
        if self._last is None:
            self._outbox.meta_set(self._first_met_key, f"{run} {sequence}")
            self._last = (run, sequence)
        elif not self._owed:
            self._fill(run, sequence + 1)

    def is_repeat(self, run: str, sequence: int) -> bool:
        """Tell whether a trigger has its record already."""
        return self._last is not None and account.is_repeat(self._last, self._name_of(run), sequence)

    def write(self, inspection: Inspection, run: str) -> bool:
        """Write one record; False where there is no room: the part must then be diverted.

        Args:
            run: of the line's controller; empty where its trigger has no sequence.
        """
        inspection, run = self._renamed(inspection, run)
        try:
            self._pay()
            self._put(inspection, run)
        except LinesideError as error:
            if not self._owed:  # told once, not with each part
                log.error(  # noqa: TRY400
                    "Verdicts cannot be recorded, parts are diverted from here on: %s",
                    error,
                    extra={"event": "verdict.not_recorded"},
                )
            if len(self._owed) < MAX_OWED:
                self._owed.append((self._unrecorded(inspection), run))
            return False
        return True

    def _pay(self) -> None:
        while self._owed:
            inspection, run = self._owed[0]
            self._put(inspection, run or "")
            self._owed.popleft()
            if not self._owed:
                log.info("Verdicts are recorded again.", extra={"event": "verdict.recorded_again"})

    def _put(self, inspection: Inspection, run: str) -> None:
        sequence = inspection.trigger_sequence
        if not run or sequence is None:
            self._outbox.put_inspection(inspection, line_run=None)
            return
        self._fill(run, sequence)
        self._outbox.put_inspection(inspection, line_run=run)
        self._last = (run, sequence)
        if self._met is None or self._met[0] != run:
            self._met = self._last  # a line that tells no position is met with its first trigger

    def _fill(self, run: str, sequence: int) -> None:
        """Record what passed before `sequence` and has no record."""
        missed = account.missed_before(self._last, run, sequence) if self._last is not None else None
        if not missed:
            return
        first = max(missed.first, missed.last - MAX_MISSED_RECORDS + 1)
        log.warning(
            "%d parts passed uninspected (%d to %d); %d are recorded one by one.",
            len(missed),
            missed.first,
            missed.last,
            missed.last - first + 1,
            extra={"event": "parts.missed"},
        )
        # Many at once: after a long stop the line waits for its next verdict meanwhile.
        for start in range(first, missed.last + 1, FILLED_AT_ONCE):
            some = range(start, min(start + FILLED_AT_ONCE, missed.last + 1))
            records = [self._missed(run, each, self._reason_of(run, each)) for each in some]
            self._outbox.put_inspections(records, line_run=run)
            self._last = (run, some[-1])
            self.missed_count += len(records)

    def _reason_of(self, run: str, sequence: int) -> Reason:
        """Why a sequence has no record: it was counted before we met the line, or while we listened."""
        if self._met is None:
            return Reason.AGENT_DOWN
        met_run, met_at = self._met
        return Reason.MISSED_TRIGGER if met_run == run and sequence > met_at else Reason.AGENT_DOWN

    def _note_if_back(self, run: str, sequence: int) -> None:
        """Begin another run where the controller stands behind what is on record of this one."""
        name = self._name_of(run)
        if self._last is None or self._last[0] != name or sequence >= self._last[1]:
            return
        again = self._again[1] + 1 if self._again[0] == run else 1
        self._outbox.meta_set(self._again_key, f"{run} {again}")
        self._again = (run, again)
        log.error(
            "The line counts from the start again in its run %s: it stands at %d, and part %d is on record. "
            "Its parts are recorded as run %s. Have the controller name another run at each start.",
            run,
            sequence,
            self._last[1],
            self._name_of(run),
            extra={"event": "line.count_went_back"},
        )

    def _name_of(self, run: str) -> str:
        """Return how a run is called on record."""
        return f"{run}~{self._again[1]}" if run and run == self._again[0] else run

    def _renamed(self, inspection: Inspection, run: str) -> tuple[Inspection, str]:
        name = self._name_of(run)
        if name == run or inspection.trigger_id != f"{run}-{inspection.trigger_sequence}":
            return inspection, name
        return dataclasses.replace(inspection, trigger_id=f"{name}-{inspection.trigger_sequence}"), name

    def _counted_again(self) -> tuple[str, int]:
        """The run in which the controller counted from the start again, and how often."""
        run, _, times = (self._outbox.meta_get(self._again_key) or "").rpartition(" ")
        return (run, int(times)) if run else ("", 0)

    @property
    def _again_key(self) -> str:
        return f"line_counts_again.{self._station}"

    def _last_on_record(self) -> tuple[str, int] | None:
        """The last trigger with a record, or where this outbox first met the line."""
        last = self._outbox.last_trigger(self._station)
        if last is not None:
            return last
        run, _, sequence = (self._outbox.meta_get(self._first_met_key) or "").rpartition(" ")
        return (run, int(sequence)) if run else None

    @property
    def _first_met_key(self) -> str:
        return f"line_first_met.{self._station}"
