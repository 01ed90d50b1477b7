"""Every frame ends in exactly one account, whoever takes it and whenever."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.capture.accounts import FrameCounts
from agent.capture.feed import Feed, Lease
from agent.capture.folder import FolderSource
from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass
from agent.capture.video import VideoSource
from wire.errors import LinesideError

PICTURE = np.zeros((4, 4, 3), dtype=np.uint8)


def frame(number: int) -> Frame:
    return Frame(
        camera="c", number=number, exposed_utc=datetime(2026, 1, 1, tzinfo=UTC), exposed_ns=number, image_bgr=PICTURE
    )


class Scripted:
    """A source that gives what a test puts into it."""

    def __init__(self, *, live: bool) -> None:
        self.answers: queue.Queue[Frame | NoFrame | Ended | Exception] = queue.Queue()
        self.live = live
        self.closed = 0

    def open(self) -> SourceInfo:
        return SourceInfo(camera="c", time_class=TimeClass.DEVICE_TIMESTAMPED, live=self.live)

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        try:
            answer = self.answers.get(timeout=min(timeout_s, 0.02))
        except queue.Empty:
            return NoFrame(reason="nothing came")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed += 1


def eventually(condition: Callable[[], bool]) -> None:
    ticker = threading.Event()
    for _ in range(500):
        if condition():
            return
        ticker.wait(0.01)
    pytest.fail("it did not happen within 5 s")


def taken(feed: Feed, timeout_s: float = 5.0) -> Lease:
    answer = feed.take(timeout_s)
    assert isinstance(answer, Lease), answer
    return answer


def adds_up(counts: FrameCounts) -> bool:
    return counts.frames_in == counts.used + counts.not_triggered + sum(counts.dropped.values()) + counts.waiting


def test_latest_gives_the_newest_frame_and_counts_the_replaced() -> None:
    source = Scripted(live=True)
    feed = Feed(source, policy="latest")
    feed.open()
    for number in range(5):
        source.answers.put(frame(number))
    eventually(lambda: feed.counts().frames_in == 5)

    with taken(feed) as lease:
        assert lease.frame.number == 4
        assert feed.counts().waiting == 1

    assert feed.counts() == FrameCounts(frames_in=5, used=1, not_triggered=0, dropped={"replaced": 4}, waiting=0)
    feed.close()


def test_every_keeps_the_order_and_counts_the_overflow() -> None:
    source = Scripted(live=True)
    feed = Feed(source, policy="every", capacity=3)
    feed.open()
    for number in range(5):
        source.answers.put(frame(number))
    eventually(lambda: feed.counts().frames_in == 5)

    numbers = []
    for _ in range(3):
        with taken(feed) as lease:
            numbers.append(lease.frame.number)

    assert numbers == [0, 1, 2]
    assert feed.counts() == FrameCounts(frames_in=5, used=3, not_triggered=0, dropped={"overflow": 2}, waiting=0)
    feed.close()


def test_a_frame_of_no_part_is_counted_once_even_if_released_again() -> None:
    source = Scripted(live=True)
    feed = Feed(source, policy="every")
    feed.open()
    source.answers.put(frame(0))

    with taken(feed) as lease:
        lease.not_used()
    lease.release()

    assert feed.counts() == FrameCounts(frames_in=1, used=0, not_triggered=1, dropped={}, waiting=0)
    feed.close()


def test_closing_counts_what_nobody_took_and_closes_the_source_once() -> None:
    source = Scripted(live=True)
    feed = Feed(source, policy="every")
    feed.open()
    source.answers.put(frame(0))
    source.answers.put(frame(1))
    eventually(lambda: feed.counts().frames_in == 2)

    feed.close()
    feed.close()

    assert feed.counts() == FrameCounts(frames_in=2, used=0, not_triggered=0, dropped={"closed": 2}, waiting=0)
    assert source.closed == 1
    assert feed.take(0.0) == Ended()


def test_frames_that_wait_come_before_the_end() -> None:
    source = Scripted(live=True)
    feed = Feed(source, policy="every")
    feed.open()
    source.answers.put(frame(0))
    source.answers.put(Ended())

    taken(feed).release()

    assert feed.take(5.0) == Ended()
    feed.close()


def test_the_trouble_of_the_source_is_what_take_says() -> None:
    source = Scripted(live=True)
    feed = Feed(source)
    feed.open()
    said: list[str] = []

    def trouble() -> bool:
        source.answers.put(LinesideError("source.unavailable", "The cable is out."))  # and stays out
        answer = feed.take(0.01)
        said.append(answer.reason if isinstance(answer, NoFrame) else "")
        return "The cable is out." in said

    eventually(trouble)
    feed.close()


def test_a_source_that_breaks_is_read_again() -> None:
    source = Scripted(live=True)
    feed = Feed(source)
    feed.open()
    source.answers.put(ZeroDivisionError("a driver's own fault"))
    source.answers.put(frame(0))

    assert taken(feed).frame.number == 0
    assert feed.worker is not None
    assert feed.worker.failures == 1
    feed.close()


def test_several_takers_account_for_every_frame() -> None:
    source = Scripted(live=False)
    for number in range(200):
        source.answers.put(NoFrame(reason="torn") if number % 10 == 9 else frame(number))
    source.answers.put(Ended())
    feed = Feed(source)
    feed.open()
    numbers: list[int] = []

    def take_all() -> None:
        while not isinstance(answer := feed.take(1.0), Ended):
            if isinstance(answer, Lease):
                with answer:
                    numbers.append(answer.frame.number)
            assert adds_up(feed.counts())

    takers = [threading.Thread(target=take_all) for _ in range(3)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(10)
    feed.close()

    assert sorted(numbers) == [number for number in range(200) if number % 10 != 9]
    assert feed.counts() == FrameCounts(frames_in=200, used=180, not_triggered=0, dropped={"unreadable": 20}, waiting=0)


def test_a_folder_gives_its_pictures_in_order_and_names_what_cannot_be_read(tmp_path: Path) -> None:
    for name, level in (("b.png", 20), ("a.PNG", 10), ("d.jpg", 40)):
        cv2.imwrite(str(tmp_path / name), np.full((6, 8, 3), level, dtype=np.uint8))
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    (tmp_path / "e.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a picture", encoding="utf-8")
    (tmp_path / ".hidden.png").write_bytes(b"")
    source = FolderSource(tmp_path, "c")
    feed = Feed(source)
    assert feed.open().frame_count == 5

    seen: list[object] = []
    while not isinstance(answer := feed.take(1.0), Ended):
        if isinstance(answer, Lease):
            with answer:
                seen.append((source.name_of(answer.frame.number), int(answer.frame.image_bgr.mean())))
        else:
            seen.append(answer.reason)

    assert seen == [
        ("a.PNG", 10),
        ("b.png", 20),
        "c.jpg is not a picture that can be decoded",
        ("d.jpg", 40),
        "e.png is not a picture that can be decoded",
    ]
    assert feed.counts() == FrameCounts(frames_in=5, used=3, not_triggered=0, dropped={"unreadable": 2}, waiting=0)
    feed.close()


@pytest.mark.parametrize(("every_nth", "expected"), [(1, list(range(10))), (4, [0, 4, 8]), (9, [0, 9]), (50, [0])])
def test_a_video_gives_every_nth_frame_with_its_own_number(tmp_path: Path, every_nth: int, expected: list[int]) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for number in range(10):
        writer.write(np.full((24, 32, 3), 20 * number, dtype=np.uint8))
    writer.release()
    source = VideoSource(path, "c", every_nth=every_nth)
    source.open()

    frames = []
    while not isinstance(answer := source.read(1.0), Ended):
        assert isinstance(answer, Frame)
        frames.append(answer)

    assert [found.number for found in frames] == expected
    assert all(abs(float(found.image_bgr.mean()) - 20 * found.number) < 3 for found in frames)
    source.close()
    source.close()


@pytest.mark.parametrize("kind", [FolderSource, VideoSource])
def test_a_source_that_is_not_there_is_an_error(kind: type[FolderSource | VideoSource], tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as refused:
        kind(tmp_path / "absent", "c").open()

    assert refused.value.code == "source.unavailable"


def test_what_is_no_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video" * 100)

    with pytest.raises(LinesideError) as refused:
        VideoSource(tmp_path / "clip.mp4", "c").open()

    assert refused.value.code == "source.unreadable"


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as refused:
        FolderSource(tmp_path, "c").open()

    assert refused.value.code == "source.unreadable"
