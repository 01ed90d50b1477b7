"""A device's deployment at the fleet's own server: the download is resumed, and what it waits for is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn

from agent.deploy.durable import Disk
from agent.deploy.part import Part
from agent.uplink.fleet_api import FleetApi
from fleet.deployments.service import ReportSlice
from tests.support.deploying import MemoryFleet, TestDevice, make_package, wanted
from tests.support.fleet_stand import Stand, digest_of
from tests.support.ports import free_port
from wire.deployment import DeploymentState as S
from wire.deployment import HoldReason
from wire.messages import Lane

BLOB = bytes(range(251)) * 12_000


@pytest.fixture
def served(stand: Stand) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(stand.app, port=port, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("have", [0, 1, 262_143, 262_144, 262_145, len(BLOB) - 1])
def test_the_fleets_server_sends_the_rest_of_a_blob(stand: Stand, served: str, tmp_path: Path, have: int) -> None:
    api = FleetApi(served, "cell-1", stand.enrol("cell-1"))
    digest = stand.upload(BLOB)
    (tmp_path / "x.part").write_bytes(BLOB[:have])
    received = 0

    def count() -> bool:
        nonlocal received
        received = part.length - have
        return True

    with Part(tmp_path / "x.part", Disk()) as part:
        assert api.fetch_blob(digest, part, len(BLOB), exact=True, go_on=count)
        assert part.digest() == digest_of(BLOB)
    assert received == len(BLOB) - have
    api.close()


def test_what_a_deployment_waits_for_is_shown_by_the_fleet(stand: Stand, tmp_path: Path) -> None:
    stand.enrol("cell-1")
    stand.push("parts", 1)
    document = stand.desire("cell-1", {"parts": 1})["models"][0]
    found = make_package(tmp_path / "v1", 1)
    fleet = MemoryFleet()
    fleet.publish(found)
    room = [0]
    device = TestDevice(root=tmp_path / "device", fleet=fleet, room_bytes=lambda: room[0])
    device.boot()
    asked = wanted(found)
    device.run(asked)

    def tell(first: int) -> dict[str, object]:
        reports = [
            # the device's package is another one than the fleet's; only the words about it matter here
            replace(one, **told)
            for one in device.reports
        ]
        stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, reports[first:], first=first + 1)
        return dict(stand.send("GET", "/devices/cell-1/deployments").json()["items"][0])

    told = {"deployment_id": document["deployment_id"], "digest": document["active"], "inferring_digest": None}
    shown = tell(0)
    assert (shown["state"], shown["hold_reason"]) == (S.DOWNLOADING, HoldReason.NO_SPACE)
    assert shown["hold_until"] is not None
    before = len(device.reports)
    room[0] = 1 << 40
    device.run(asked)
    shown = tell(before)
    assert (shown["hold_reason"], shown["hold_until"]) == (None, None)
    assert shown["state"] == S.SUCCEEDED
