"""`lineside-fleet serve` as a process: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.fleet_stand import Stand
from tests.support.ports import free_port


class Served:
    """A fleet as a process of its own."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.port = free_port()
        self.mqtt_port = free_port()
        self.log = folder.parent / f"serve-{self.port}.log"
        command = [sys.executable, "-m", "fleet.cli", "--data-dir", str(folder), "serve"]
        command += ["--port", str(self.port), "--mqtt-port", str(self.mqtt_port), *more]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                self.get("/healthz")
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(self.log.read_text())

    def get(self, path: str) -> dict[str, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            found: dict[str, str] = json.load(answer)
            return found

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def kill_group(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def started() -> Iterator[list[Served]]:
    """Processes that are killed at the end where they still run."""
    processes: list[Served] = []
    yield processes
    for one in processes:
        one.kill_group()


def serve(started: list[Served], stand: Stand, *more: str) -> Served:
    one = Served(stand.settings.data_dir, *more)
    started.append(one)
    one.wait_ready()
    return one


def refused(started: list[Served], folder: Path, *more: str) -> tuple[int, str]:
    one = Served(folder, *more)
    started.append(one)
    return one.process.wait(30), one.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_says_where_and_ends_cleanly(stand: Stand, started: list[Served], number: int) -> None:
    one = serve(started, stand)
    assert one.get("/api/v1/healthz")["status"] == "ok"
    said = one.log.read_text()
    assert f"http://127.0.0.1:{one.port}" in said
    assert f"127.0.0.1:{one.mqtt_port}" in said
    assert "Only this machine can reach them" in said
    assert "WARNING" not in said
    assert one.end(number) == 0
    assert "Traceback" not in one.log.read_text()
    with pytest.raises(ConnectionRefusedError):  # the broker has ended, too
        socket.create_connection(("127.0.0.1", one.mqtt_port), timeout=1)


def test_a_fleet_that_was_killed_starts_again_over_the_same_folder(stand: Stand, started: list[Served]) -> None:
    one = serve(started, stand)
    one.process.kill()
    one.process.wait()
    assert serve(started, stand).end() == 0


def test_two_fleets_cannot_share_a_folder(stand: Stand, started: list[Served]) -> None:
    one = serve(started, stand)
    status, said = refused(started, stand.settings.data_dir)
    assert (status, "(resource.conflict)" in said) == (5, True)
    assert one.end() == 0


def test_it_refuses_a_folder_without_a_schema_and_names_the_command(tmp_path: Path, started: list[Served]) -> None:
    status, said = refused(started, tmp_path / "none")
    assert status == 3
    assert "lineside-fleet db upgrade" in said


def test_a_port_in_use_is_named(stand: Stand, started: list[Served]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = refused(started, stand.settings.data_dir, "--port", str(port))
    assert status == 4
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "(network.address_unavailable)" in said


def test_an_open_address_is_served_with_a_warning(stand: Stand, started: list[Served]) -> None:
    one = serve(started, stand, "--host", "0.0.0.0")
    assert "WARNING: other machines can reach them" in one.log.read_text()
    assert one.end() == 0


def test_a_sender_that_stops_in_the_middle_holds_nobody_up(stand: Stand, started: list[Served]) -> None:
    stand.now = datetime.now(UTC)
    stand.enrol("cell-1")
    claim, token = stand.claim("cell-2"), stand.token()
    stand.engine.dispose()
    one = serve(started, stand)
    head = (
        "PUT /api/v1/devices/cell-1/desired HTTP/1.1\r\nHost: x\r\nIf-Match: *\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n{{"
    )
    stuck = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(60)]
    for connection in stuck:
        connection.sendall(head.encode())
    time.sleep(0.5)
    body = {"claim_token": claim, "device": "cell-2", "agent_version": "1", "architecture": "x"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{one.port}/api/v1/enrolments", data=json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 201
    for connection in stuck:
        connection.close()
    assert one.end() == 0
