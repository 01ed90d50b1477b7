"""A live camera as the agent sees it: a process of its own, watched, and started again for ever.

`open` succeeds with the camera absent. One thread reads; everything else may be asked by any thread. A process serves
one connection; when the camera is lost it ends, and after a jittered wait the next one is started. Frames are read
where the process wrote them, and their memory goes back to it when they are freed.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Final

from agent.capture import supervision
from agent.capture.address import Redactor
from agent.capture.camera_messages import Body, Demand, Hello, Logged, Lost, Note, Opened, Shown, Task, Totals
from agent.capture.child import CameraChild, Gone
from agent.capture.demand import ViewDemand
from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass, Vital
from agent.capture.ring import RingReader
from agent.capture.supervision import Limits, Phase, Signs
from agent.clock import Clock
from agent.uplink.backoff import Backoff
from wire.errors import LinesideError

log = logging.getLogger(__name__)

_BACKOFF_FIRST_S: Final = 0.5
_BACKOFF_MOST_S: Final = 30.0
_STEADY_AFTER_S: Final = 10.0
_HELLO_S: Final = 15.0
_CLOSE_GRACE_S: Final = 1.0
_LOST_GRACE_S: Final = 0.2
_NOT_YET: Final = "it is being opened"


class LiveSource:
    """Implements `Source` and `Supervised`.

    Args:
        name: of the view; the frames carry it.
        task: what the process is told; made anew for each one, so that a changed credentials file counts.
        limits: when a process is given up; `steady` as the process says.
        time_class: of the camera; None where only its process knows.
        clock: for the wall clock of frames.
    """

    def __init__(
        self,
        name: str,
        *,
        task: Callable[[Demand], tuple[Task, Redactor]],
        limits: Limits,
        time_class: TimeClass | None,
        clock: Clock,
        backoff: Backoff | None = None,
    ) -> None:
        self._name = name
        self._task = task
        self._limits = limits
        self._time_class = time_class
        self._clock = clock
        self._backoff = backoff or Backoff(_BACKOFF_FIRST_S, _BACKOFF_MOST_S)
        self._lock = threading.Lock()  # the child, the demand and the accounts
        self._child: CameraChild | None = None
        self._redact = Redactor()
        self._undead: CameraChild | None = None
        self._ring: RingReader | None = None
        self._signs: Signs = supervision.signs_of_birth(time.monotonic_ns())
        self._start_at = 0.0
        self._starts = 0
        self._closed = False
        self._demand = Demand(serial=1, camera=None)
        self._totals = Totals()
        self._numbers_before = 0
        self._dropped_before: Counter[str] = Counter()
        self._trouble = _NOT_YET
        self._hopeless = False
        self._connected_at: float | None = None

    # What any thread may ask

    @property
    def trouble(self) -> str:
        """Why no frames come; empty where nothing is wrong."""
        return self._trouble

    @property
    def restarts(self) -> int:
        """How many processes came after the first one."""
        return max(0, self._starts - 1)

    @property
    def process_id(self) -> int | None:
        """Of the camera's process, None between two of them."""
        child = self._child
        return None if child is None else child.process_id

    def dropped(self) -> Mapping[str, int]:
        """Return the frames that the camera gave and the agent did not get, per reason."""
        with self._lock:
            return self._dropped()

    def demand(self, demand: ViewDemand) -> None:
        """Lock the camera; frames exposed otherwise carry Vital.SETTINGS from this moment on."""
        with self._lock:
            wanted = demand.camera if demand.locks_camera else None
            if wanted == self._demand.camera:
                return
            self._demand = Demand(serial=self._demand.serial + 1, camera=wanted)
            if self._child is not None:
                self._child.demand(self._demand)

    # Source, for one thread

    def open(self) -> SourceInfo:
        """Start the camera's process; wait only for what kind of camera it is, where the settings do not say it.

        Raises:
            LinesideError: `source.unavailable` where there never can be frames: a plug-in that is not installed.
        """
        self._start()
        until = time.monotonic() + _HELLO_S
        while self._time_class is None and self._child is not None and time.monotonic() < until:
            self._step(until)
        if self._hopeless:
            self.close()
            raise LinesideError("source.unavailable", f"{self._name}: {self._trouble}")
        if self._time_class is None:
            # Nothing is known of its exposures, so nothing may be claimed about them.
            self._time_class = TimeClass.ARRIVAL_ONLY
        return SourceInfo(camera=self._name, time_class=self._time_class, live=True)

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        """Return the next frame; NoFrame says what is wrong with the camera, if anything is."""
        until = time.monotonic() + timeout_s
        while not self._closed:
            frame = self._step(until)
            if frame is not None:
                return frame
            if time.monotonic() >= until:
                break
        return NoFrame(reason=self._trouble or "no frame yet", expected=not self._trouble)

    def close(self) -> None:
        """End the camera's process; frames that somebody still looks at stay as they are."""
        self._closed = True
        child = self._child
        if child is not None:
            child.hang_up()
            self._settle(child, _CLOSE_GRACE_S)

    def _step(self, until: float) -> Frame | None:
        """Start what is due, or take one message and look whether the process must be given up."""
        child = self._child
        if child is None:
            wait_s = min(self._start_at, until) - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            if time.monotonic() >= self._start_at and not self._closed:
                self._start()
            return None
        said = child.receive(until - time.monotonic())
        now_ns = time.monotonic_ns()
        frame = None if said is None else self._take(child, said, now_ns)
        if self._child is child and (fault := supervision.fault(self._signs, self._limits, now_ns)):
            self._lose(child, fault)
        return frame

    def _take(self, child: CameraChild, said: object, now_ns: int) -> Frame | None:
        signs = self._signs
        signs.word_ns = now_ns
        match said:
            case Shown():
                return self._frame(child, said, now_ns)
            case Totals():
                if said.grabbed != self._totals.grabbed:
                    signs.frame_ns = now_ns
                with self._lock:
                    self._totals = said
            case RingReader():
                self._ring = said
            case Hello():
                self._greet(child, said)
            case Opened():
                supervision.enter(signs, Phase.RUNNING, now_ns)
                if not self._limits.steady:
                    self._connected()
            case Note():
                self._trouble = "" if said.expected else self._redact(said.reason)
            case Logged():
                log.log(said.level, "%s: %s", self._name, self._redact(said.text), extra={"event": "camera.said"})
            case Lost():
                self._hopeless = said.hopeless
                self._lose(child, said.reason)
            case Gone():
                self._lose(child, "")
        return None

    def _frame(self, child: CameraChild, shown: Shown, now_ns: int) -> Frame | None:
        signs, ring = self._signs, self._ring
        signs.frame_ns = signs.shown_ns = now_ns
        if shown.changed:
            signs.changed_ns = now_ns
        if ring is None or ring.size.generation != shown.generation:
            self._lose(child, "its process names a picture that is not there")
            return None
        try:
            image = ring.picture(shown.slot, shown.height_px, shown.width_px)
        except LinesideError as error:
            self._lose(child, error.message)
            return None
        self._connected()
        with self._lock:
            self._totals = shown.totals
            number = self._numbers_before + shown.totals.grabbed - 1
            demand = self._demand
        kept = demand.camera is None or shown.demand == demand.serial
        age_ns = max(0, self._clock.monotonic_ns() - shown.exposed_ns)
        return Frame(
            camera=self._name,
            number=number,
            exposed_utc=self._clock.now_utc() - timedelta(microseconds=age_ns / 1000),
            exposed_ns=shown.exposed_ns,
            image_bgr=image,
            vitals=shown.vitals if kept else (*shown.vitals, Vital.SETTINGS),
            free=partial(child.free, shown.generation, shown.slot),
        )

    def _greet(self, child: CameraChild, hello: Hello) -> None:
        if self._time_class is not None and self._time_class is not hello.time_class:
            self._lose(child, f"it is {hello.time_class.value} now and was not when the agent started; start that anew")
            return
        self._time_class = hello.time_class
        self._limits = dataclasses.replace(self._limits, steady=hello.steady)
        supervision.enter(self._signs, Phase.OPENING, time.monotonic_ns())

    # Starting and losing

    def _start(self) -> None:
        if self._undead is not None and not self._undead.has_ended:
            # One more would only hang there too; no more than one process is ever left to the kernel.
            self._wait_after("its process hangs inside the kernel and cannot be ended")
            return
        self._undead = None
        try:
            with self._lock:
                task, self._redact = self._task(self._demand)
                self._signs = supervision.signs_of_birth(time.monotonic_ns())
                self._starts += 1
                self._child = CameraChild(task)
        except LinesideError as error:
            self._wait_after(self._redact(error.message))
        else:
            log.debug("%s: process %s.", self._name, self.process_id, extra={"event": "camera.started"})

    def _lose(self, child: CameraChild, reason: str) -> None:
        status = self._settle(child, _LOST_GRACE_S)
        ended = "does not end" if status is None else f"ended with status {status}" if status >= 0 else _killed(status)
        self._wait_after(self._redact(reason) or f"its process {ended}")

    def _settle(self, child: CameraChild, grace_s: float) -> int | None:
        """End the process and close its accounts: what it told and nobody read is dropped."""
        status = child.end(grace_s)
        if status is None:
            self._undead = child
        last: Totals | None = None
        unread = 0
        while isinstance(said := child.receive(0.0), Shown | Totals | Body | RingReader):
            unread += isinstance(said, Shown)
            last = said.totals if isinstance(said, Shown) else said if isinstance(said, Totals) else last
        child.close()
        with self._lock:
            self._child = None
            self._totals = last or self._totals
            self._dropped_before = self._dropped()
            self._dropped_before["restarted" if not self._closed else "closed"] += unread
            self._numbers_before += self._totals.grabbed
            self._totals = Totals()
        self._ring = None  # frames that are still out keep the memory
        return status

    def _wait_after(self, reason: str) -> None:
        was_connected, self._connected_at = self._connected_at, None
        if was_connected is not None and time.monotonic() - was_connected > _STEADY_AFTER_S:
            self._backoff.reset()
        wait_s = self._backoff.next_s()
        self._start_at = time.monotonic() + wait_s
        if was_connected is not None or reason != self._trouble:
            log.warning("%s is lost: %s", self._name, reason, extra={"event": "camera.disconnected"})
        self._trouble = reason

    def _connected(self) -> None:
        self._trouble = ""
        if self._connected_at is None:
            self._connected_at = time.monotonic()
            log.info("%s gives frames.", self._name, extra={"event": "camera.connected"})

    def _dropped(self) -> Counter[str]:
        totals = self._totals
        now = {
            "overflow": totals.overflow,
            "unreadable": totals.unreadable,
            "stale": totals.stale,
            "lost": totals.lost,
        }
        return self._dropped_before + Counter(now)


def _killed(status: int) -> str:
    return f"was ended by signal {-status}"
