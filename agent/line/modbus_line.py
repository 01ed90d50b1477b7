"""What both roles of the Modbus line share: the station's side of the seam, and the handshake on one thread.

Only the line's own thread touches the handshake and speaks Modbus; the station's threads leave what they say in an
inbox and wake it.
"""

from __future__ import annotations

import abc
import logging
import queue
import secrets
from dataclasses import dataclass
from typing import Final

from agent.clock import Clock
from agent.line import handshake, handshake_state, register_map
from agent.line.handshake_state import Answered, Happening, RecipeAnswered, Rules, State, Told
from agent.line.register_map import AgentWords, Fault
from agent.line.settings import ModbusSettings
from agent.line.trigger import Answer, LineEvent, RecipeRequest, StationState
from agent.threads import Worker

log = logging.getLogger(__name__)

_SPARE_EVENTS: Final = 64
_TELL_EVERY_NS: Final = 500_000_000
_MISSED_EVERY_NS: Final = 10_000_000_000
_CLOSE_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlcAccount:
    """What became of the parts the PLC counted since the line was first met:
    taken + missed + overrun = counted, and taken = acknowledged + waiting + busy + dropped.

    Args:
        trouble: what is wrong, for people; empty where parts are taken.
    """

    connected: bool
    trouble: str
    taken: int
    acknowledged: int
    waiting: int
    busy: int
    missed: int
    overrun: int
    dropped: int


class ModbusLine(abc.ABC):
    """One station's line behind Modbus registers; the roles differ in who holds the registers.

    Args:
        name: of the station; part of its runs' names.
        counter: only the PLC's count of parts is used (`LineCount`); it sees TriggerReady 0 for ever.
        trust_ms: a trigger whose moment is less certain than this is missed rather than judged.
    """

    def __init__(self, settings: ModbusSettings, clock: Clock, name: str, *, counter: bool, trust_ms: float) -> None:
        self._settings = settings
        self._clock = clock
        rules = Rules(
            name=name,
            agent_run=secrets.randbelow(65_535) + 1,
            max_results=settings.max_results,
            trust_ns=int(trust_ms * 1e6),
            plc_silent_ns=int(settings.fail_safe_ms * 1e6),
            counter=counter,
        )
        self._state = State(rules=rules)
        self._events: queue.Queue[LineEvent] = queue.Queue(settings.max_results + _SPARE_EVENTS)
        self._inbox: queue.SimpleQueue[Happening] = queue.SimpleQueue()
        self._told: StationState | None = None
        self._told_ns = 0
        self._away = "The PLC has not been met yet."
        self._fault = Fault.NONE
        self._not_taken = 0
        self._not_taken_told_ns = 0
        self.worker = Worker(f"plc-{name}", self._body)

    def take(self, timeout_s: float) -> LineEvent | None:
        """Return the next event of the line; None when none came in time."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def answer(self, answer: Answer) -> None:
        """Put the verdict into the row of results."""
        self._inbox.put(Answered(answer=answer))
        self._wake()

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        """Tell the PLC that its recipe is in force, or refused."""
        if request.source == "plc" and request.number is not None:
            self._inbox.put(RecipeAnswered(number=request.number, refusal=refusal))
            self._wake()

    def set_state(self, state: StationState) -> None:
        """Tell the PLC how the station is; what was told before is passed on twice a second, as a sign of life."""
        now_ns = self._clock.monotonic_ns()
        is_new = state != self._told
        if is_new or now_ns - self._told_ns >= _TELL_EVERY_NS:
            self._told, self._told_ns = state, now_ns
            self._inbox.put(Told(state=state))
            if is_new:
                self._wake()

    def close(self) -> None:
        """Leave the line with all registers of the agent at zero."""
        self.worker.stop.set()
        self._wake()
        self.worker.join(_CLOSE_TIMEOUT_S + self._settings.timeout_ms / 1e3)

    def account(self) -> PlcAccount:
        """Return the line's own account; any thread may ask."""
        state, away, fault = self._state, self._away, self._fault
        return PlcAccount(
            connected=not away,
            trouble=away or ("" if fault is Fault.NONE else f"{register_map.FAULTS[fault].capitalize()}."),
            taken=state.taken,
            acknowledged=state.acknowledged,
            waiting=len(state.results),
            busy=len(state.in_flight),
            missed=state.missed,
            overrun=state.overrun,
            dropped=state.dropped,
        )

    @abc.abstractmethod
    def _body(self, worker: Worker) -> None:
        """Speak with the PLC until told to stop."""

    @abc.abstractmethod
    def _wake(self) -> None:
        """Have the line's thread look into its inbox; called from any thread."""

    # On the line's own thread only

    def _apply(self, happening: Happening) -> None:
        before = self._state
        after = handshake.step(before, happening, self._clock.monotonic_ns())
        self._state = after.state
        for event in after.events:
            try:
                self._events.put_nowait(event)
            except queue.Full:  # the station is stuck; what is left out here shows as a gap in the sequence
                log.warning("The station takes no events; one was left out.", extra={"event": "line.event_dropped"})
        self._not_taken += after.state.missed + after.state.overrun - before.missed - before.overrun

    def _drain(self) -> None:
        """Take in what the station said."""
        try:
            while True:
                self._apply(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _words(self) -> AgentWords:
        """Return what the agent's block says now; log where its fault changed, and parts that were not taken."""
        now_ns = self._clock.monotonic_ns()
        found = handshake.words(self._state, now_ns)
        if self._not_taken and now_ns - self._not_taken_told_ns >= _MISSED_EVERY_NS:
            log.warning(
                "%d parts up to %d of run %d were not taken.",
                self._not_taken,
                self._state.last,
                self._state.run,
                extra={"event": "line.parts_missed"},
            )
            self._not_taken, self._not_taken_told_ns = 0, now_ns
        if found.fault != self._fault and not (found.fault == Fault.NO_BLOCK and self._away):
            self._fault = Fault(found.fault)
            text = register_map.FAULTS[self._fault]
            if self._fault is Fault.NONE:
                log.info("The PLC may send parts: %s.", text, extra={"event": "line.fault_cleared"})
            else:
                log.warning("The PLC's parts: %s.", text, extra={"event": "line.fault_raised"})
        return found

    def _came(self, whom: str) -> None:
        if self._away:
            log.info("The PLC is connected: %s.", whom, extra={"event": "line.connected"})
        self._away = ""

    def _went(self, why: str) -> None:
        """The PLC is away: nothing is known of its parts until it is met again."""
        if self._away != why and not self.worker.stop.is_set():
            log.warning("%s", why, extra={"event": "line.disconnected"})
        self._away = why
        self._apply(handshake_state.Lost())
