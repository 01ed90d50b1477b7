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
ON_ITS_WAY_BYTES = 16 * SYNC_BYTES  # what a server has sent into the buffers before it sees that nobody listens
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
def silence_s(request: pytest.FixtureRequest) -> float:
    """Seconds without a byte after which a line counts as stalled: many where none stalls, as a machine may be busy."""
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    return 0.5 if str(given.get("fault", "")).startswith("stall") else 5.0


@pytest.fixture
def line(tmp_path: Path, server: FlakyServer, found: package.Package, silence_s: float) -> Iterator[Line]:
    api = FleetApi(server.url, "edge-1", "0123456789abcdef0123456789abcdef", silence_s=silence_s, patience_s=1.0)
    device = TestDevice(root=tmp_path / "device", fleet=MemoryFleet())
    device.fleet = api  # type: ignore[assignment]
    device.options = replace(device.options, pause_s=4.0, pause_max_s=300.0)
    device.boot()
    yield Line(device, api, found)
    api.close()


def give_an_hour(line: Line) -> None:
    """Let a deployment take an hour at most."""
    rules = replace(line.device.options.rules, limits=Limits(attempt_s=HOUR_S))
    line.device.options = replace(line.device.options, rules=rules)
    line.device.boot()


# Interruptions: what has come stays, and only the rest is asked for.
INTERRUPTIONS = [
    "drop 0", "drop 1", "drop 65535", "drop 65536", "drop 65537", f"drop {SYNC_BYTES - 1}", f"drop {SYNC_BYTES}",
    f"drop {SYNC_BYTES + 1}", f"drop {2 * SYNC_BYTES - 501}", f"drop {2 * SYNC_BYTES - 500}", f"drop {MODEL_BYTES - 1}",
    f"drop {MODEL_BYTES - SYNC_BYTES - 501}", "stall 0", "stall 70000", f"stall {SYNC_BYTES * 2}", "length none",
    "truncated 1", "truncated 100000", "head 0", "head 7", "head 30", "status 500", "status 404", "status 502",
    "status 403", "status 408", "status 503", "later 120", "later soon", "limited", "limited 120", "redirect",
    "garbage", "heads",
]  # fmt: skip


@pytest.mark.parametrize("fault", INTERRUPTIONS)
def test_after_each_interruption_only_the_rest_is_fetched(server: FlakyServer, line: Line, fault: str) -> None:
    server.faults = [f"drop {SYNC_BYTES + 500}", fault, fault]
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    assert server.sent[model_of(line.found)] == MODEL_BYTES, "bytes were fetched twice"
    assert line.incoming() == []


@pytest.mark.parametrize("fault", ["packed", "gzipped", "length abc", "length -1"])
def test_a_body_that_is_refused_by_its_head_leaves_what_has_come_as_it_is(
    server: FlakyServer, line: Line, fault: str
) -> None:
    server.faults = [f"drop {SYNC_BYTES + 500}", fault, fault]
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    starts = [one.start for one in server.asked if one.digest == model_of(line.found)]
    assert starts == [0, *[SYNC_BYTES + 500] * 3]


@pytest.mark.parametrize("fault", ["reset 70000", f"reset {SYNC_BYTES + 70000}"])
def test_a_connection_that_is_reset_loses_only_what_was_on_its_way(server: FlakyServer, line: Line, fault: str) -> None:
    server.faults = [fault, fault]
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    assert server.sent[model_of(line.found)] <= MODEL_BYTES + 2 * SYNC_BYTES


# Answers that show that the rest cannot be had: what has come goes, once, and the whole is fetched.
SPOILERS = [
    "whole", "etag", "bare", "elsewhere", "unsatisfiable", "swapped 0", "swapped 999999", "endless", "long",
    f"length {10**12}", "range bytes 5-9/10", f"range bytes {SYNC_BYTES}-{MODEL_BYTES}/{MODEL_BYTES + 1}",
    "range everything",
]  # fmt: skip


@pytest.mark.parametrize("fault", SPOILERS)
def test_an_answer_to_a_range_request_that_is_of_no_use_costs_one_whole_download_at_most(
    server: FlakyServer, line: Line, fault: str
) -> None:
    server.faults = [f"drop {SYNC_BYTES}", fault]
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    most_bytes = 2 * MODEL_BYTES + SYNC_BYTES + (ON_ITS_WAY_BYTES if fault == "endless" else 0)
    assert server.sent[model_of(line.found)] <= most_bytes
    assert line.incoming() == []


# For ever: fault, end, code, most requests for the model, most hours
FOR_EVER = {
    "status 404": (S.FAILED_NO_CHANGE, "resource.not_found", DOWNLOAD_TRIES, 0.7),
    "status 401": (S.FAILED_NO_CHANGE, "access.unauthenticated", DOWNLOAD_TRIES, 0.7),
    "status 500": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "status 204": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "unsatisfiable": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "status 403": (S.FAILED_NO_CHANGE, "access.forbidden", DOWNLOAD_TRIES, 0.7),
    "redirect": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "redirect https://127.0.0.1:9/elsewhere": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "redirect /api/v1/desired": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "redirect ?again": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "heads": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "gzipped": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    "length abc": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
    f"length {10**12}": (S.FAILED_NO_CHANGE, BAD, DOWNLOAD_TRIES, 0.7),
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
    f"swapped {MODEL_BYTES - 1}": (S.REFUSED, "deployment.digest_mismatch", 2, 0.7),
    "later 120": (S.FAILED_NO_CHANGE, AWAY, 720, 25.0),
    "limited 9000": (S.FAILED_NO_CHANGE, AWAY, 25, 26.0),
    "drop 0": (S.FAILED_NO_CHANGE, AWAY, 900, 25.0),
    "head 20": (S.FAILED_NO_CHANGE, AWAY, 900, 25.0),
    f"drop {SYNC_BYTES // 4}": (S.SUCCEEDED, "", 14, 0.1),
    "drop 100000": (S.SUCCEEDED, "", 33, 0.1),
}


@pytest.mark.parametrize("fault", FOR_EVER)
def test_each_lasting_fault_ends_as_documented_within_its_budget(server: FlakyServer, line: Line, fault: str) -> None:
    state, code, requests, hours = FOR_EVER[fault]
    server.always = fault
    line.run()
    assert line.end == (state, code)
    assert len([one for one in server.asked if one.digest == model_of(line.found)]) <= requests
    assert line.hours <= hours
    whole_ones = 2 if fault.startswith("swapped") else 1 if state is S.SUCCEEDED else min(requests, DOWNLOAD_TRIES)
    assert server.sent.get(model_of(line.found), 0) <= whole_ones * (MODEL_BYTES + ON_ITS_WAY_BYTES * (whole_ones > 2))
    assert line.incoming() == [], "the deployment is over and leaves nothing"
    if code in (AWAY, BAD):
        assert line.device.reports[-1].reason
    if code == AWAY:
        assert line.hours >= 24.0
        assert "24 h" in line.device.reports[-1].reason


# Waited for: fault, most requests for the model in the hour that this deployment has.
WAITED_FOR = {
    "status 408": 60, "status 425": 60, "status 503": 60, "status 504": 60, "limited": 60, "limited soon": 60,
    "limited -5": 60, "later Sun, 01 Mar 99999999999999999999 12:02:00 GMT": 60, "limited 99999999999": 2,
    "later Fri, 31 Dec 9999 23:59:59 GMT": 2, "limited 0": 60, "head 0": 60,
}  # fmt: skip


@pytest.mark.parametrize("fault", WAITED_FOR)
def test_what_may_go_away_is_waited_for_until_the_time_is_over(server: FlakyServer, line: Line, fault: str) -> None:
    give_an_hour(line)
    server.always = fault
    line.run()
    assert line.end == (S.FAILED_NO_CHANGE, AWAY)
    assert len([one for one in server.asked if one.digest == model_of(line.found)]) <= WAITED_FOR[fault]
    assert 1.0 <= line.hours <= 2.3, "the longest wait that is heeded is an hour, and a pause"


def test_a_redirect_is_not_followed_to_another_server(server: FlakyServer, line: Line) -> None:
    with FlakyServer(server.blobs) as other:
        server.always = f"redirect {other.url}/api/v1/blobs/{model_of(line.found)}"
        line.run()
        assert line.end == (S.FAILED_NO_CHANGE, BAD)
        assert other.asked == []


def test_a_line_that_drips_is_left_now_and_then_and_loses_nothing(server: FlakyServer, line: Line) -> None:
    """Slower than the slowest accepted pace: a line that is held open for ever would hold the deployment."""
    server.faults, server.always = [f"drop {MODEL_BYTES - 24_000}"], "drip 4000"
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    starts = [one.start for one in server.asked if one.digest == model_of(line.found)]
    assert len(starts) > 2
    assert starts == sorted(set(starts)), "each request goes on where the one before was left"


def test_answers_of_no_use_are_not_counted_while_each_brings_bytes(server: FlakyServer, line: Line) -> None:
    server.faults, server.always = ["drop 100000"], "truncated 200000"
    line.run()
    assert line.end == (S.SUCCEEDED, "")
    assert len([one for one in server.asked if one.digest == model_of(line.found)]) > DOWNLOAD_TRIES
    assert server.sent[model_of(line.found)] == MODEL_BYTES


@pytest.mark.parametrize("silence_s", [0.15], ids=["impatient"])  # about fifty times
def test_a_line_that_stalls_for_ever_is_given_up_when_the_time_is_over(server: FlakyServer, line: Line) -> None:
    give_an_hour(line)
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
    # A piece is what the socket gives: where a slice ends with the last of the file, one more step takes the file in.
    assert steps - len(starts) - len(line.found.index.files) in (0, 1)


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


# The rows of the table in docs/reference/deployment-states.md, by how they begin, and the faults each stands for.
ROWS = {
    "is not there, breaks off": {
        "drop", "head", "later", "limited", "drip", "status 408", "status 425", "status 503", "status 504",
    },
    "answers 404, 401 or 403": {"status 404", "status 401", "status 403"},
    "answers 500 or another status, redirects": {
        "status 500", "status 204", "redirect", "garbage", "heads", "truncated", "length", "packed", "gzipped", "bare",
        "etag",
    },
    "answers a Range request with another part": {"elsewhere", "range", "unsatisfiable", "long", "endless"},
    "answers a Range request with the whole": {"whole"},
    "sends other bytes": {"swapped"},
}  # fmt: skip
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "deployment-states.md"


def test_the_page_says_of_each_fault_what_these_tests_see() -> None:
    text = PAGE.read_text(encoding="utf-8").split("| what the server does | what follows |")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert [[key for key in ROWS if cells[0].startswith(key)] for cells in rows] == [[key] for key in ROWS]
    ends = {fault: (state, code) for fault, (state, code, *_) in FOR_EVER.items()}
    ends |= dict.fromkeys(WAITED_FOR, (S.FAILED_NO_CHANGE, AWAY))
    for fault, (state, code) in ends.items():
        kinds = {fault, fault.split()[0]}
        (told,) = [cells[1] for cells, faults in zip(rows, ROWS.values(), strict=True) if faults & kinds]
        assert state is S.SUCCEEDED or (f"`{state}`" in told and (code in told or code.split(".")[0] + ".*" in told))


@pytest.mark.parametrize("size", [0, 1, SYNC_BYTES - 1, SYNC_BYTES, SYNC_BYTES + 1, 5 * SYNC_BYTES, 5 * SYNC_BYTES + 7])
def test_no_more_than_one_mib_of_a_part_is_in_doubt(size: int) -> None:
    kept = certain_bytes(size)
    assert kept % SYNC_BYTES == 0
    assert max(0, size - SYNC_BYTES) <= kept <= size
    assert size == 0 or kept < size, "the last full MiB may not have been made durable"
