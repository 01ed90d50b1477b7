"""The broker: chosen by the settings, supervised, bound to loopback, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet.broker import embedded, mosquitto, supervisor
from tests.support import ports, require
from tests.support.fake_device import FakeDevice
from wire.errors import LinesideError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the choice rests on."""

    broker_dir: Path
    broker: Any = "auto"
    mqtt_host: str = "127.0.0.1"
    mqtt_port: int = 0


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[supervisor.Broker]:
    if request.param == "mosquitto":
        require.program("mosquitto")
    elif not embedded.is_installed():
        require.missing("amqtt is not installed (the extra embedded-broker).")
    chosen = supervisor.choose(Settings(broker=request.param, broker_dir=tmp_path, mqtt_port=ports.free_port()))
    chosen.start()
    yield chosen
    chosen.stop()


def _until(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def _answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=0.5):
            return True
    except OSError:
        return False


def test_a_started_broker_takes_clients_and_a_stopped_one_is_gone(broker: supervisor.Broker) -> None:
    with FakeDevice("cell-1", broker.address, 5 if broker.protocol == "5" else 4):
        pid = broker.pid
    assert pid is not None
    broker.stop()
    assert not _is_alive(pid)
    assert not _answers(broker.address)


def test_a_killed_broker_comes_back_at_the_same_address(broker: supervisor.Broker) -> None:
    for _ in range(2):
        former = broker.pid
        assert former is not None
        os.kill(former, signal.SIGKILL)
        _until(lambda former=former: broker.pid not in (None, former) and _answers(broker.address))
    assert broker.restarts == 2


@pytest.mark.parametrize("kind", ["mosquitto", "embedded"])
def test_kill_9_of_the_fleet_leaves_no_broker_behind(kind: str, tmp_path: Path) -> None:
    if kind == "mosquitto":
        require.program("mosquitto")
    port = ports.free_port()
    code = (
        "import sys, time; from pathlib import Path; from fleet.broker import supervisor;"
        "from types import SimpleNamespace as S;"
        f"b = supervisor.choose(S(broker={kind!r}, mqtt_host='127.0.0.1', mqtt_port={port},"
        f" broker_dir=Path({str(tmp_path)!r})));"
        "b.start(); print(b.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _is_alive(child)
        parent.kill()
    _until(lambda: not _is_alive(child))
    again = supervisor.choose(Settings(broker=kind, broker_dir=tmp_path, mqtt_port=port))
    again.start()
    again.stop()


def test_a_broker_that_was_left_behind_all_the_same_is_ended_at_the_next_start(tmp_path: Path) -> None:
    program = require.program("mosquitto")
    port = ports.free_port()
    orphan = subprocess.Popen(mosquitto.command(program, tmp_path, "127.0.0.1", port))
    try:
        _until(lambda: _answers(("127.0.0.1", port)))
        (tmp_path / "broker.pid").write_text(str(orphan.pid))
        broker = supervisor.choose(Settings(broker="mosquitto", broker_dir=tmp_path, mqtt_port=port))
        broker.start()
        assert orphan.wait(5) == -signal.SIGKILL
        broker.stop()
    finally:
        orphan.kill()
        orphan.wait()


def test_a_process_that_is_not_ours_is_left_alone_and_named_as_the_trouble(tmp_path: Path) -> None:
    require.program("mosquitto")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        (tmp_path / "broker.pid").write_text(str(os.getpid()))
        broker = supervisor.choose(Settings(broker="mosquitto", broker_dir=tmp_path, mqtt_port=other.getsockname()[1]))
        with pytest.raises(LinesideError, match="in use") as caught:
            broker.start()
    assert caught.value.code == "broker.unavailable"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])
def test_the_embedded_broker_refuses_every_address_but_loopback(host: str, tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as caught:
        supervisor.choose(Settings(broker="embedded", broker_dir=tmp_path, mqtt_host=host, mqtt_port=1883))
    assert caught.value.code == "broker.not_loopback"
    done = subprocess.run(
        [sys.executable, "-m", "fleet.broker.embedded", "--host", host, "--port", "1"], capture_output=True, timeout=30
    )
    assert done.returncode == 5, "its own process refuses too"


def test_auto_takes_mosquitto_then_the_embedded_one_then_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(broker_dir=tmp_path, mqtt_port=1883)
    monkeypatch.setattr(mosquitto, "find", lambda: Path("/usr/sbin/mosquitto"))
    assert (supervisor.choose(settings).kind, supervisor.choose(settings).protocol) == ("mosquitto", "5")
    monkeypatch.setattr(mosquitto, "find", lambda: None)
    monkeypatch.setattr(embedded, "is_installed", lambda: True)
    assert (supervisor.choose(settings).kind, supervisor.choose(settings).protocol) == ("embedded", "3.1.1")
    monkeypatch.setattr(embedded, "is_installed", lambda: False)
    with pytest.raises(LinesideError) as caught:
        supervisor.choose(settings)
    assert caught.value.code == "broker.unavailable"
    assert "apt install mosquitto" in caught.value.next_step
    assert "lineside[embedded-broker]" in caught.value.next_step


def test_an_external_broker_is_used_and_not_started(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        broker = supervisor.choose(Settings(broker="external", broker_dir=tmp_path, mqtt_port=port))
        broker.start()
        assert (broker.pid, broker.protocol, broker.address) == (None, "auto", ("127.0.0.1", port))
        broker.stop()
