"""Pictures wait in a bounded folder until the fleet has them."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.capture.encode import PictureOfPart
from agent.clock import SystemClock
from agent.uplink.fleet_api import ApiError
from agent.uplink.picture_spool import PictureSpool
from agent.uplink.pictures import PictureUploader
from wire.errors import LinesideError
from wire.sampling import Draw


class Shelf:
    """Takes blobs, or fails as it is told."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.attempts: list[str] = []
        self.refuse: Callable[[str], LinesideError | None] = lambda digest: None
        self.lock = threading.Lock()

    def put_blob(self, digest: str, data: bytes) -> bool:
        with self.lock:
            self.attempts.append(digest)
            if (error := self.refuse(digest)) is not None:
                raise error
            known = digest in self.blobs
            self.blobs[digest] = data
            return not known


def picture(n: int, length: int = 1000) -> tuple[str, bytes]:
    data = random.Random(n).randbytes(length)
    return hashlib.sha256(data).hexdigest(), data


NOON = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


def part(u: float = 0.001, *, pi: float = 0.5, gate_rate: float = 0.0, at: datetime = NOON) -> PictureOfPart:
    draw = Draw(plan_revision=1, stratum="all", pi=pi, u=u, kept=True)
    return PictureOfPart(draw=draw, at=at, gate_rate=gate_rate)


def uploader(folder: Path, shelf: Shelf) -> PictureUploader:
    spool = PictureSpool(folder, max_bytes=1_000_000)
    return PictureUploader(spool, shelf, SystemClock(), retry_first_s=0.01, retry_most_s=0.05, rng=random.Random(1))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "still waiting"
        time.sleep(0.005)


def test_pictures_are_uploaded_and_leave_the_folder(tmp_path: Path) -> None:
    shelf = Shelf()
    pictures = uploader(tmp_path / "spool", shelf)
    pictures.start()
    wanted = dict(picture(n) for n in range(20))
    assert all(pictures.offer(digest, data, part()) for digest, data in wanted.items())
    until(lambda: pictures.stats().waiting == 0)
    pictures.stop()
    assert shelf.blobs == wanted
    assert list((tmp_path / "spool").iterdir()) == []
    assert pictures.stats().uploaded == 20
    assert pictures.stats().waiting_bytes == 0


def test_pictures_survive_a_restart_and_go_in_their_order(tmp_path: Path) -> None:
    shelf = Shelf()
    first = uploader(tmp_path, shelf)
    wanted = [picture(n) for n in range(5)]
    for digest, data in wanted:
        first.offer(digest, data, part())
        time.sleep(0.002)
    (tmp_path / f"{'a' * 64}.part").write_bytes(b"half")
    second = uploader(tmp_path, shelf)
    assert second.stats().waiting == 5
    second.start()
    until(lambda: second.stats().waiting == 0)
    second.stop()
    assert shelf.attempts == [digest for digest, _ in wanted]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503, None])
def test_a_passing_trouble_keeps_the_picture(tmp_path: Path, status: int | None) -> None:
    shelf = Shelf()
    tries: list[str] = []
    shelf.refuse = lambda digest: (
        ApiError("network.unreachable", "x", status=status) if len(tries) < 3 and not tries.append(digest) else None
    )
    pictures = uploader(tmp_path, shelf)
    pictures.start()
    pictures.offer(*picture(1), part())
    until(lambda: pictures.stats().uploaded == 1)
    pictures.stop()
    assert pictures.stats().failed_attempts == 3


def test_a_refused_picture_is_dropped_and_one_that_always_fails_holds_up_no_other(tmp_path: Path) -> None:
    shelf = Shelf()
    refused, sick, good = picture(1), picture(2), picture(3)
    errors = {
        refused[0]: ApiError("request.too_large", "x", status=413),
        sick[0]: ApiError("network.bad_answer", "x", status=500),
    }
    shelf.refuse = errors.get
    pictures = uploader(tmp_path, shelf)
    for digest, data in (refused, sick, good):
        pictures.offer(digest, data, part())
    pictures.start()
    until(lambda: pictures.stats().uploaded == 1)
    pictures.stop()
    stats = pictures.stats()
    assert (stats.dropped_refused, stats.waiting) == (1, 1)
    assert set(shelf.blobs) == {good[0]}


def test_a_picture_spoilt_by_a_power_cut_is_never_uploaded(tmp_path: Path) -> None:
    digest, data = picture(1)
    shelf = Shelf()
    pictures = uploader(tmp_path, shelf)
    pictures.offer(digest, data, part())
    (file,) = tmp_path.iterdir()
    file.write_bytes(data[:-1] + b"\0")
    pictures.start()
    until(lambda: pictures.stats().dropped_damaged == 1)
    pictures.stop()
    assert shelf.attempts == []
    assert list(tmp_path.iterdir()) == []
