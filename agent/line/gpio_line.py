"""GPIO triggers: an edge on a wire of the device is a part. Unproven on hardware (agent/line/gpio_chip.py)."""

from __future__ import annotations

import contextlib
import logging
import random
from datetime import timedelta
from typing import Final

from agent.clock import Clock
from agent.line.gpio_chip import ChipOpener, Edge, GpiodChip, InputLine
from agent.line.intake import Intake
from agent.line.settings import GpioLineSettings
from agent.line.trigger import Answer, LineEvent, RecipeRequest, StationState, Trigger
from agent.threads import Worker
from agent.uplink.backoff import Backoff
from wire.errors import LinesideError
from wire.mint import Mint

log = logging.getLogger(__name__)

_WAIT_S: Final = 0.25
_JOIN_S: Final = 2.0


class PartCounter:
    """Tells which edges are parts, and counts them from 1. Pure.

    Edges less than `debounce_ms` after the one before are bounces of it: the part came at the first of them. Edges that
    were lost cannot be told from bounces; each is counted as a part, since one record too many is better than a part
    without one.
    """

    def __init__(self, debounce_ms: float) -> None:
        self._debounce_ns = int(debounce_ms * 1e6)
        self._last: Edge | None = None
        self.count = 0

    def see(self, edge: Edge) -> int | None:
        """Return the number of the part that came with this edge; None for a bounce."""
        last, self._last = self._last, edge
        lost = edge.number - (last.number if last is not None else 0) - 1
        self.count += max(0, lost)
        if last is not None and lost <= 0 and edge.at_ns - last.at_ns < self._debounce_ns:
            return None
        self.count += 1
        return self.count


class GpioLine:
    """Makes a trigger of each edge, stamped by the kernel; verdicts leave by outputs.

    Parts are counted within one run of the agent: an edge that was lost has a NO_VERDICT record, what passed while the
    agent was not running is not known. A chip that goes away is opened again for ever.

    Args:
        name: of the station, for the log.
        open_chip: opens a chip by its path.
        rng: a seeded source of jitter for tests.
    """

    def __init__(
        self,
        settings: GpioLineSettings,
        clock: Clock,
        mint: Mint,
        *,
        name: str,
        open_chip: ChipOpener = GpiodChip,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._mint = mint
        self._name = name
        self._open_chip = open_chip
        self._backoff = Backoff(0.2, 10.0, rng)
        self._intake = Intake(lambda _trigger, _refusal: None)
        self.trouble = "not listening yet"
        self.worker = Worker(f"gpio-{name}", self._run)
        self.worker.start()

    @property
    def connected(self) -> bool:
        """Whether edges are heard now."""
        return not self.trouble

    def take(self, timeout_s: float) -> LineEvent | None:
        """Return the next event; None when none came in time."""
        return self._intake.take(timeout_s)

    def answer(self, answer: Answer) -> None:
        """A wire that triggers tells nothing back: use an output."""

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        """A wire asks for no recipe."""

    def set_state(self, state: StationState) -> None:
        """Nobody hears it here."""

    def close(self) -> None:
        """Stop listening."""
        if not self.worker.join(_JOIN_S):
            log.error("Thread %s did not end.", self.worker.name, extra={"event": "thread.stuck"})

    def _run(self, worker: Worker) -> None:
        while not worker.stop.is_set():
            worker.beat()
            try:
                line = self._open_chip(self._settings.chip).open_input(self._settings.line, self._settings.edge)
            except LinesideError as error:
                self._note(error.message)
            else:
                self._listen(line, worker)
            self._clock.wait(worker.stop, self._backoff.next_s())

    def _listen(self, line: InputLine, worker: Worker) -> None:
        run, counter = self._mint.uuid7(), PartCounter(self._settings.debounce_ms)
        self._note("")
        try:
            while not worker.stop.is_set():
                worker.beat()
                for edge in line.wait(_WAIT_S):
                    self._backoff.reset()
                    number = counter.see(edge)
                    if number is not None and not self._intake.offer(self._trigger(run, number, edge)):
                        log.warning("Station %s is too far behind.", self._name, extra={"event": "line.overrun"})
        except OSError as error:
            self._note(f"Line {self._settings.line} of {self._settings.chip} is gone: {error}.")
        finally:
            with contextlib.suppress(OSError):
                line.close()

    def _trigger(self, run: str, number: int, edge: Edge) -> Trigger:
        age_s = max(0.0, (self._clock.monotonic_ns() - edge.at_ns) / 1e9)
        return Trigger(
            id=f"{run}-{number}",
            run=run,
            sequence=number,
            at_ns=edge.at_ns,
            at_utc=self._clock.now_utc() - timedelta(seconds=age_s),
        )

    def _note(self, trouble: str) -> None:
        """Tell a new trouble once, and its end."""
        told, self.trouble = self.trouble, trouble
        if trouble and trouble != told:
            log.warning("%s", trouble, extra={"event": "gpio.unavailable"})
        elif told and not trouble:
            log.info("Station %s listens to its wire.", self._name, extra={"event": "gpio.listening"})
