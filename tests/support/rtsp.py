"""Cameras on the network for tests: a real RTSP server in a process of its own, and what can stand in front of one."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.support import ports, require

DEBIAN_PYTHON = Path("/usr/bin/python3")
SCRIPT = Path(__file__).with_name("rtsp_server.py")
PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-{base,good,bad,ugly}"
_LARGE_BYTES = 900
_PROBE = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(map(Gst.ElementFactory.find, ("videotestsrc", "x264enc", "h264parse", "rtph264pay")))
"""


def needed() -> None:
    """Skip the test, or fail it in CI, where GStreamer's RTSP server is not installed."""
    found = DEBIAN_PYTHON.exists() and not subprocess.run([DEBIAN_PYTHON, "-c", _PROBE], capture_output=True).returncode
    if not found:
        require.missing(f"GStreamer's RTSP server is not installed (apt install {PACKAGES}).")


class RtspServer:
    """A camera with a moving picture at rtsp://127.0.0.1:PORT/live."""

    def __init__(self, port: int | None = None, *, fps: int = 15, user: str = "", password: str = "") -> None:
        self.port = port or ports.free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self.fps = fps
        self._arguments = ["--fps", str(fps), "--user", user, "--password", password]
        self._process: subprocess.Popen[str] | None = None

    def start(self, width: int = 320, height: int = 240) -> Self:
        """Start it and wait until it listens."""
        size = ["--width", str(width), "--height", str(height)]
        self._process = subprocess.Popen(
            [DEBIAN_PYTHON, SCRIPT, "--port", str(self.port), *size, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def switch_size(self, width: int, height: int) -> None:
        """Switch the resolution within the running stream."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"size {width} {height}\n")
        self._process.stdin.flush()

    def freeze(self) -> None:
        """Stop the process where it is: connections stay open and silent."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(5)
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            self._process = None


@contextlib.contextmanager
def black_hole(port: int) -> Iterator[list[socket.socket]]:
    """Accept connections on a port and never answer; yields those accepted."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", port)) as listening:
        listening.settimeout(0.1)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    accepted.append(listening.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield accepted
        finally:
            stop.set()
            thread.join(5)
            for connection in accepted:
                connection.close()


class StallingProxy:
    """Stands between a camera and its reader, and can stop in the middle of a frame with the connection open."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._listening.settimeout(0.1)
        self._flows = threading.Event()
        self._flows.set()
        self._budget = 0
        self._damaged = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stall_after(self, more_bytes: int) -> None:
        """Pass on so many bytes more from the camera, then nothing on any connection."""
        self._budget = more_bytes
        self._flows.clear()

    def damage(self, pieces: int) -> None:
        """Change a byte in the middle of each of the next pieces from the camera."""
        self._damaged = pieces

    def flow(self) -> None:
        """Let connections made from now on through."""
        self._flows.set()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5)
        self._listening.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                near = self._listening.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target_port), timeout=2)
                for source, sink, from_camera in ((near, far, False), (far, near, True)):
                    thread = threading.Thread(target=self._pump, args=(source, sink, from_camera))
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, from_camera: bool) -> None:
        source.settimeout(0.1)
        was_stalled = False
        with source, contextlib.suppress(OSError):
            while not self._stop.is_set():
                if from_camera and not self._flows.is_set() and self._budget <= 0:
                    was_stalled = True
                    time.sleep(0.02)
                    continue
                if was_stalled:
                    return  # what was stalled stays lost; the reader has to connect anew
                try:
                    piece = source.recv(997)
                except TimeoutError:
                    continue
                if not piece:
                    return
                if from_camera and not self._flows.is_set():
                    piece, self._budget = piece[: self._budget], self._budget - len(piece)
                if from_camera and self._damaged > 0 and len(piece) > _LARGE_BYTES:
                    self._damaged -= 1
                    middle = len(piece) // 2
                    piece = piece[:middle] + bytes([piece[middle] ^ 0x55]) + piece[middle + 1 :]
                sink.sendall(piece)
