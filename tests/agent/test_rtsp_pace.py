"""How soon a frame of a network camera is there: a figure of a camera that has the machine to itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from agent.capture.frame import TimeClass
from agent.capture.settings import SourceSettings
from tests.support import rtsp
from tests.support.cameras import Consumer, eventually, feed_of
from tests.support.rtsp import RtspServer

pytestmark = pytest.mark.alone("no single frame may be half a second old, of which a busy machine may take some")


@pytest.fixture
def server() -> Iterator[RtspServer]:
    rtsp.needed()
    server = RtspServer(fps=15).start()
    yield server
    server.kill()


def test_a_network_camera_names_its_time_class_and_its_frames_arrive(server: RtspServer) -> None:
    feed = feed_of("front", SourceSettings(kind="rtsp", url=server.url, open_timeout_s=1.5, read_timeout_s=1.0))
    info = feed.open()
    ages: list[float] = []
    consumer = Consumer(feed, lambda lease: ages.append((time.monotonic_ns() - lease.frame.exposed_ns) / 1e9))
    eventually(lambda: consumer.taken > 20)
    counts = consumer.close()

    assert (info.time_class, info.live) == (TimeClass.ARRIVAL_ONLY, True)
    assert consumer.shapes == [(240, 320, 3)]
    assert all(0 <= age < 0.5 for age in ages)
    assert set(counts.dropped) <= {"stale", "closed"}
