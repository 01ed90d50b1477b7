"""A real camera on the network, lost in every way a network knows: it comes back, and the other view never notices."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from agent.capture.feed import Feed
from agent.capture.frame import Vital
from agent.capture.settings import SourceSettings
from tests.support import ports, rtsp
from tests.support.cameras import Consumer, adds_up, eventually, feed_of, is_gone
from tests.support.rtsp import RtspServer, StallingProxy

FPS = 15


def settings(url: str, **more: object) -> SourceSettings:
    given: dict[str, object] = {"open_timeout_s": 1.5, "read_timeout_s": 1.0, **more}
    return SourceSettings(kind="rtsp", url=url, **given)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[RtspServer]:
    rtsp.needed()
    server = RtspServer(fps=FPS).start()
    yield server
    server.kill()


@pytest.fixture
def side() -> Iterator[Consumer]:
    """Another view of the same station, whose camera nothing happens to."""
    rtsp.needed()
    server = RtspServer(fps=FPS).start()
    feed = feed_of("side", settings(server.url))
    feed.open()
    consumer = Consumer(feed)
    eventually(lambda: consumer.taken > 3)
    yield consumer
    consumer.close()
    server.kill()


class Watched:
    """The other view's rate while something happens to the first one."""

    def __init__(self, side: Consumer) -> None:
        self._side = side
        self._began = time.monotonic()
        self._before = side.taken

    def check(self) -> None:
        rate = (self._side.taken - self._before) / (time.monotonic() - self._began)
        assert rate > 0.8 * FPS, f"the other view fell to {rate:.1f} frames a second"
        assert self._side.feed.health().restarts == 0


def comes_back(feed: Feed, consumer: Consumer, within_s: float = 15) -> None:
    taken = consumer.taken
    eventually(lambda: feed.health().connected and consumer.taken > taken + 5, within_s, "the camera's return")


def killed_and_restarted(server: RtspServer, lost: Callable[[], bool]) -> None:
    server.kill()
    eventually(lost)
    server.start()


def stopped_and_continued(server: RtspServer, lost: Callable[[], bool]) -> None:
    server.freeze()
    eventually(lost)
    server.thaw()


def stopped_and_replaced(server: RtspServer, lost: Callable[[], bool]) -> None:
    server.freeze()
    eventually(lost)
    server.kill()
    server.start()


def black_holed(server: RtspServer, lost: Callable[[], bool]) -> None:
    server.kill()
    with rtsp.black_hole(server.port) as accepted:
        eventually(lost)
        eventually(lambda: len(accepted) >= 2, 10, "a second attempt at the black hole")
    server.start()


@pytest.mark.parametrize(
    "fault", [killed_and_restarted, stopped_and_continued, stopped_and_replaced, black_holed], ids=lambda f: f.__name__
)
def test_a_lost_network_camera_comes_back_while_the_other_view_keeps_its_rate(
    fault: Callable[[RtspServer, Callable[[], bool]], None], server: RtspServer, side: Consumer
) -> None:
    feed = feed_of("front", settings(server.url))
    feed.open()
    consumer = Consumer(feed)
    eventually(lambda: consumer.taken > 10)
    watched = Watched(side)

    fault(server, lambda: not feed.health().connected)
    assert feed.health().trouble
    comes_back(feed, consumer)

    watched.check()
    assert feed.health().trouble == ""
    assert feed.health().restarts >= 1
    consumer.close()


def test_a_stream_that_stops_in_the_middle_of_a_frame_is_opened_anew(server: RtspServer, side: Consumer) -> None:
    proxy = StallingProxy(server.port)
    feed = feed_of("front", settings(f"rtsp://127.0.0.1:{proxy.port}/live"))
    feed.open()
    consumer = Consumer(feed)
    eventually(lambda: consumer.taken > 10)
    watched = Watched(side)

    proxy.stall_after(1500)  # somewhere within a frame
    took_s = eventually(lambda: not feed.health().connected)
    assert took_s < 4
    assert "no frame for 1 s" in feed.health().trouble
    proxy.flow()
    comes_back(feed, consumer)

    watched.check()
    consumer.close()
    proxy.close()


def test_damaged_pictures_are_shown_as_corrupt_until_whole_ones_come_again(server: RtspServer) -> None:
    proxy = StallingProxy(server.port)
    feed = feed_of("front", settings(f"rtsp://127.0.0.1:{proxy.port}/live"))
    feed.open()
    seen: list[tuple[Vital, ...]] = []
    consumer = Consumer(feed, lambda lease: seen.append(lease.frame.vitals))
    eventually(lambda: consumer.taken > 20)
    assert set(seen) == {()}

    damaged_at = [0.0]

    def is_corrupt() -> bool:
        if time.monotonic() - damaged_at[-1] > 1.0:  # what is damaged once may do no harm
            proxy.damage(3)
            damaged_at.append(time.monotonic())
        return (Vital.CORRUPT,) in seen

    eventually(is_corrupt)
    proxy.damage(0)
    eventually(lambda: feed.health().connected and feed.health().raised == ())
    consumer.close()
    proxy.close()


def test_a_switch_of_resolution_within_the_stream_is_noticed_and_the_stream_opened_anew(
    server: RtspServer, side: Consumer
) -> None:
    feed = feed_of("front", settings(server.url))
    feed.open()
    consumer = Consumer(feed)
    eventually(lambda: consumer.taken > 10)
    watched = Watched(side)

    troubles: list[str] = []
    for number, (width, height) in enumerate(((640, 480), (160, 120)), start=1):
        server.switch_size(width, height)
        eventually(lambda: not feed.health().connected)
        troubles.append(feed.health().trouble)
        comes_back(feed, consumer)
        assert consumer.shapes[number:] == [(height, width, 3)]

    watched.check()
    assert all("changed the format of its pictures" in trouble for trouble in troubles)
    consumer.close()


def test_a_camera_that_comes_back_with_another_resolution_is_read_as_it_is(server: RtspServer) -> None:
    feed = feed_of("front", settings(server.url))
    feed.open()
    consumer = Consumer(feed)
    eventually(lambda: consumer.taken > 5)
    server.kill()
    server.start(640, 480)
    comes_back(feed, consumer)
    consumer.close()

    assert consumer.shapes == [(240, 320, 3), (480, 640, 3)]


def test_an_absent_camera_is_waited_for(side: Consumer) -> None:
    server = RtspServer(ports.free_port(), fps=FPS)
    feed = feed_of("front", settings(server.url))
    began = time.monotonic()
    feed.open()
    assert time.monotonic() - began < 1
    consumer = Consumer(feed)
    eventually(lambda: feed.health().restarts >= 2)
    assert "refused" in feed.health().trouble
    assert adds_up(feed.counts())

    server.start()
    comes_back(feed, consumer)
    consumer.close()
    server.kill()


def test_user_and_password_open_the_camera_and_show_nowhere(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    rtsp.needed()
    caplog.set_level(logging.DEBUG)
    password = "p@ss:w/rd-4711"
    server = RtspServer(fps=FPS, user="inspector", password=password).start()
    credentials = tmp_path / "credentials"
    credentials.write_text(f"inspector:{password}\n", encoding="utf-8")
    by_file = settings(server.url, credentials_file=str(credentials))
    feed = feed_of("front", by_file)
    feed.open()
    consumer = Consumer(feed)
    eventually(lambda: consumer.taken > 3)
    shown = [repr(by_file), repr(feed.health())]
    process = psutil.Process(feed.health().process_id)
    shown += [" ".join(process.cmdline()), repr(process.environ())]
    shown += command_lines()

    credentials.write_text(f"inspector:{password}-of-yesterday\n", encoding="utf-8")
    process.kill()
    eventually(lambda: "refused" in feed.health().trouble)
    shown.append(repr(feed.health()))
    credentials.write_text(f"inspector:{password}\n", encoding="utf-8")
    comes_back(feed, consumer)
    consumer.close()
    server.kill()

    assert password not in "".join(shown) + caplog.text
    assert "inspector" not in "".join(shown) + caplog.text.replace(str(tmp_path), "")
    assert "camera.disconnected" in [getattr(record, "event", "") for record in caplog.records]
    assert is_gone(process.pid)


def command_lines() -> list[str]:
    """Of every process but the server, which this test itself gives the password on its command line."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it may end while all are listed
            found.append(" ".join(process.cmdline()))
    return [words for words in found if "rtsp_server.py" not in words]
