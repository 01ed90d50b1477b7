"""HTTP outputs against real servers, good and bad: none costs a verdict its time, and each verdict is counted."""

from __future__ import annotations

import base64
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.capture.settings import SourceSettings
from agent.line.gpio_chip import FakeChip
from agent.line.gpio_output import GpioOutput
from agent.line.http_output import HttpOutput
from agent.line.mqtt_output import MqttOutput
from agent.line.output_sender import OutputSender
from agent.line.outputs import outputs_of
from agent.line.settings import (
    GpioOutputSettings,
    HttpOutputSettings,
    LineSettings,
    MqttLineSettings,
    OutputSettings,
)
from agent.line.trigger import Answer, Output, StationState
from agent.settings import StationSettings, ViewSettings
from tests.support import ports, station
from wire.errors import LinesideError
from wire.inspection import Verdict


def until(done: Callable[[], object], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.005)


class Customer(ThreadingHTTPServer):
    """Somebody else's server: answers each POST as it is told to."""

    daemon_threads = True

    def __init__(self, answers: tuple[int, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.requests: list[tuple[dict[str, str], Any]] = []
        self.connections: set[object] = set()
        self.paths: set[str] = set()
        self.body = b"thanks"
        self.url = f"http://127.0.0.1:{self.server_address[1]}/verdicts"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Customer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((dict(self.headers), body))
        self.server.paths.add(self.path)
        self.server.connections.add(self.client_address)
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "/stolen")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def customer() -> Iterator[Customer]:
    running = Customer()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def post() -> Iterator[Callable[..., HttpOutput]]:
    made: list[HttpOutput] = []

    def make(url: str, *, capacity: int = 50, **more: Any) -> HttpOutput:
        made.append(
            HttpOutput(
                HttpOutputSettings(url=url, **more), station.CLOCK, name="gauge-http-1", device="press-1",
                station="gauge", capacity=capacity, rng=random.Random(1),
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for one in made:
        one.close()


def ok(number: int = 1) -> Answer:
    return station.answer_to(station.trigger(number), Verdict.OK)


def test_each_verdict_is_a_post_in_order_over_one_connection(
    customer: Customer, post: Callable[..., HttpOutput]
) -> None:
    output = post(customer.url)
    for number in range(1, 21):
        output.answer(ok(number))
    until(lambda: output.counts().sent == 20)
    assert [body["sequence"] for _, body in customer.requests] == list(range(1, 21))
    headers, body = customer.requests[0]
    assert (body["schema"], body["device"], body["station"]) == ("lineside.verdict/1", "press-1", "gauge")
    assert headers["Idempotency-Key"] == body["inspection_id"]
    assert headers["Content-Type"] == "application/json"
    assert len(customer.connections) == 1


def test_a_verdict_that_did_not_get_through_is_tried_again_with_the_same_key(
    customer: Customer, post: Callable[..., HttpOutput]
) -> None:
    customer.answers = [503, 503, 200]
    output = post(customer.url)
    output.answer(ok())
    until(lambda: output.counts().sent == 1)
    assert len({headers["Idempotency-Key"] for headers, _ in customer.requests}) == 1
    assert (len(customer.requests), output.counts().failed, output.counts().trouble) == (3, 0, "")


def test_a_server_that_says_no_is_told_and_every_verdict_counted(
    customer: Customer, post: Callable[..., HttpOutput]
) -> None:
    customer.answers = [400, 307, 500, 404]
    output = post(customer.url)
    output.answer(ok(1))
    until(lambda: output.counts().failed == 1)
    assert "status 500" in output.counts().trouble
    output.answer(ok(2))
    until(lambda: output.counts().failed == 2)
    assert len(customer.requests) == 4, "an output in trouble gets one attempt a verdict"
    assert customer.paths == {"/verdicts"}, "a redirect was followed"
    output.answer(ok(3))
    until(lambda: output.counts().sent == 1)
    assert output.counts().trouble == ""


@pytest.mark.alone("no single verdict may wait 50 ms, of which a busy machine may take some")
def test_a_black_hole_takes_no_time_from_a_verdict(post: Callable[..., HttpOutput]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:  # accepts by the kernel, never answers
        output = post(f"http://127.0.0.1:{hole.getsockname()[1]}/", timeout_s=0.3, capacity=10)
        slowest_s = 0.0
        for number in range(1000):
            started = time.monotonic()
            output.answer(ok(number))
            slowest_s = max(slowest_s, time.monotonic() - started)
        assert slowest_s < 0.05
        until(lambda: "in time" in output.counts().trouble)
        assert output.counts().dropped >= 1000 - 10 - 2
        started = time.monotonic()
        output.close()
        assert time.monotonic() - started < 4.0
    counts = output.counts()
    assert counts.sent + counts.failed + counts.dropped == 1000
    assert counts.sent == 0


def test_a_server_that_is_not_there_is_asked_with_pauses(post: Callable[..., HttpOutput]) -> None:
    output = post(f"http://127.0.0.1:{ports.free_port()}/", capacity=1000)
    for number in range(1000):
        output.answer(ok(number))
    time.sleep(0.5)
    assert output.counts().failed < 50, "it spins"
    assert "cannot be reached" in output.counts().trouble


@pytest.mark.parametrize("chunk", [b"x", b"x" * 65536])
def test_an_answer_without_an_end_is_cut(post: Callable[..., HttpOutput], chunk: bytes) -> None:
    stop = threading.Event()
    taken = []

    def drip(listener: socket.socket) -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            taken.append(connection)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
                while not stop.wait(0.01 if chunk == b"x" else 0):
                    connection.sendall(chunk)
            except OSError:
                continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        output = post(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.3)
        output.answer(ok(1))
        output.answer(ok(2))
        until(lambda: output.counts().sent == 2)  # the status line said yes
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert len(taken) == 2, "a connection with an unread answer must not serve again"
    for one in taken:
        one.close()


@pytest.mark.alone("no single verdict may take 100 ms, of which a busy machine may take some")
def test_a_station_with_nothing_but_dead_outputs_answers_its_line_as_fast_as_ever(
    post: Callable[..., HttpOutput],
) -> None:
    count = 100
    with socket.create_server(("127.0.0.1", 0)) as hole:
        address = f"127.0.0.1:{hole.getsockname()[1]}"
        broker = MqttOutput(
            MqttLineSettings(address=address, topic="verdicts"), name="gauge-mqtt-2", device="d", station="gauge",
            capacity=5,
        )  # fmt: skip
        chip = FakeChip()
        chip.unplug()
        wire = GpioOutput(
            GpioOutputSettings(chip="/dev/gpiochip0", line=4), station.CLOCK, name="gauge-gpio-3", capacity=5,
            open_chip=lambda _path: chip,
        )  # fmt: skip
        outputs: list[Output] = [post(f"http://{address}/", timeout_s=30.0, capacity=5), broker, wire]
        # Far enough apart that each has one frame of its own; judged one right after the other.
        triggers = [station.trigger(number, age_ms=110.0 * (count - number)) for number in range(1, count + 1)]
        line = station.ScriptedLine()
        frames = [station.frame_of(one, score_percent=10) for one in triggers]
        worker = station.worker_of(line, {"top": frames}, outputs=outputs, deadline_ms=60_000, live=False)
        took_s = []
        for one in triggers:
            started = time.monotonic()
            worker.inspect(one)
            took_s.append(time.monotonic() - started)
        assert [verdict for _, verdict in line.answers] == [Verdict.OK] * count
        assert sorted(took_s)[count // 2] < 0.01
        assert max(took_s) < 0.1
        for output in outputs:
            counts = output.counts()
            assert counts.sent == 0
            assert counts.dropped + counts.failed >= count - 5 - 1
            assert counts.trouble or output is outputs[0], "the first call to the black hole is not over yet"
        broker.close()
        wire.close()


def test_credentials_come_from_their_file_and_are_never_told(
    customer: Customer, post: Callable[..., HttpOutput], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "credentials"
    file.write_text("line:s3cret:with-colon\n")
    customer.answers = [401, 401, 401]
    output = post(customer.url.replace("//", "//other:pa55word@"), credentials_file=str(file))
    output.answer(ok())
    until(lambda: output.counts().failed == 1)
    _, given = customer.requests[0][0]["Authorization"].split(" ")
    assert base64.b64decode(given) == b"line:s3cret:with-colon"
    for text in (caplog.text, output.counts().trouble, repr(output)):
        assert "s3cret" not in text
        assert "pa55word" not in text


def test_a_sender_that_is_closed_accounts_for_what_waits() -> None:
    gate = threading.Event()

    def deliver(_answer: Answer) -> None:
        gate.wait(5)
        raise LinesideError("network.unreachable", "It is away.")

    sender = OutputSender("slow", deliver, 4, station.CLOCK, random.Random(1))
    for number in range(10):
        sender.put(ok(number))
    until(lambda: sender._waiting.qsize() <= 4)
    threading.Timer(0.1, gate.set).start()
    sender.close()
    counts = sender.counts()
    assert counts.sent + counts.failed + counts.dropped == 10


def test_a_station_gets_the_outputs_of_its_settings(customer: Customer) -> None:
    chip = FakeChip()
    settings = StationSettings(
        id="gauge",
        line=LineSettings(kind="http"),
        views=(ViewSettings(id="top", model="m", source=SourceSettings(kind="simulated", address="127.0.0.1:1")),),
        outputs=(
            OutputSettings(kind="http", http=HttpOutputSettings(url=customer.url)),
            OutputSettings(kind="gpio", gpio=GpioOutputSettings(chip="/dev/gpiochip0", line=4)),
            OutputSettings(
                kind="mqtt", mqtt=MqttLineSettings(address=f"127.0.0.1:{ports.free_port()}", topic="verdicts")
            ),
        ),
    )
    outputs = outputs_of(settings, station.CLOCK, device="press-1", open_chip=lambda _path: chip)
    assert [output.name for output in outputs] == ["gauge-http-1", "gauge-gpio-2", "gauge-mqtt-3"]
    until(lambda: chip.high(4) is True)
    for output in outputs:
        output.set_state(StationState(ready=True))
        output.answer(ok())
    until(lambda: len(customer.requests) == 1)
    until(lambda: chip.high(4) is False)
    for output in outputs:
        output.close()
    assert chip.high(4) is None
