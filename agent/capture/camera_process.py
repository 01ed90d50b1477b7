"""One live camera in a process of its own: `python -m agent.capture.camera_process FD`, started by agent.capture.child.

It serves one connection to one camera. Whatever goes wrong, it says so and ends; the agent starts a new one. It ends
with the agent, too: when the agent's end of the socket closes, and at the latest when a timer of the kernel fires that
only a loop that goes round puts off. (PR_SET_PDEATHSIG would follow the thread that started it, not the agent.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Final

import cv2

from agent.capture import camera_messages as messages
from agent.capture.address import Redactor, secrets_of
from agent.capture.camera import Camera, Exposure
from agent.capture.camera_messages import Demand, Hello, Kind, Lost, Note, Task
from agent.capture.cameras import camera_of
from agent.capture.changes import ChangeWatch
from agent.capture.frame import NoFrame
from agent.capture.handing import Hand
from wire.errors import LinesideError

_GRAB_S: Final = 0.25
_BEAT_S: Final = 0.5
_RELOCK_S: Final = 2.0
_ORPHAN_S: Final = 1.0
_DEADMAN_S: Final = 3.0  # later than the agent itself gives a hanging camera up
_MOST_LOG_LINES: Final = 20
_LOG_MINUTE_S: Final = 60.0
_MOST_TEXT: Final = 2000


class _AgentGoneError(Exception):
    """The agent closed its end: there is nothing left to do."""


class CameraProcess:
    """Grabs, hands on and counts frames until the camera or the agent is gone."""

    def __init__(self, channel: socket.socket, task: Task) -> None:
        self._channel = channel
        self._task = task
        self._hand = Hand(channel, slots=task.slots, max_frame_bytes=task.max_frame_bytes)
        self._changes = ChangeWatch() if task.watch_changes else None
        self._wanted = task.demand
        self._in_force = 0
        self._settling = 0
        self._differing = ""
        self._locked_at = 0.0
        self._beaten_at = 0.0
        self._note = Note(reason="", expected=True)

    def run(self, camera: Camera) -> None:
        """Serve the camera until it is lost.

        Raises:
            LinesideError: it is lost.
            _AgentGoneError: the agent is.
        """
        self._put_off_the_deadman(self._task.open_timeout_s)
        opened = camera.open()
        try:
            self._send(messages.pack(opened))
            self._lock(camera)
            while True:
                self._put_off_the_deadman(self._task.read_timeout_s)
                self._obey(camera)
                found = camera.grab(_GRAB_S)
                if isinstance(found, Exposure):
                    self._hand_on(camera, found)
                else:
                    self._say(found)
                self._look_after(camera)
        finally:
            with contextlib.suppress(OSError):  # so that the accounts of a process that ends in good order are whole
                self._send(messages.pack_beat(self._hand.totals))
            camera.close()

    def _hand_on(self, camera: Camera, exposure: Exposure) -> None:
        hand = self._hand
        if not hand.has_room:  # the agent may have given slots back since
            self._obey(camera)
        demand = self._in_force if self._settling == 0 else 0
        self._settling = max(0, self._settling - 1)
        image = hand.receive(camera, exposure)
        if image is not None:
            changed = self._changes is None or self._changes.changed(image)
            hand.pass_on(exposure, demand=demand, changed=changed)
            self._beaten_at = time.monotonic()

    def _say(self, found: NoFrame) -> None:
        note = Note(reason=found.reason[:_MOST_TEXT], expected=found.expected)
        if note != self._note:
            self._note = note
            self._send(messages.pack(note))

    def _look_after(self, camera: Camera) -> None:
        now = time.monotonic()
        if now - self._beaten_at >= _BEAT_S:
            self._beaten_at = now
            self._send(messages.pack_beat(self._hand.totals))
        if now - self._locked_at >= _RELOCK_S:
            self._lock(camera)

    def _lock(self, camera: Camera) -> None:
        """Set and read back what is demanded; frames carry the demand's serial once it holds."""
        self._locked_at = time.monotonic()
        if self._wanted.camera is None:
            self._in_force = self._wanted.serial
            return
        differing = camera.lock(self._wanted.camera)
        holds = 0 if differing else self._wanted.serial
        if holds and holds != self._in_force:
            self._settling = camera.settling_frames
        if differing and differing != self._differing:
            log.warning("The camera does not have the settings it must have: %s.", differing)
        self._in_force, self._differing = holds, differing

    def _obey(self, camera: Camera) -> None:
        """Take what the agent has sent; never waits."""
        while True:
            try:
                message = self._channel.recv(messages.MAX_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                raise _AgentGoneError from error
            if not message:
                raise _AgentGoneError
            if messages.kind_of(message) is Kind.FREE:
                self._hand.take_back(*messages.unpack_free(message))
            else:
                demand = messages.unpack(message)
                if isinstance(demand, Demand):
                    self._wanted, self._in_force = demand, 0
                    self._lock(camera)

    def _send(self, message: bytes) -> None:
        """Send what may be lost when the agent does not listen for a while."""
        self._hand.send(message)

    @staticmethod
    def _put_off_the_deadman(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds + _DEADMAN_S)


class _LogToAgent(logging.Handler):
    """Sends warnings to the agent's log, so many a minute at most."""

    def __init__(self, channel: socket.socket, redact: Redactor) -> None:
        super().__init__(logging.WARNING)
        self._channel = channel
        self._redact = redact
        self._minute = time.monotonic()
        self._left = _MOST_LOG_LINES

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._minute > _LOG_MINUTE_S:
            self._minute, self._left = now, _MOST_LOG_LINES
        if self._left <= 0:
            return
        self._left -= 1
        text = self._redact(self.format(record))[:_MOST_TEXT]
        try:
            self._channel.send(messages.pack(messages.Logged(level=record.levelno, text=text)), socket.MSG_DONTWAIT)
        except OSError:
            self._left = 0


def _watch_the_agent(channel: socket.socket) -> None:
    """End the process soon after the agent has gone, whatever its main thread waits for."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLHUP | select.POLLRDHUP)
    poll.poll()
    time.sleep(_ORPHAN_S)  # for a camera that can still be given back in good order
    os._exit(0)


def main(arguments: list[str]) -> int:
    """Be the camera's process."""
    # Ctrl-C goes to all processes of a terminal; the agent decides when its cameras end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=int(arguments[0]))
    task = messages.unpack(channel.recv(messages.MAX_BYTES))
    if not isinstance(task, Task):
        return 2
    threading.Thread(target=_watch_the_agent, args=(channel,), name="agent-watch", daemon=True).start()
    cv2.setNumThreads(1)
    redact = Redactor(secrets_of(task.url, task.options))
    logging.basicConfig(level=logging.WARNING, handlers=[_LogToAgent(channel, redact)], force=True)
    hopeless = True
    try:
        camera = camera_of(task)
        hopeless = False
        channel.send(messages.pack(Hello(time_class=camera.time_class, steady=camera.steady)))
        CameraProcess(channel, task).run(camera)
    except (_AgentGoneError, BrokenPipeError):
        return 0
    except LinesideError as error:
        reason = " ".join(part for part in (error.message, error.next_step) if part)
    except Exception as error:
        log.exception("The camera's process failed.")
        reason = f"{type(error).__name__}: {error} ({traceback.extract_tb(error.__traceback__)[-1].name})"
    try:
        channel.send(messages.pack(Lost(reason=redact(reason)[:_MOST_TEXT], hopeless=hopeless)))
    except OSError:
        return 0
    return 1


log = logging.getLogger(__name__)

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
