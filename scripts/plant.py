"""A plant in a folder: fleet, simulated lines and agents as real processes, started and ended by their ids.

Used by the story (scripts/story.py) and by the system tests; it speaks to the parts only as a person would: through
their command lines, the HTTP API, and the files they document.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
STATION = "gauge"
MODEL = "demo-parts"
T = TypeVar("T")
_PR_SET_PDEATHSIG = 1


class PlantError(Exception):
    """A part of the plant did not do its work; the message holds the end of its log."""


def wait_for(what: str, ask: Callable[[], T | None], timeout_s: float) -> T:
    """Ask again and again until the answer is something; PlantError when the time is over."""
    until = time.monotonic() + timeout_s
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > until:
            raise PlantError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.05)


class Process:
    """One child in a session of its own, so that Ctrl-C reaches only us and we end it in good order."""

    def __init__(self, name: str, arguments: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self._arguments = arguments
        self._log = log
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as stream:
            self._popen = subprocess.Popen(
                self._arguments,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  (we start no threads)
            )

    @property
    def pid(self) -> int:
        return self._popen.pid if self._popen is not None else 0

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Ask it to end; kill it when it does not."""
        if self._popen is None or self._popen.poll() is not None:
            return
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise PlantError(f"{self.name} did not end within {timeout_s:g} s:\n{self.tail()}") from None

    def wait(self, timeout_s: float) -> None:
        if self._popen is not None:
            self._popen.wait(timeout_s)

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Device:
    """One device with its line."""

    name: str
    folder: Path
    line: Process
    line_port: int
    agent: Process
    config: Path

    @property
    def count_file(self) -> Path:
        return self.folder / "line-count.jsonl"

    def status(self) -> dict[str, Any] | None:
        """What the agent's own status file says; None before there is one."""
        try:
            answer: dict[str, Any] = json.loads((self.folder / "data" / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return answer

    def triggers(self) -> list[dict[str, Any]]:
        """The line's own account of its parts."""
        return [event for event in self.count_events() if event["event"] == "trigger"]

    def count_events(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            lines = self.count_file.read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines]
        return []


@dataclass
class Plant:
    """A fleet with its devices, all files below one folder."""

    folder: Path
    broker: str = "auto"
    http_port: int = field(default_factory=free_port)
    mqtt_port: int = field(default_factory=free_port)
    devices: list[Device] = field(default_factory=list)
    _token: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.fleet = Process("fleet", self._serve_command(), self.folder / "fleet.log")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def fleet_dir(self) -> Path:
        return self.folder / "fleet"

    def _serve_command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "fleet.cli",
            "--data-dir",
            str(self.fleet_dir),
            "serve",
            "--port",
            str(self.http_port),
            "--broker",
            self.broker,
            "--mqtt-port",
            str(self.mqtt_port),
        ]

    def fleet_cli(self, *arguments: str) -> str:
        """Run `lineside-fleet` to its end and return what it printed."""
        return _run([sys.executable, "-m", "fleet.cli", "--data-dir", str(self.fleet_dir), *arguments], self._token)

    def start_fleet(self) -> None:
        """Make the database, an operator's token, and serve."""
        self.fleet_cli("db", "upgrade")
        self._token = self.fleet_cli("token", "create", "--name", "demo", "--role", "admin").split()[-1]
        self.fleet.start()
        self.wait_until_served()

    @property
    def token(self) -> str:
        return self._token

    def wait_until_served(self) -> None:
        """Wait until the API answers."""

        def ask() -> bool:
            if not self.fleet.running:
                raise PlantError(f"the fleet did not start:\n{self.fleet.tail()}")
            try:
                return self.get("/api/v1/healthz") is not None
            except (OSError, PlantError):
                return False

        wait_for("the fleet answers", ask, 40)

    def get(self, path: str) -> Any:
        """Read from the API."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self._token}"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise PlantError(f"GET {path}: {error.code} {error.read()[:500].decode(errors='replace')}") from error

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """Read all items of a list."""
        cursor = ""
        while True:
            page = self.get(f"{path}{'&' if '?' in path else '?'}limit=200{cursor}")
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            cursor = f"&cursor={page['next_cursor']}"

    def add_device(
        self, name: str, *, seed: int, parts_per_s: float, floor_rate: float = 0.2, probation_parts: int = 0
    ) -> Device:
        """Start a line, write the settings, and enrol a device; its agent is not started yet."""
        folder = self.folder / name
        folder.mkdir()
        line_port = free_port()
        count_file = folder / "line-count.jsonl"
        line = Process(
            f"line of {name}",
            [
                sys.executable,
                *("-m", "agent.cli", "simulate", "--port", str(line_port), "--count-file", str(count_file)),
                *("--seed", str(seed), "--rate", str(parts_per_s), "--deadline-ms", "1000"),
            ],
            folder / "line.log",
        )
        line.start()
        config = folder / "agent.toml"
        text = _agent_toml(name, folder / "data", self.url, line_port, floor_rate, probation_parts)
        config.write_text(text, encoding="utf-8")
        agent = self.enrolled_agent(name, config, folder / "agent.log")
        device = Device(name=name, folder=folder, line=line, line_port=line_port, agent=agent, config=config)
        self.devices.append(device)
        return device

    def enrolled_agent(self, name: str, config: Path, log: Path, environment: dict[str, str] | None = None) -> Process:
        """Enrol the device of a settings file and return its agent, not started yet."""
        claim = self.fleet_cli("claim", "create", "--device", name).split()[-1]
        _run([sys.executable, "-m", "agent.cli", "enroll", "--config", str(config), "--token", claim], "")
        command = [sys.executable, "-m", "agent.cli", "run", "--config", str(config)]
        return Process(f"agent {name}", command, log, environment)

    def push(self, package: Path) -> None:
        """Push a model package to the registry."""
        self.fleet_cli("models", "push", str(package), "--url", self.url)

    def desire(self, device: Device, release: int) -> None:
        """Ask for a release of the demo model on one device."""
        self.fleet_cli("desired", "set", device.name, "--model", f"{MODEL}={release}", "--url", self.url)

    def wait_until_drained(self, device: Device, timeout_s: float = 40.0) -> None:
        """Wait until the fleet has acknowledged everything the device has recorded."""

        def drained() -> bool:
            status = device.status()
            return status is not None and status["outbox_unsettled"] == 0 and status["connected"]

        wait_for(f"{device.name} has delivered everything", drained, timeout_s)

    def close(self) -> None:
        """End every process, the agents first."""
        for device in self.devices:
            device.agent.stop()
        for device in self.devices:
            device.line.stop()
        self.fleet.stop()


def _run(arguments: list[str], token: str) -> str:
    environment = {**os.environ, "LINESIDE_TOKEN": token}
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        command = " ".join(argument for argument in arguments[2:] if not argument.startswith("lsc_"))
        raise PlantError(f"{command} ended with {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


def _agent_toml(name: str, data_dir: Path, url: str, line_port: int, floor_rate: float, probation_parts: int) -> str:
    return f"""\
[device]
id = "{name}"
data_dir = "{data_dir}"

[fleet]
url = "{url}"
poll_interval_s = 5

[mqtt]
resend_after_s = 3

[deploy.probation]
parts = {probation_parts}
minutes = 0

[local]
port = 0

[[stations]]
id = "{STATION}"
deadline_ms = 900
floor_rate = {floor_rate}

[stations.line]
kind = "simulated"
address = "127.0.0.1:{line_port}"

[[stations.views]]
id = "top"
model = "{MODEL}"

[stations.views.source]
kind = "simulated"
address = "127.0.0.1:{line_port}"
"""
