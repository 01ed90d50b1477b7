"""Real MQTT brokers for tests, each on a free port of its own and ended by its process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from tests.support import ports, require

_AMQTT = """
import asyncio, sys
from amqtt.broker import Broker
async def main(port):
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    await asyncio.Event().wait()
asyncio.run(main(int(sys.argv[1])))
"""


class RunningBroker:
    """A broker process that can be killed and started again on the same port.

    Args:
        command: how to start it.
        port: where it listens on 127.0.0.1.
        folder: where its output goes.
    """

    def __init__(self, command: list[str], port: int, folder: Path) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self._command = command
        self._output = folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it accepts connections."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection((self.host, self.port), timeout=0.5).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self
        self.stop()
        raise RuntimeError(f"the broker did not start: {self._output.read_text(errors='replace')}")

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop its process without closing any connection: a network that swallows everything."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)
            os.kill(self._process.pid, signal.SIGCONT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.kill(self._process.pid, signal.SIGKILL)
                self._process.wait(10)
        self._process = None


def mosquitto(folder: Path, *, extra: str = "", port: int | None = None) -> RunningBroker:
    """Return a mosquitto that is not started yet; skips the test where the program is missing.

    Args:
        folder: for its configuration and log.
        extra: more lines for its configuration.
    """
    program = require.program("mosquitto")
    port = port or ports.free_port()
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n{extra}"
    )
    return RunningBroker([str(program), "-c", str(configuration)], port, folder)


def amqtt(folder: Path, *, port: int | None = None) -> RunningBroker:
    """Return an embedded broker, which knows MQTT 3.1.1 only, in a process of its own; not started yet."""
    pytest.importorskip("amqtt", reason="the extra embedded-broker is not installed")
    port = port or ports.free_port()
    return RunningBroker([sys.executable, "-c", _AMQTT, str(port)], port, folder)
