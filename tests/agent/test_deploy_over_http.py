"""Deployments through the real HTTP client, from a server that fails in every way a server, a proxy or a line can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.deploy.facts import Limits
from agent.deploy.part import SYNC_BYTES, certain_bytes
from agent.deploy.plan import DOWNLOAD_TRIES
from agent.uplink.fleet_api import FleetApi
from tests.support.deploying import MemoryFleet, TestDevice, check_reports, make_package, wanted
from tests.support.flaky_server import FlakyServer
from tests.support.ports import free_port
from wire import deployment, package
from wire.deployment import DeploymentState as S

MODEL_BYTES = 3 * SYNC_BYTES + 12345
HOUR_S = 3600.0
AWAY, BAD = "network.unreachable", "deployment.download_failed"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> package.Package:
    return make_package(tmp_path_factory.mktemp("package") / "v1", 1, model_bytes=MODEL_BYTES)


@pytest.fixture
def server(found: package.Package) -> Iterator[FlakyServer]:
    fleet = MemoryFleet()
    fleet.publish(found)
    with FlakyServer(fleet.blobs) as serving:
        serving.spoiled = {model_of(found)}
        yield serving


def model_of(found: package.Package) -> str:
    listed = found.index.file("model.onnx")
    assert listed is not None
    return listed.digest


@dataclass
class Line:
    """A device with the real client at one server, and time that passes in its pauses only."""

    device: TestDevice
    api: FleetApi
    found: package.Package

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Step until the deployment has ended, or `until` holds."""
        for _ in range(30_000):
            latest = self.device.journal.of("parts").attempt
            if until() or (latest is not None and latest.state in deployment.ENDS):
                break
            if not self.device.runner.step(wanted(self.found)):
                self.device.clock.advance(5.0)
        else:
            raise AssertionError("It does not end.")
        while self.device.runner.step(wanted(self.found)) and not until():
            pass
        check_reports(self.device.reports)

    @property
    def end(self) -> tuple[S, str]:
        return self.device.reports[-1].state, self.device.reports[-1].code

    @property
    def hours(self) -> float:
        attempt = self.device.journal.of("parts").attempt
        assert attempt is not None
        return attempt.spent_s / HOUR_S

    def incoming(self) -> list[str]:
        return [path.name for path in (self.device.root / "store" / "incoming").iterdir()]


@pytest.fixture
def silence_s() -> float:
    """Seconds without a byte after which a line counts as stalled."""
    return 0.15


@pytest.fixture
def line(tmp_path: Path, server: FlakyServer, found: package.Package, silence_s: float) -> Iterator[Line]:
    api = FleetApi(server.url, "edge-1", "0123456789abcdef0123456789abcdef", silence_s=silence_s, patience_s=1.0)
    device = TestDevice(root=tmp_path / "device", fleet=MemoryFleet())
    device.fleet = api  # type: ignore[assignment]
    device.options = replace(device.options, pause_s=4.0, pause_max_s=300.0)
    device.boot()
    yield Line(device, api, found)
    api.close()


# Interruptions: what has come stays, and only the rest is asked for.
INTERRUPTIONS = [
    "drop 0", "drop 1", "drop 65535", "drop 65536", "drop 65537", f"drop {SYNC_BYTES - 1}", f"drop {SYNC_BYTES}",
    f"drop {SYNC_BYTES + 1}", f"drop {MODEL_BYTES - 1}", "stall 0", "stall 70000", f"stall {SYNC_BYTES * 2}",
    "truncated 1", "truncated 100000", "head 0", "head 7", "head 30", "status 500", "status 404", "status 502",
    "later 120", "limited 120", "redirect", "garbage",
]  # fmt: skip


@pytest.mark.parametrize("fault", INTERRUPTIONS)
def test_after_each_interruption_only_the_rest_is_fetched(server: FlakyServer, line: Line, fault: str) -> None:
    server.faults = [f"drop {SYNC_BYTES + 500}", fault, fault]
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    assert server.sent[model_of(line.found)] == MODEL_BYTES, "bytes were fetched twice"
    assert line.incoming() == []


@pytest.mark.parametrize("fault", ["reset 70000", f"reset {SYNC_BYTES + 70000}"])
def test_a_connection_that_is_reset_loses_only_what_was_on_its_way(server: FlakyServer, line: Line, fault: str) -> None:
    server.faults = [fault, fault]
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    assert server.sent[model_of(line.found)] <= MODEL_BYTES + 2 * SYNC_BYTES


# Answers that show that the rest cannot be had: what has come goes, once, and the whole is fetched.
SPOILERS = ["whole", "etag", "elsewhere", "unsatisfiable", "swapped", "endless", "long"]


@pytest.mark.parametrize("fault", SPOILERS)
def test_an_answer_to_a_range_request_that_is_of_no_use_costs_one_whole_download_at_most(
    server: FlakyServer, line: Line, fault: str
) -> None:
    server.faults = [f"drop {SYNC_BYTES}", fault]
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    assert server.sent[model_of(line.found)] <= 2 * MODEL_BYTES + SYNC_BYTES
    assert line.incoming() == []


# For ever: fault, end, code, most requests for the model, most hours
FOR_EVER = {
    "status 404": (S.FAILED_NO_CHANGE, "resource.not_found", DOWNLOAD_TRIES, 0.7),
    "status 401": (S.FAILED_NO_CHANGE, "access.unauthenticated", DOWNLOAD_TRIES, 0.7),
    "status 500": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "status 204": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "unsatisfiable": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "redirect": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "garbage": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "etag": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "bare": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "elsewhere": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "long": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "endless": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "packed": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "truncated 100000": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "truncated 0": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "swapped": (S.REFUSED, "deployment.digest_mismatch", 2, 0.7),
    "later 120": (S.FAILED_NO_CHANGE, AWAY, 720, 25.0),
    "limited 9000": (S.FAILED_NO_CHANGE, AWAY, 25, 26.0),
    "drop 0": (S.FAILED_NO_CHANGE, AWAY, 900, 25.0),
    "head 20": (S.FAILED_NO_CHANGE, AWAY, 900, 25.0),
    f"drop {SYNC_BYTES // 4}": (S.SUCCEEDED, "", 14, 0.1),
    "drop 100000": (S.SUCCEEDED, "", 33, 0.1),
}


@pytest.mark.parametrize("silence_s", [5.0], ids=["patient"])  # no answer stalls here: a busy machine is not one either
@pytest.mark.parametrize("fault", FOR_EVER)
def test_each_lasting_fault_ends_as_documented_within_its_budget(server: FlakyServer, line: Line, fault: str) -> None:
    state, code, requests, hours = FOR_EVER[fault]
    server.always = fault
    line.run()
    assert line.end == (state, code)
    assert len([one for one in server.asked if one.digest == model_of(line.found)]) <= requests
    assert line.hours <= hours
    assert line.incoming() == [], "the deployment is over and leaves nothing"
    if code in (AWAY, BAD):
        assert line.device.reports[-1].reason
    if code == AWAY:
        assert line.hours >= 24.0
        assert "24 h" in line.device.reports[-1].reason


def test_answers_of_no_use_are_not_counted_while_each_brings_bytes(server: FlakyServer, line: Line) -> None:
    server.faults, server.always = ["drop 100000"], "truncated 200000"
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    assert len([one for one in server.asked if one.digest == model_of(line.found)]) > DOWNLOAD_TRIES
    assert server.sent[model_of(line.found)] == MODEL_BYTES


def test_a_line_that_stalls_for_ever_is_given_up_when_the_time_is_over(server: FlakyServer, line: Line) -> None:
    rules = replace(line.device.options.rules, limits=Limits(attempt_s=HOUR_S))
    line.device.options = replace(line.device.options, rules=rules)
    line.device.boot()
    server.always = "stall 0"
    line.run()
    assert line.end == (S.FAILED_NO_CHANGE, AWAY)
    assert 1.0 <= line.hours <= 1.2
    assert len(server.asked) <= 60


def test_a_device_that_is_offline_for_a_day_less_an_hour_goes_on_where_it_was(
    server: FlakyServer, line: Line, found: package.Package
) -> None:
    server.faults = [f"drop {2 * SYNC_BYTES}"]
    line.run(until=lambda: bool(line.incoming()))
    away = FleetApi(f"http://127.0.0.1:{free_port()}", "edge-1", "x" * 32, connect_s=0.5)
    line.device.fleet = away  # type: ignore[assignment]
    line.device.boot()
    line.run(until=lambda: line.device.clock.monotonic_ns() > 23 * HOUR_S * 1e9)
    attempt = line.device.journal.of("parts").attempt
    assert attempt is not None
    assert (attempt.state, attempt.tries) == (S.DOWNLOADING, 0)
    assert attempt.fault is not None
    assert attempt.fault.code == AWAY
    line.device.fleet = line.api  # type: ignore[assignment]
    line.device.boot()
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    starts = 2
    refetched = server.sent[model_of(found)] - MODEL_BYTES
    assert 0 < refetched <= starts * SYNC_BYTES, "at a start, what may not be on disk is let go"
    away.close()


def test_the_fleet_is_not_asked_again_before_it_wants_to_be(server: FlakyServer, line: Line) -> None:
    server.faults = ["later 900"]
    line.run(until=lambda: len(server.asked) > 1)
    line.run(until=lambda: line.device.clock.monotonic_ns() > 890 * 1e9)
    assert len([one for one in server.asked if one.digest == model_of(line.found)]) == 1
    line.run()
    assert line.end == (S.SUCCEEDED, "")


def test_a_long_download_gives_the_word_back_now_and_then_and_loses_nothing_by_it(
    server: FlakyServer, line: Line
) -> None:
    """In between, another document can be read: a version that was taken back is not downloaded to its end."""
    line.device.options = replace(line.device.options, slice_s=1.0)
    runner = line.device.boot()

    def go_on() -> bool:
        line.device.clock.advance(0.1)
        return True

    steps = 0
    while S.VERIFYING not in line.device.states():
        assert runner.step(wanted(line.found), go_on)
        steps += 1
    starts = [one.start for one in server.asked if one.digest == model_of(line.found)]
    assert len(starts) > 2
    assert starts == sorted(set(starts)), "each request goes on where the one before was cut short"
    assert steps == len(starts) + len(line.found.index.files)


def test_another_version_that_is_asked_for_meanwhile_takes_over_and_the_part_is_collected(
    server: FlakyServer, line: Line, tmp_path: Path
) -> None:
    server.always = f"drop {SYNC_BYTES}"
    line.run(until=lambda: bool(line.incoming()))
    other = make_package(tmp_path / "v2", 2)
    fleet = MemoryFleet()
    fleet.publish(other)
    server.blobs = {**server.blobs, **fleet.blobs}
    line.found = other
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    assert line.incoming() == []


@pytest.mark.parametrize("size", [0, 1, SYNC_BYTES - 1, SYNC_BYTES, SYNC_BYTES + 1, 5 * SYNC_BYTES, 5 * SYNC_BYTES + 7])
def test_no_more_than_one_mib_of_a_part_is_in_doubt(size: int) -> None:
    kept = certain_bytes(size)
    assert kept % SYNC_BYTES == 0
    assert max(0, size - SYNC_BYTES) <= kept <= size
    assert size == 0 or kept < size, "the last full MiB may not have been made durable"
