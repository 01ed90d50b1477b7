"""A deployment through the real HTTP client, from a server that serves right bytes, wrong bytes, half or none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.uplink.fleet_api import FleetApi
from tests.support.deploying import MemoryFleet, TestDevice, check_reports, make_package, wanted
from wire import package
from wire.deployment import DeploymentState as S


class BlobServer(ThreadingHTTPServer):
    """Serves the blobs of a fleet in memory.

    Args:
        faults: what is done to the next answers: "500", "404", "swapped" (other bytes), "cut" (fewer than announced).
    """

    daemon_threads = True

    def __init__(self, blobs: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs = blobs
        self.faults: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: BlobServer

    def do_GET(self) -> None:
        fault = self.server.faults.pop(0) if self.server.faults else ""
        data = self.server.blobs.get(self.path.rsplit("/", 1)[-1])
        status = int(fault) if fault.isdigit() else 200 if data is not None else 404
        body = data if status == 200 and data is not None else b"{}"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "swapped":
            body = bytes([body[0] ^ 1]) + body[1:]
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def found(tmp_path: Path) -> package.Package:
    return make_package(tmp_path / "v1", 1)


@pytest.fixture
def server(found: package.Package) -> Iterator[BlobServer]:
    fleet = MemoryFleet()
    fleet.publish(found)
    serving = BlobServer(fleet.blobs)
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.mark.parametrize(
    ("faults", "end", "code"),
    [
        ([], S.SUCCEEDED, ""),
        (["", "500", "cut", "503", ""], S.SUCCEEDED, ""),
        (["", "swapped"], S.SUCCEEDED, ""),
        (["", "swapped", "swapped"], S.REFUSED, "deployment.digest_mismatch"),
        (["404"] * 20, S.FAILED_NO_CHANGE, "resource.not_found"),
        (["cut"] * 20, S.FAILED_NO_CHANGE, "deployment.download_failed"),
    ],
    ids=["all well", "flaky", "swapped once", "swapped twice", "never there", "always cut short"],
)
def test_each_fault_of_the_server_ends_as_documented(
    tmp_path: Path, server: BlobServer, found: package.Package, faults: list[str], end: S, code: str
) -> None:
    server.faults = list(faults)
    device = TestDevice(root=tmp_path / "device", fleet=MemoryFleet())
    api = FleetApi(server.url, "edge-1", "0123456789abcdef0123456789abcdef")
    device.fleet = api  # type: ignore[assignment]
    device.boot()
    device.run(wanted(found))
    assert (device.states()[-1], device.reports[-1].code) == (end, code)
    assert list((tmp_path / "device" / "store" / "incoming").iterdir()) == []
    check_reports(device.reports)
    api.close()
