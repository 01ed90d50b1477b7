"""`lineside-fleet ingest` as processes of its own; what a slow database costs: time, never memory, never a record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet import db
from scripts import mqtt_load
from tests.support import brokers, require
from tests.support.brokers import RunningBroker
from tests.support.fake_device import FakeDevice
from tests.support.fleet_stand import Stand
from tests.support.ports import free_port

Start = Callable[..., "Process"]


class Process:
    """A `lineside-fleet` command as a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder.parent / f"{arguments[0]}-{free_port()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fleet.cli", "--data-dir", str(folder), *arguments], stdout=log, stderr=log
            )

    def wait_said(self, words: str, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while words not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)

    def memory_mb(self, line: str) -> float:
        """Return `VmRSS` or `VmHWM`, the largest there ever was."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(one.split()[1]) for one in status.splitlines() if one.startswith(line)) / 1024


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    running = brokers.mosquitto(tmp_path).start()
    yield running
    running.stop()


@pytest.fixture
def run(stand: Stand, broker: RunningBroker) -> Iterator[Start]:
    """Starts an ingest of a share, and ends what still runs."""
    made: list[Process] = []

    def start(share: str = "1/1") -> Process:
        one = Process(
            stand.settings.data_dir, "ingest", "--mqtt-port", str(broker.port), "--worker", share, "--verbose"
        )
        made.append(one)
        return one

    yield start
    for one in made:
        one.end(signal.SIGKILL)


def _rows(stand: Stand) -> list[tuple[str, int]]:
    with db.read_session(stand.engine) as session:
        found = session.connection().exec_driver_sql("SELECT device, seq FROM inspection ORDER BY device, seq")
        return [(str(device), int(seq)) for device, seq in found]


def _expected(made: list[mqtt_load.Message]) -> list[tuple[str, int]]:
    return sorted((one.device, seq) for one in made for seq in range(one.first, one.first + one.events))


def test_two_workers_take_disjoint_shares_and_the_api_knows_both(
    stand: Stand, broker: RunningBroker, run: Start
) -> None:
    names = [f"bench-{number}" for number in range(12)]
    for name in names:
        stand.enrol(name)
    workers = [run("1/2"), run("2/2")]
    for worker in workers:
        worker.wait_said("Ingest listens")
    made = mqtt_load.messages_of(len(names), 120, 3)
    mqtt_load.carry(broker.port, made, window=100, resend_after_s=2.0)
    assert _rows(stand) == _expected(made)
    assert [worker.end() for worker in workers] == [0, 0], [worker.log.read_text() for worker in workers]
    told = stand.send("GET", "/ingest").json()
    assert (told["running"], [one["share"] for one in told["workers"]]) == (False, ["1/2", "2/2"])
    counts = [one["status"]["accepted"] for one in told["workers"]]
    assert sum(counts) == 360, "each message went to one of them"
    assert min(counts) > 0
    assert [one["alive"] for one in told["workers"]] == [False, False], "both said goodbye"


def test_the_same_share_is_taken_by_one_process_only(stand: Stand, run: Start) -> None:
    first = run("1/2")
    first.wait_said("Ingest listens")
    for share in ("1/2", "1/1"):
        second = run(share)
        assert second.process.wait(30) == 5, second.log.read_text()
        assert "(resource.conflict)" in second.log.read_text()
    assert run("2/2").wait_said("Ingest listens") is None
    first.end(signal.SIGKILL)
    run("1/2").wait_said("Ingest listens")


def test_serve_leaves_ingest_to_another_process_and_still_wakes_devices(stand: Stand, run: Start) -> None:
    require.program("mosquitto")
    port, mqtt_port = free_port(), free_port()
    arguments = ["serve", "--ingest", "elsewhere", "--port", str(port), "--mqtt-port", str(mqtt_port), "--verbose"]
    stand.enrol("cell-1")
    serve = Process(stand.settings.data_dir, *arguments)
    ingest = Process(stand.settings.data_dir, "ingest", "--mqtt-port", str(mqtt_port), "--verbose")
    try:
        serve.wait_said("to wake devices")
        serve.wait_said("Ingest: elsewhere")
        ingest.wait_said("Ingest listens")
        with FakeDevice("cell-1", ("127.0.0.1", mqtt_port)) as device:
            _desire(stand, port, "cell-1")
            device.wait(lambda one: [wake.desired_revision for wake in one.wakes] == [1])
        made = mqtt_load.messages_of(1, 5, 1)
        stand.enrol("bench-0")
        mqtt_load.carry(mqtt_port, made, window=10, resend_after_s=2.0)
        assert _rows(stand) == _expected(made)
    finally:
        statuses = [ingest.end(), serve.end()]
    assert statuses == [0, 0]


def test_kill_9_of_ingest_under_load_loses_nothing_and_doubles_nothing(
    stand: Stand, broker: RunningBroker, run: Start
) -> None:
    for number in range(5):
        stand.enrol(f"bench-{number}")
    made = mqtt_load.messages_of(5, 600, 4)
    stop = threading.Event()
    killed = 0

    def keep_killing() -> None:
        nonlocal killed
        while not stop.is_set():
            worker = run()
            worker.wait_said("Ingest listens")
            stop.wait(0.05 * (1 + killed % 4))
            if stop.is_set() or killed == 4:
                stop.wait()
                return
            os.kill(worker.process.pid, signal.SIGKILL)
            worker.process.wait()
            killed += 1

    killer = threading.Thread(target=keep_killing)
    killer.start()
    try:
        mqtt_load.carry(broker.port, made, window=200, resend_after_s=0.5, patience_s=90)
    finally:
        stop.set()
        killer.join()
    assert killed >= 1
    assert _rows(stand) == _expected(made)


def test_a_flood_at_a_slow_database_costs_time_and_no_memory(stand: Stand, broker: RunningBroker, run: Start) -> None:
    """Somebody else holds the database most of the time, while 10 devices send 110 MB at once."""
    for number in range(10):
        stand.enrol(f"bench-{number}")
    made = mqtt_load.messages_of(10, 500, 200)
    size_mb = sum(len(one.payload) for one in made) / 2**20
    assert size_mb > 100
    worker = run()
    worker.wait_said("Ingest listens")
    before_mb = worker.memory_mb("VmRSS")
    stop = threading.Event()

    def hold_the_database() -> None:
        while not stop.is_set():
            with db.write_session(stand.engine) as session:
                session.connection().exec_driver_sql("DELETE FROM quarantine")
                stop.wait(0.5)
            time.sleep(0.05)

    holder = threading.Thread(target=hold_the_database)
    holder.start()
    try:
        threading.Timer(4.0, stop.set).start()
        carried = mqtt_load.carry(broker.port, made, window=10**9, resend_after_s=30.0, patience_s=100)
    finally:
        stop.set()
        holder.join()
    grown_mb = worker.memory_mb("VmHWM") - before_mb
    assert _rows(stand) == _expected(made)
    assert carried.seconds > 3, "the database was not slow enough to show anything"
    assert grown_mb < 150, f"{grown_mb:.0f} MB for a flood of {size_mb:.0f} MB"


def _desire(stand: Stand, port: int, device: str) -> None:
    import httpx

    stand.push()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as api:
        headers = {"Authorization": f"Bearer {stand.token()}"}
        etag = api.get(f"/devices/{device}/desired", headers=headers).headers["etag"]
        body = {"models": [{"model": "parts", "release": 1}]}
        answer = api.put(f"/devices/{device}/desired", json=body, headers=headers | {"If-Match": etag})
        assert answer.status_code == 200, answer.text
