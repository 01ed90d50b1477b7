"""Named threads with a heartbeat: the one place where an unexpected exception is caught, logged and counted."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_RESTART_MIN_S: Final = 0.2
_RESTART_MAX_S: Final = 30.0
STALLED_AFTER_S: Final = 15.0


class Worker:
    """Runs `body` on a thread of its own until told to stop; starts it again after a failure, with jittered delay.

    Args:
        name: of the thread; shown in health when it stalls.
        body: called with this worker; returns when `stop` is set or it has nothing left to do.
    """

    def __init__(self, name: str, body: Callable[[Worker], None]) -> None:
        self.name = name
        self.stop = threading.Event()
        self.failures = 0
        self._body = body
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def beat(self) -> None:
        """Say that this thread is alive; call it at least every few seconds."""
        self._beat = time.monotonic()

    @property
    def stalled(self) -> bool:
        """Whether a running thread has not said anything for too long."""
        return self._thread.is_alive() and time.monotonic() - self._beat > STALLED_AFTER_S

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """Ask the thread to stop and wait for it; True when it has ended."""
        self.stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        delay_s = _RESTART_MIN_S
        while not self.stop.is_set():
            self.beat()
            started = time.monotonic()
            try:
                self._body(self)
                return
            except Exception:
                self.failures += 1
                log.exception("Thread %s failed; it is started again.", self.name, extra={"event": "thread.failed"})
            if time.monotonic() - started > _RESTART_MAX_S:
                delay_s = _RESTART_MIN_S
            self.stop.wait(random.uniform(_RESTART_MIN_S / 2, delay_s))  # noqa: S311  (jitter, not a secret)
            delay_s = min(_RESTART_MAX_S, delay_s * 2)
