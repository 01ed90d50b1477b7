"""The agent's end of one camera's process: started, listened to, and ended."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from typing import Final

from agent.capture import camera_messages as messages
from agent.capture.camera_messages import Body, Demand, Kind, Ring, Shown, Task, Totals
from agent.capture.ring import RingReader
from wire.errors import LinesideError

# One thread and one memory arena; FFmpeg and OpenCV keep quiet (what they write may hold the address).
_ENVIRONMENT: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    "OPENCV_LOG_LEVEL": "SILENT",
}
_KILL_TIMEOUT_S: Final = 5.0


class Gone:
    """The process has ended, or said something that makes no sense."""


class CameraChild:
    """Starts the process and gives it its task. `receive` and `end` are called by one thread, the others by any."""

    def __init__(self, task: Task) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sending = threading.Lock()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603  (our own module, its task comes through the socket)
                    [sys.executable, "-P", "-m", "agent.capture.camera_process", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, **_ENVIRONMENT},
                )
        except OSError as error:
            self._channel.close()
            raise LinesideError("source.unavailable", f"A camera's process cannot be started: {error}.") from error
        self._channel.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        self._send(messages.pack(task))

    @property
    def process_id(self) -> int:
        return self._process.pid

    def receive(self, timeout_s: float) -> Body | Shown | Totals | RingReader | Gone | None:
        """Return the next message; None when none came in time, Gone where no more will come."""
        if not self._poll.poll(max(0.0, timeout_s) * 1000):
            return None
        fds: list[int] = []
        try:
            message, fds, _, _ = socket.recv_fds(self._channel, messages.MAX_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            return self._read(message, fds) if message else Gone()
        except BlockingIOError:
            return None
        except (OSError, ValueError, IndexError, struct.error, LinesideError):
            return Gone()
        finally:
            for fd in fds:
                os.close(fd)

    def free(self, generation: int, slot: int) -> None:
        """Let the process write a slot again; without effect once it has gone."""
        self._send(messages.pack_free(generation, slot))

    def demand(self, demand: Demand) -> None:
        """Tell the process other camera settings."""
        self._send(messages.pack(demand))

    def hang_up(self) -> None:
        """Let the process close its camera and end by itself."""
        with self._sending, contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)

    def end(self, grace_s: float) -> int | None:
        """Wait for the process for a while, then kill it; its last words can still be received.

        Returns:
            Its exit status; None where even killing it did not end it (it hangs inside the kernel).
        """
        try:
            return self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_KILL_TIMEOUT_S)
        return None

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        """Close the socket."""
        with self._sending:
            self._channel.close()

    def _read(self, message: bytes, fds: list[int]) -> Body | Shown | Totals | RingReader:
        kind = messages.kind_of(message)
        if kind is Kind.FRAME:
            return messages.unpack_frame(message)
        if kind is Kind.BEAT:
            return messages.unpack_beat(message)
        body = messages.unpack(message)
        if isinstance(body, Ring):
            return RingReader(fds.pop(), body)
        return body

    def _send(self, message: bytes) -> None:
        # A process that does not read for so long that its socket is full is ended by its supervisor.
        with self._sending, contextlib.suppress(OSError):
            self._channel.send(message, socket.MSG_NOSIGNAL)
