"""The local address against real sockets: what it answers, whom it refuses, and what it does not wait for."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.local import connection, server
from agent.local.exchange import Request, Response, Route, json_of
from agent.local.server import LocalServer
from wire.errors import LinesideError

JSON = {"Content-Type": "application/json"}


def echo(request: Request) -> Response:
    return json_of({"names": dict(request.names), "body": request.body.decode()})


def fail(request: Request) -> Response:
    if request.method == "GET":
        raise LinesideError("resource.not_found", "No such part.\r\nX-Evil: 1", "Look again.")
    raise RuntimeError("nobody expected this")


ROUTES = (
    Route(method="GET", pattern="/v1/things/{name}", answer=echo),
    Route(method="POST", pattern="/v1/things/{name}", answer=echo),
    Route(method="GET", pattern="/v1/fail", answer=fail),
    Route(method="POST", pattern="/v1/fail", answer=fail),
)


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    running = LocalServer("127.0.0.1", 0, ROUTES)
    running.start()
    yield running
    running.close()


def ask(
    local: LocalServer, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    client = http.client.HTTPConnection(local.address, timeout=10)
    client.request(method, path, body, headers or {})
    answer = client.getresponse()
    data = answer.read()
    client.close()
    return answer.status, dict(answer.getheaders()), json.loads(data) if data else None


def talk(local: LocalServer, text: bytes, *, timeout_s: float = 10.0) -> bytes:
    """Send bytes as they are and return everything that comes back until the connection ends."""
    host, port = local.address.split(":")
    with socket.create_connection((host, int(port)), timeout=timeout_s) as raw:
        raw.sendall(text)
        got = b""
        while chunk := raw.recv(4096):
            got += chunk
    return got


def test_a_route_gets_the_names_in_its_path_and_its_body(local: LocalServer) -> None:
    status, headers, body = ask(local, "POST", "/v1/things/gauge?x=1", b'{"a":1}', JSON)
    assert (status, body) == (200, {"names": {"name": "gauge"}, "body": '{"a":1}'})
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in headers, "nobody needs to know what answers"


def test_a_connection_serves_many_requests(local: LocalServer) -> None:
    client = http.client.HTTPConnection(local.address, timeout=10)
    for number in range(5):
        client.request("GET", f"/v1/things/n{number}")
        assert json.loads(client.getresponse().read())["names"] == {"name": f"n{number}"}
    first = client.sock
    client.request("HEAD", "/v1/things/gauge")
    answer = client.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    assert client.sock is first
    client.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/things/", 404),
        ("GET", "/v1/things/a/b", 404),
        ("GET", "/v1/things/../fail", 404),
        ("GET", "/v1/things/..%2Ffail", 404),
        ("GET", "/v1/things/%67auge", 404),
        ("GET", "//v1/fail/../../etc/passwd", 404),
        ("GET", "/v1/things/" + "a" * 65, 404),
        ("PUT", "/v1/things/gauge", 422),
        ("OPTIONS", "/v1/things/gauge", 422),
    ],
)
def test_what_is_no_route_is_a_problem(local: LocalServer, method: str, path: str, status: int) -> None:
    got, headers, body = ask(local, method, path)
    assert (got, body["status"]) == (status, status)
    assert headers["Content-Type"] == "application/problem+json"


def test_a_wrong_method_names_the_right_ones() -> None:
    only = LocalServer("127.0.0.1", 0, ROUTES[:1])
    only.start()
    status, headers, _ = ask(only, "POST", "/v1/things/gauge", b"{}", JSON)
    only.close()
    assert (status, headers["Allow"]) == (405, "GET")


def test_errors_are_problems_and_cannot_write_headers(local: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    status, headers, body = ask(local, "GET", "/v1/fail")
    assert (status, body["code"], body["next_step"]) == (404, "resource.not_found", "Look again.")
    assert "X-Evil" not in headers
    with caplog.at_level(logging.ERROR):
        status, _, body = ask(local, "POST", "/v1/fail", b"{}", JSON)
    assert (status, body["code"]) == (500, "internal.unexpected")
    assert "nobody expected" not in json.dumps(body)
    assert any(getattr(record, "event", "") == "local.request_failed" for record in caplog.records)


def test_a_route_cannot_send_a_header_with_a_line_break() -> None:
    with pytest.raises(ValueError, match="header"):
        Response(headers=(("Allow", "GET\r\nSet-Cookie: a=b"),))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8090", "127.0.0.1.evil.example", "10.0.0.7", "127.0.0.1:8090:1", "", "a b"]
)
def test_a_name_that_was_rebound_to_us_is_refused(local: LocalServer, host: str) -> None:
    status, _, body = ask(local, "GET", "/v1/things/gauge", headers={"Host": host})
    assert (status, body["code"]) == (403, "access.forbidden")


def test_a_request_without_a_host_or_with_two_is_refused(local: LocalServer) -> None:
    assert b" 403 " in talk(local, b"GET /v1/things/gauge HTTP/1.1\r\n\r\n")
    two = b"GET /v1/things/gauge HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"
    assert b" 403 " in talk(local, two)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9", "[::1]:8090"])
def test_our_own_names_are_let_in(local: LocalServer, host: str) -> None:
    assert ask(local, "GET", "/v1/things/gauge", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example", **JSON},
        {"Origin": "null", **JSON},
        {"Sec-Fetch-Site": "cross-site", **JSON},
        {"Sec-Fetch-Site": "same-site", **JSON},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {},
    ],
)
def test_a_web_page_cannot_post(local: LocalServer, headers: dict[str, str]) -> None:
    status, _, _ = ask(local, "POST", "/v1/things/gauge", b"{}", headers)
    assert status in {403, 422}


def test_a_page_of_our_own_may_post(local: LocalServer) -> None:
    headers = {"Origin": f"http://{local.address}", "Sec-Fetch-Site": "same-origin", **JSON}
    assert ask(local, "POST", "/v1/things/gauge", b"{}", headers)[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -1",
        b"Content-Length: 0x10",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 65537",
        b"Content-Length: 99999999999999999999999999",
    ],
)
def test_a_body_of_doubtful_length_ends_the_connection(local: LocalServer, head: bytes) -> None:
    start = b"POST /v1/things/gauge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    smuggled = b"GET /v1/things/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = talk(local, start + head + b"\r\n\r\n" + smuggled)
    assert answer.startswith((b"HTTP/1.1 422", b"HTTP/1.1 413"))
    assert answer.count(b"HTTP/1.1") == 1
    assert b"smuggled" not in answer


@pytest.mark.parametrize(
    "text",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_no_http_or_too_much_of_it_is_cut(local: LocalServer, text: bytes) -> None:
    try:
        answer = talk(local, text)
    except ConnectionResetError:
        answer = b""  # cut with bytes of ours still unread
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505"))
    assert ask(local, "GET", "/v1/things/gauge")[0] == 200


def test_a_client_that_drips_its_request_is_cut_in_time(local: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.4)
    host, port = local.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        started = time.monotonic()
        try:
            for byte in b"POST /v1/things/gauge HTTP/1.1\r\n" * 10:
                raw.sendall(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - started < 3.0, "a byte now and then gained more time"


def test_a_body_that_does_not_come_is_told(local: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.3)
    start = (
        b"POST /v1/things/g HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n"
    )
    started = time.monotonic()
    assert b" 408 " in talk(local, start + b"{")
    assert time.monotonic() - started < 3.0


def test_idle_connections_make_room_and_busy_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    entered, leave = threading.Semaphore(0), threading.Event()

    def wait(request: Request) -> Response:
        entered.release()
        leave.wait(10)
        return json_of("done")

    local = LocalServer("127.0.0.1", 0, (*ROUTES, Route(method="GET", pattern="/v1/wait", answer=wait)))
    local.start()
    host, port = local.address.split(":")
    idle = [socket.create_connection((host, int(port)), timeout=5) for _ in range(3)]
    assert ask(local, "GET", "/v1/things/gauge")[0] == 200, "an idle connection must make room"
    waiting = [threading.Thread(target=ask, args=(local, "GET", "/v1/wait")) for _ in range(3)]
    for thread in waiting:
        thread.start()
    for _ in waiting:
        assert entered.acquire(timeout=5)
    assert ask(local, "GET", "/v1/things/gauge")[0] == 503
    leave.set()
    for thread in waiting:
        thread.join(5)
    assert ask(local, "GET", "/v1/things/gauge")[0] == 200
    local.close()
    for one in idle:
        one.close()


def test_a_taken_port_is_told_and_another_one_is_used(caplog: pytest.LogCaptureFixture) -> None:
    first = LocalServer("127.0.0.1", 0, ROUTES)
    with caplog.at_level(logging.ERROR):
        second = LocalServer("127.0.0.1", int(first.address.rpartition(":")[2]), ROUTES)
    second.start()
    assert second.address != first.address
    assert first.address in second.trouble
    assert second.address in second.trouble
    assert [getattr(record, "event", "") for record in caplog.records] == ["local.port_taken"]
    assert ask(second, "GET", "/v1/things/gauge")[0] == 200
    second.close()
    first.close()


def test_an_address_of_the_network_needs_a_word() -> None:
    with pytest.raises(LinesideError, match="no passwords") as caught:
        LocalServer("0.0.0.0", 0, ROUTES)
    assert caught.value.code == "config.invalid_value"
    with pytest.raises(LinesideError, match="numeric"):
        LocalServer("press-7.example", 0, ROUTES)
    opened = LocalServer("0.0.0.0", 0, ROUTES, allow_network=True)
    opened.start()
    port = opened.address.rpartition(":")[2]
    client = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    for host, status in (("10.1.2.3", 200), (f"127.0.0.1:{port}", 200), ("press-7.example", 403)):
        client.request("GET", "/v1/things/gauge", headers={"Host": host})
        answer = client.getresponse()
        answer.read()
        assert answer.status == status
    client.close()
    opened.close()


def test_closing_cuts_connections_and_leaves_no_thread() -> None:
    before = sum(one.name in {"local", "local-connection"} for one in threading.enumerate())
    local = LocalServer("127.0.0.1", 0, ROUTES)
    local.start()
    host, port = local.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(b"GET /v1/things/g HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        local.close()
        assert time.monotonic() - started < 2.0
        assert raw.recv(4096) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1)
    deadline = time.monotonic() + 2
    while (
        time.monotonic() < deadline
        and sum(one.name in {"local", "local-connection"} for one in threading.enumerate()) > before
    ):
        time.sleep(0.01)
    assert sum(one.name in {"local", "local-connection"} for one in threading.enumerate()) == before
