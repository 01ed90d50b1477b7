"""The broker as the fleet sees it: chosen once, started, watched, started again where it dies, ended with us."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol

from fleet.broker import embedded, leash, mosquitto
from wire.errors import LinesideError

log = logging.getLogger(__name__)

READY_WITHIN_S: Final = 15.0
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MOST_S: Final = 10.0
STEADY_AFTER_S: Final = 30.0
TERM_WAIT_S: Final = 3.0
_TALK_LINES: Final = 20


class BrokerSettings(Protocol):
    """The settings the choice rests on."""

    @property
    def broker(self) -> Literal["auto", "embedded", "mosquitto", "external"]: ...
    @property
    def mqtt_host(self) -> str: ...
    @property
    def mqtt_port(self) -> int: ...
    @property
    def broker_dir(self) -> Path: ...


class Broker:
    """A broker that may be relied on between `start` and `stop`.

    Args:
        kind: `mosquitto`, `embedded` or `external`.
        address: host and port; it stays the same across restarts.
        protocol: what clients speak to it: `5`, `3.1.1`, or `auto` where nobody knows.
        folder: for its configuration and process id.
        command: gives the program and its arguments; None where the broker is not ours to start.
    """

    def __init__(
        self,
        *,
        kind: str,
        address: tuple[str, int],
        protocol: str,
        folder: Path,
        command: Callable[[], list[str]] | None,
    ) -> None:
        self.kind = kind
        self.address = address
        self.protocol = protocol
        self._folder = folder
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._talk: deque[str] = deque(maxlen=_TALK_LINES)
        self._stop = threading.Event()
        self._decided = threading.Event()
        self._failure: LinesideError | None = None
        self._thread: threading.Thread | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process id of our child, None where none runs."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Start the broker and wait until it answers.

        Raises:
            LinesideError: `broker.unavailable`, with what the broker said.
        """
        host, port = self.address
        if self._command is None:
            if not _answers(host, port, READY_WITHIN_S, lambda: True):
                raise LinesideError(
                    "broker.unavailable", f"No broker answers at {host}:{port}.", "Start it, or correct the address."
                )
            return
        self._end_leftover()
        self._require_free_port()
        self._thread = threading.Thread(target=self._watch, name="broker-watch", daemon=True)
        self._thread.start()
        self._decided.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        if not _is_loopback(host):
            log.warning(
                "The broker listens at %s without access control: whoever reaches it can speak for any device.",
                host,
                extra={"event": "broker.exposed"},
            )
        log.info(
            "The %s broker listens at %s:%d.", self.kind, host, port, extra={"event": "broker.started", "pid": self.pid}
        )

    def stop(self) -> None:
        """End the child, by its process id, and the thread that watches it."""
        self._stop.set()
        child = self._child
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        if self._thread is not None:
            self._thread.join(TERM_WAIT_S + 2.0)

    def _watch(self) -> None:
        # One thread starts every child and outlives it: the kernel's death signal follows the thread that forked.
        failed_in_a_row = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._run_once()
            except OSError as error:
                self._fail(f"{self.kind} cannot be run: {error}.")
                self._talk.append(str(error))
            if not self._decided.is_set():
                self._fail(f"{self.kind} ended before it answered: {' '.join(self._talk) or 'it said nothing'}.")
            if self._stop.is_set() or self._failure is not None:
                return
            failed_in_a_row = 0 if time.monotonic() - began > STEADY_AFTER_S else failed_in_a_row + 1
            wait_s = random.uniform(  # noqa: S311 - spreads restarts
                BACKOFF_FIRST_S / 2, min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2**failed_in_a_row)
            )
            self.restarts += 1
            log.error(
                "The %s broker has ended (status %s); it is started again in %.1f s. Its last words: %s",
                self.kind,
                self._child.returncode if self._child is not None else None,
                wait_s,
                " ".join(list(self._talk)[-3:]) or "none.",
                extra={"event": "broker.ended"},
            )
            self._stop.wait(wait_s)

    def _run_once(self) -> None:
        """Start the child and stay until it has ended."""
        assert self._command is not None  # noqa: S101 - an external broker has no such thread
        self._talk.clear()
        leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *self._command()]
        child = subprocess.Popen(  # noqa: S603 - a fixed list of arguments
            leashed, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        self._child = child
        self._pid_path.write_text(str(child.pid), encoding="ascii")
        reader = threading.Thread(target=self._listen, args=(child,), name="broker-talk", daemon=True)
        reader.start()
        try:
            if _answers(*self.address, READY_WITHIN_S, lambda: child.poll() is None and not self._stop.is_set()):
                self._decided.set()
            elif child.poll() is None:
                self._talk.append(f"It did not answer within {READY_WITHIN_S:.0f} s.")
                child.kill()
            while child.poll() is None and not self._stop.is_set():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.2)
        finally:
            _end(child)
            reader.join(1.0)
            self._pid_path.unlink(missing_ok=True)

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stderr is not None  # noqa: S101 - asked for as a pipe
        with child.stderr as stream:
            for line in iter(lambda: stream.readline(1000), b""):
                text = line.decode(errors="replace").strip()
                self._talk.append(text)
                log.debug("%s: %s", self.kind, text, extra={"event": "broker.said"})

    def _fail(self, sentence: str) -> None:
        if not self._decided.is_set():
            self._failure = LinesideError("broker.unavailable", sentence, "See docs/how-to/broker.md.")
            self._decided.set()

    @property
    def _pid_path(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / "broker.pid"

    def _end_leftover(self) -> None:
        """End a child that an earlier run of ours left behind, where the kernel did not do so."""
        try:
            pid = int(self._pid_path.read_text(encoding="ascii"))
            said = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except (OSError, ValueError):
            return
        ours = (str(self._folder / "mosquitto.conf"), f"fleet.broker.embedded\0--host\0{self.address[0]}")
        if any(mark in said for mark in ours):
            log.warning("A broker of an earlier run is ended.", extra={"event": "broker.leftover_ended", "pid": pid})
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + TERM_WAIT_S
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.02)

    def _require_free_port(self) -> None:
        host, port = self.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        deadline = time.monotonic() + 1.0  # a child of an earlier run may be on its way out
        while True:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                    return
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise LinesideError(
                            "broker.unavailable",
                            f"The broker cannot listen at {host}:{port}: {error.strerror}.",
                            "End what uses the port, or choose another with --mqtt-port; a broker that runs already "
                            "is used with --broker external.",
                        ) from error
            time.sleep(0.05)


def choose(settings: BrokerSettings) -> Broker:
    """Return the broker the settings ask for, not yet started.

    Raises:
        LinesideError: `broker.unavailable` where it is not installed; `broker.not_loopback` where the embedded one is
            asked to serve other machines.
    """
    host, port, folder = settings.mqtt_host, settings.mqtt_port, settings.broker_dir
    if settings.broker == "external":
        return Broker(kind="external", address=(host, port), protocol="auto", folder=folder, command=None)
    program = mosquitto.find() if settings.broker in ("auto", "mosquitto") else None
    if program is not None:
        return Broker(
            kind="mosquitto",
            address=(host, port),
            protocol="5",
            folder=folder,
            command=lambda: mosquitto.command(program, folder, host, port),
        )
    if settings.broker in ("auto", "embedded"):
        embedded.require_loopback(host)
        if embedded.is_installed():
            return Broker(
                kind="embedded",
                address=(host, port),
                protocol="3.1.1",
                folder=folder,
                command=lambda: embedded.command(host, port),
            )
    wanted = {"mosquitto": "mosquitto is", "embedded": "The embedded broker is"}.get(settings.broker, "No broker is")
    if settings.broker == "embedded":
        how = 'Install it: pip install "lineside[embedded-broker]".'
    elif settings.broker == "mosquitto":
        how = "Install it: apt install mosquitto."
    else:
        how = 'Install one: apt install mosquitto, or pip install "lineside[embedded-broker]".'
    state = "installed" if wanted == "No broker is" else "not installed"
    raise LinesideError("broker.unavailable", f"{wanted} {state}.", how)


def _is_loopback(host: str) -> bool:
    try:
        embedded.require_loopback(host)
    except LinesideError:
        return False
    return True


def _answers(host: str, port: int, within_s: float, go_on: Callable[[], bool]) -> bool:
    """Tell whether something accepts connections, trying until the time is over or `go_on` says no."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and go_on():
        try:
            with socket.create_connection((host, port), timeout=1.0):
                return go_on()
        except OSError:
            time.sleep(0.02)
    return False


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(TERM_WAIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
