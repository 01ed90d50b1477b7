"""The device's HTTP client against a real server that answers well, wrongly, endlessly, slowly or not at all."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.deploy.durable import Disk
from agent.deploy.part import Part
from agent.uplink.fleet_api import ApiError, FleetApi
from wire import codec
from wire.desired import Desired
from wire.enrolment import Enrolment, EnrolmentRequest
from wire.errors import LinesideError

BLOB = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(BLOB).hexdigest()
ETAG = f'"{DIGEST}"'
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Does what the test has put into the server."""

    protocol_version = "HTTP/1.1"
    server: Server

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.server.requests.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
        try:
            self.server.answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def problem(self, status: int, **fields: object) -> None:
        self.send(status, json.dumps({"status": status, **fields}).encode(), Content_Type="application/problem+json")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = lambda handler: handler.send(404)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        pass

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.over.set()
    found.shutdown()
    found.server_close()
    thread.join(5)


@pytest.fixture
def api(server: Server) -> Iterator[FleetApi]:
    client = FleetApi(server.url, "cell-1", "secret-credential", connect_s=1, silence_s=0.4, patience_s=0.6)
    yield client
    client.close()


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(LinesideError) as caught:
        action()
    return caught.value.code


def test_a_credential_the_fleet_does_not_take_is_told_to_a_device_not_to_an_operator(
    server: Server, api: FleetApi
) -> None:
    server.answer = lambda handler: handler.send(401)
    with pytest.raises(ApiError, match="cell-1") as caught:
        api.desired(None)
    assert "lineside enroll" in caught.value.next_step


def test_enrolment_sends_the_claim_and_returns_the_credential(server: Server, api: FleetApi) -> None:
    request = EnrolmentRequest(claim_token="c" * 20, device="cell-1", agent_version="0", architecture="x86_64")
    enrolment = Enrolment(device="cell-1", credential="s" * 30, mqtt_host="127.0.0.1", mqtt_port=1883)
    server.answer = lambda handler: handler.send(201, codec.encode(enrolment))
    assert api.enrol(request) == enrolment
    method, path, headers, body = server.requests[0]
    assert (method, path, headers["Content-Type"]) == ("POST", "/api/v1/enrolments", "application/json")
    assert codec.decode(body, EnrolmentRequest) == request
    server.answer = lambda handler: handler.problem(403, code="claim.invalid", detail="Used already.", next_step="Ask.")
    with pytest.raises(ApiError) as caught:
        api.enrol(request)
    assert (caught.value.code, caught.value.message, caught.value.next_step) == (
        "claim.invalid",
        "Used already.",
        "Ask.",
    )
    other = Enrolment(device="cell-2", credential="s" * 30, mqtt_host="127.0.0.1", mqtt_port=1883)
    server.answer = lambda handler: handler.send(201, codec.encode(other))
    assert code_of(lambda: api.enrol(request)) == "network.bad_answer"


def test_the_desired_document_is_read_once_and_then_only_when_it_changed(server: Server, api: FleetApi) -> None:
    document = Desired(device="cell-1", revision=4)

    def answer(handler: Handler) -> None:
        if handler.headers.get("If-None-Match") == '"4"':
            handler.send(304, ETag='"4"')
        else:
            handler.send(200, codec.encode(document), ETag='"4"')

    server.answer = answer
    found = api.desired(None)
    assert found == (document, '"4"')
    assert api.desired('"4"') is None
    assert server.requests[0][2]["Authorization"] == "Bearer secret-credential"
    assert server.requests[0][1] == "/api/v1/devices/cell-1/desired"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda h: h.send(200, b"<html>a captive portal</html>", ETag='"1"'), "network.bad_answer"),
        (lambda h: h.send(200, codec.encode(Desired(device="cell-2", revision=1)), ETag='"1"'), "network.bad_answer"),
        (lambda h: h.send(200, codec.encode(Desired(device="cell-1", revision=1))), "network.bad_answer"),
        (lambda h: h.send(200, b" " * (5 * 1024 * 1024), ETag='"1"'), "network.bad_answer"),
        (lambda h: h.send(401), "access.unauthenticated"),
        (lambda h: h.problem(403, code="device.revoked", detail="Revoked."), "device.revoked"),
        (lambda h: h.problem(403, code="no.such", detail=""), "access.forbidden"),
        (lambda h: h.problem(404, code="access.forbidden"), "resource.not_found"),
        (lambda h: h.send(404, b"\xff not json", Content_Type="application/problem+json"), "resource.not_found"),
        (lambda h: h.send(500, b"x" * 1_000_000), "network.bad_answer"),
        (lambda h: h.send(302, Location="http://127.0.0.1:1/elsewhere"), "network.bad_answer"),
        (lambda h: h.server.over.wait(3), "network.unreachable"),
    ],
)
def test_every_bad_answer_has_its_code(server: Server, api: FleetApi, answer: Answer, code: str) -> None:
    server.answer = answer
    assert code_of(lambda: api.desired(None)) == code


def test_nobody_there_is_told_in_time(free_port: int) -> None:
    api = FleetApi(f"http://127.0.0.1:{free_port}", "cell-1", connect_s=1)
    start = time.monotonic()
    assert code_of(lambda: api.desired(None)) == "network.unreachable"
    assert time.monotonic() - start < 3
    api.close()


def fetch(api: FleetApi, folder: Path, digest: str = DIGEST) -> bool:
    with Part(folder / f"{digest}.part", Disk()) as part:
        return api.fetch_blob(digest, part, len(BLOB), exact=True, go_on=lambda: True)


def test_a_blob_is_asked_for_once_and_written_as_it_comes(server: Server, api: FleetApi, tmp_path: Path) -> None:
    server.answer = lambda handler: handler.send(200, BLOB, ETag=ETAG)
    assert fetch(api, tmp_path)
    assert (tmp_path / f"{DIGEST}.part").read_bytes() == BLOB
    assert "Range" not in server.requests[0][2]


def test_what_has_come_is_not_asked_for_again(server: Server, api: FleetApi, tmp_path: Path) -> None:
    have = 100_001
    (tmp_path / f"{DIGEST}.part").write_bytes(BLOB[:have])
    span = f"bytes {have}-{len(BLOB) - 1}/{len(BLOB)}"
    server.answer = lambda handler: handler.send(206, BLOB[have:], ETag=ETAG, Content_Range=span)
    assert fetch(api, tmp_path)
    assert (tmp_path / f"{DIGEST}.part").read_bytes() == BLOB
    headers = server.requests[0][2]
    assert (headers["Range"], headers["If-Range"]) == (f"bytes={have}-", ETAG)


def test_a_download_can_be_cut_short_and_keeps_what_has_come(server: Server, api: FleetApi, tmp_path: Path) -> None:
    server.answer = lambda handler: handler.send(200, BLOB, ETag=ETAG)
    with Part(tmp_path / "x.part", Disk()) as part:
        assert api.fetch_blob(DIGEST, part, len(BLOB), exact=True, go_on=lambda: False) is False
        assert 0 < part.length < len(BLOB)
    assert BLOB.startswith((tmp_path / "x.part").read_bytes())


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.send_header("ETag", ETAG)
    handler.end_headers()
    while not handler.server.over.is_set():
        handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def dripping(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BLOB)))
    handler.send_header("ETag", ETAG)
    handler.end_headers()
    for n in range(200):
        handler.wfile.write(BLOB[n : n + 1])
        handler.wfile.flush()
        if handler.server.over.wait(0.1):
            return


def cut(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BLOB)))
    handler.send_header("ETag", ETAG)
    handler.end_headers()
    handler.wfile.write(BLOB[: len(BLOB) // 2])
    handler.close_connection = True


def stalling(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BLOB)))
    handler.send_header("ETag", ETAG)
    handler.end_headers()
    handler.wfile.write(BLOB[:1000])
    handler.wfile.flush()
    handler.server.over.wait(5)


@pytest.mark.parametrize(
    ("answer", "code", "kept"),
    [
        (lambda h: h.send(200, b"<html>login</html>", ETag=ETAG), "deployment.download_failed", 0),
        (lambda h: h.send(200, BLOB), "deployment.download_failed", 0),
        (lambda h: h.send(200, BLOB, ETag='"1"'), "deployment.download_failed", 0),
        (lambda h: h.send(200, BLOB + b"more", ETag=ETAG), "deployment.download_failed", 0),
        (lambda h: h.send(200, BLOB, ETag=ETAG, Content_Encoding="gzip"), "deployment.download_failed", 0),
        (endless, "deployment.download_failed", 0),
        (dripping, "network.unreachable", 1),
        (cut, "network.unreachable", len(BLOB) // 2),
        (stalling, "network.unreachable", 1000),
        (lambda h: h.send(302, Location="/api/v1/blobs/elsewhere"), "deployment.download_failed", 0),
        (lambda h: h.send(500), "deployment.download_failed", 0),
        (lambda h: h.send(503), "network.unreachable", 0),
        (lambda h: h.send(404), "resource.not_found", 0),
        (lambda h: h.send(401), "access.unauthenticated", 0),
    ],
)
def test_a_bad_download_has_its_code_and_keeps_what_is_of_use(
    server: Server,
    api: FleetApi,
    tmp_path: Path,
    answer: Answer,
    code: str,
    kept: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.uplink.fleet_api.SLOWEST_BYTES_PER_S", 2_000_000)
    server.answer = answer
    start = time.monotonic()
    assert code_of(lambda: fetch(api, tmp_path)) == code
    assert time.monotonic() - start < 4
    assert len(server.requests) == 1, "a redirect was followed"
    found = list(tmp_path.iterdir())
    assert len(found) == (1 if kept else 0)
    assert not found or found[0].stat().st_size >= kept


def test_how_long_the_fleet_asks_to_wait_is_told(server: Server, api: FleetApi, tmp_path: Path) -> None:
    server.answer = lambda handler: handler.send(429, Retry_After="77")
    with pytest.raises(ApiError) as caught:
        fetch(api, tmp_path)
    assert (caught.value.code, caught.value.status, caught.value.retry_after_s) == ("network.unreachable", 429, 77.0)


def test_a_download_does_not_follow_a_planted_link(server: Server, api: FleetApi, tmp_path: Path) -> None:
    server.answer = lambda handler: handler.send(200, BLOB, ETag=ETAG)
    precious = tmp_path / "precious"
    precious.write_text("stays")
    (tmp_path / f"{DIGEST}.part").symlink_to(precious)
    assert code_of(lambda: fetch(api, tmp_path)) == "storage.corrupt"
    assert precious.read_text() == "stays"
    assert code_of(lambda: fetch(api, tmp_path, digest="x")) == "request.invalid"


def test_a_known_blob_is_not_sent_again(server: Server, api: FleetApi) -> None:
    server.answer = lambda handler: handler.send(200)
    assert api.put_blob(DIGEST, BLOB) is False
    assert [request[0] for request in server.requests] == ["HEAD"]
    server.requests.clear()
    server.answer = lambda handler: handler.send(404 if handler.command == "HEAD" else 201)
    assert api.put_blob(DIGEST, BLOB) is True
    assert [request[0] for request in server.requests] == ["HEAD", "PUT"]
    assert server.requests[1][3] == BLOB


def test_the_status_of_a_refused_upload_is_told(server: Server, api: FleetApi) -> None:
    server.answer = lambda handler: handler.send(404 if handler.command == "HEAD" else 413)
    with pytest.raises(ApiError) as caught:
        api.put_blob(DIGEST, BLOB)
    assert (caught.value.code, caught.value.status) == ("request.too_large", 413)
