"""A folder that another program fills: each finished picture is one frame, in order, and none is taken half-written."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.capture.camera import Exposure
from agent.capture.frame import NoFrame, TimeClass, Vital
from agent.capture.settings import SourceSettings
from agent.capture.watched_folder import WatchedFolder
from tests.support.cameras import Consumer, eventually, feed_of
from wire.errors import LinesideError


def png(level: int) -> bytes:
    return cv2.imencode(".png", np.full((24, 32, 3), level, dtype=np.uint8))[1].tobytes()


def jpeg() -> bytes:
    return cv2.imencode(".jpg", np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))[1].tobytes()


def taken(folder: WatchedFolder, timeout_s: float = 3.0) -> tuple[Exposure, np.ndarray | None]:
    exposure = folder.grab(timeout_s)
    assert isinstance(exposure, Exposure), exposure
    return exposure, folder.retrieve(None)


def test_only_what_comes_after_it_was_opened_is_a_frame_and_in_the_order_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(png(1))
    folder = WatchedFolder(str(tmp_path))
    folder.open()
    for number, name in enumerate(("z.png", "a.png", "m.png")):
        (tmp_path / name).write_bytes(png(10 * number + 10))
        os.utime(tmp_path / name, ns=(0, 10**18 + number))
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    (tmp_path / ".hidden.png").write_bytes(png(99))

    levels = [int(picture.mean()) for _, picture in (taken(folder) for _ in range(3)) if picture is not None]

    assert levels == [10, 20, 30]
    assert folder.grab(0.1) == NoFrame(reason="no new picture", expected=True)


def test_a_file_written_over_is_a_new_picture(tmp_path: Path) -> None:
    folder = WatchedFolder(str(tmp_path))
    folder.open()
    for level in (10, 20):
        (tmp_path / "latest.png").write_bytes(png(level))
        _, picture = taken(folder)
        assert picture is not None
        assert int(picture.mean()) == level


def test_a_picture_is_not_taken_before_it_is_finished_and_those_behind_it_wait(tmp_path: Path) -> None:
    whole = jpeg()
    folder = WatchedFolder(str(tmp_path))
    folder.open()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    assert isinstance(folder.grab(0.2), NoFrame)
    (tmp_path / "b.png").write_bytes(png(50))
    assert isinstance(folder.grab(0.2), NoFrame)

    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(whole[len(whole) // 2 :])
    os.utime(tmp_path / "a.jpg", ns=(0, 10**18))
    exposure, picture = taken(folder)

    assert exposure.vitals == ()
    assert picture is not None
    assert picture.shape == (64, 64, 3)
    assert np.array_equal(picture, cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR))


def test_a_picture_that_is_never_finished_is_shown_as_corrupt(tmp_path: Path) -> None:
    whole = jpeg()
    folder = WatchedFolder(str(tmp_path))
    folder.open()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])

    exposure, _ = taken(folder)

    assert exposure.vitals == (Vital.CORRUPT,)


def test_pictures_are_removed_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = WatchedFolder(str(tmp_path), remove=True)
    folder.open()
    (tmp_path / "a.png").write_bytes(png(10))
    taken(folder)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_or_holds_too_much_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LinesideError, match="cannot be read"):
        WatchedFolder(str(tmp_path / "absent")).open()

    monkeypatch.setattr("agent.capture.watched_folder._MOST_FILES", 3)
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(1))
    with pytest.raises(LinesideError, match="over 3 pictures"):
        WatchedFolder(str(tmp_path)).open()


def test_as_a_source_it_outlives_its_folder_and_a_picture_that_is_none(tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    feed = feed_of("front", SourceSettings(kind="watched_folder", path=str(watched), read_timeout_s=0.5))
    info = feed.open()
    consumer = Consumer(feed)
    eventually(lambda: feed.health().connected)
    (watched / "a.png").write_bytes(png(10))
    eventually(lambda: consumer.taken == 1)
    (watched / "b.png").write_bytes(b"no picture, though it ends in IEND")
    (watched / "c.png").write_bytes(png(30))
    eventually(lambda: consumer.taken == 2)

    shutil.rmtree(watched)
    eventually(lambda: not feed.health().connected)
    assert "cannot be read" in feed.health().trouble
    watched.mkdir()
    eventually(lambda: feed.health().connected)
    time.sleep(0.05)
    (watched / "d.png").write_bytes(png(40))
    eventually(lambda: consumer.taken == 3)
    counts = consumer.close()

    assert info.time_class is TimeClass.ARRIVAL_ONLY
    assert (counts.used, counts.dropped) == (3, {"unreadable": 1})
