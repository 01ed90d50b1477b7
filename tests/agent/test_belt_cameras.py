"""The belt's cameras: each client gets its own camera's exposures, a lost camera hangs up and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.capture.frame import Frame, NoFrame
from agent.capture.simulated import SimulatedCamera
from agent.simulator.belt_cameras import BeltCameras
from wire.errors import LinesideError

PICTURES: dict[str, NDArray[np.uint8]] = {
    name: np.full((4, 6, 3), grey, np.uint8) for name, grey in (("top", 10), ("left", 20), ("right", 30))
}


@pytest.fixture
def cameras() -> Iterator[BeltCameras]:
    running = BeltCameras("127.0.0.1", 0, PICTURES)
    yield running
    running.close()


def connected(cameras: BeltCameras, name: str) -> SimulatedCamera:
    """Return a camera's client that has got its first frame."""
    client = SimulatedCamera("127.0.0.1", cameras.port, name, name)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if isinstance(client.read(0.01), NoFrame) and name in cameras.expose(0, 0.0, {name: PICTURES[name]}):
            frame = client.read(1.0)
            assert isinstance(frame, Frame)
            return client
    raise AssertionError("the camera never came")


def test_each_client_sees_its_own_camera_at_the_time_of_the_exposure(cameras: BeltCameras) -> None:
    clients = {name: connected(cameras, name) for name in PICTURES}
    assert cameras.expose(123_456, 1_700_000_000.25, PICTURES) == PICTURES.keys()
    for name, client in clients.items():
        frame = client.read(1.0)
        assert isinstance(frame, Frame)
        assert np.array_equal(frame.image_bgr, PICTURES[name])
        assert (frame.camera, frame.exposed_ns) == (name, 123_456)
        client.close()


def test_a_lost_camera_gives_nothing_until_it_is_back_and_the_others_go_on(cameras: BeltCameras) -> None:
    top, left = connected(cameras, "top"), connected(cameras, "left")
    cameras.lose("left")
    assert cameras.expose(1, 0.0, PICTURES) == {"top"}
    assert isinstance(top.read(1.0), Frame)
    assert isinstance(left.read(0.05), NoFrame)
    assert isinstance(left.read(0.05), NoFrame), "a lost camera takes no new client"
    assert cameras.expose(2, 0.0, PICTURES) == {"top"}
    cameras.restore("left")
    left.close()
    left = connected(cameras, "left")
    number_before = left.read(0.01)
    assert isinstance(number_before, NoFrame)
    assert "left" in cameras.expose(3, 0.0, PICTURES)
    frame = left.read(1.0)
    assert isinstance(frame, Frame)
    assert frame.exposed_ns == 3
    top.close()
    left.close()


def test_an_unknown_camera_and_a_foreign_address_are_refused(cameras: BeltCameras) -> None:
    stranger = SimulatedCamera("127.0.0.1", cameras.port, "bottom", "bottom")
    answer = stranger.read(0.2)
    assert isinstance(answer, NoFrame)
    stranger.close()
    with pytest.raises(LinesideError, match=r"10\.0\.0\.1"):
        BeltCameras("10.0.0.1", 0, ("top",))
