"""Hands verdicts to an output on a thread of its own: a slow or dead output never costs a part's time."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable
from typing import Final

from agent.clock import Clock
from agent.line.trigger import Answer, OutputCounts
from agent.threads import Worker
from agent.uplink.backoff import Backoff
from wire.errors import LinesideError

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
_TAKE_S: Final = 0.5
_JOIN_S: Final = 3.0


class OutputSender:
    """A bounded queue and a thread; what finds no room is dropped and counted.

    A verdict that does not get through is tried again, `_ATTEMPTS` times in all. An output in trouble gets one attempt
    a verdict, with pauses between them, so that it costs neither cores nor a line's patience.

    Args:
        name: of the output, in the log and of the thread.
        deliver: hands over one verdict; raises LinesideError where it did not get through. Must end by itself.
        capacity: verdicts that may wait.
        rng: a seeded source of jitter for tests.
    """

    def __init__(
        self,
        name: str,
        deliver: Callable[[Answer], None],
        capacity: int,
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self._deliver = deliver
        self._waiting: queue.Queue[Answer] = queue.Queue(capacity)
        self._clock = clock
        self._backoff = Backoff(0.1, 5.0, rng)
        self._lock = threading.Lock()
        self._sent = self._dropped = self._failed = 0
        self._trouble = ""
        self.worker = Worker(f"output-{name}", self._run)
        self.worker.start()

    def put(self, answer: Answer) -> None:
        """Queue a verdict; returns at once."""
        try:
            self._waiting.put_nowait(answer)
        except queue.Full:
            with self._lock:
                self._dropped += 1

    def counts(self) -> OutputCounts:
        """Return what became of the verdicts so far; those that wait are in none of the numbers."""
        with self._lock:
            return OutputCounts(sent=self._sent, dropped=self._dropped, failed=self._failed, trouble=self._trouble)

    def close(self) -> None:
        """End the thread; what still waits is dropped and counted."""
        if not self.worker.join(_JOIN_S):
            log.warning("Output %s is left in the middle of a verdict.", self.name, extra={"event": "thread.stuck"})
        with self._lock:
            while not self._waiting.empty():
                self._waiting.get_nowait()
                self._dropped += 1

    def _run(self, worker: Worker) -> None:
        while not worker.stop.is_set():
            worker.beat()
            try:
                answer = self._waiting.get(timeout=_TAKE_S)
            except queue.Empty:
                continue
            self._send(answer, worker)

    def _send(self, answer: Answer, worker: Worker) -> None:
        attempts = 1 if self._trouble else _ATTEMPTS
        for attempt in range(1, attempts + 1):
            worker.beat()
            try:
                self._deliver(answer)
            except LinesideError as error:
                stopping = worker.stop.is_set()
                self._note(error.message, failed=stopping or attempt == attempts)
                if stopping:
                    return
                self._clock.wait(worker.stop, self._backoff.next_s())
            else:
                self._backoff.reset()
                self._note("", failed=False)
                with self._lock:
                    self._sent += 1
                return

    def _note(self, trouble: str, *, failed: bool) -> None:
        """Tell a trouble once, and its end."""
        with self._lock:
            self._failed += failed
            told, self._trouble = self._trouble, trouble
        if trouble and not told:
            log.warning("Output %s: %s", self.name, trouble, extra={"event": "output.failed"})
        elif told and not trouble:
            log.info("Output %s gets its verdicts again.", self.name, extra={"event": "output.recovered"})
