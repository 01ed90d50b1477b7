"""A clip that is read as fast as it can be has no idle core to lend a candidate; one that is played at a pace has."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.capture.encode import PictureKeeper
from agent.capture.reference import ReferenceStore
from agent.capture.settings import SourceSettings
from agent.inspection.changeover import tell_nobody
from agent.inspection.records import TimeQuality
from agent.inspection.stations import Stations
from agent.line.settings import LineSettings
from agent.settings import RuntimeSettings, StationSettings, ViewSettings
from agent.station_assembly import Shared, Station, assemble
from agent.threads import Worker
from agent.vision.runtime import RuntimeOptions
from tests.support.shadowing import MODEL, OfferingSpool, ShadowStand, stand
from wire.inspection import TimeSource
from wire.messages import ShadowHealth
from wire.mint import Mint

PICTURES = 80


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures whose decoder takes some 20 ms for each."""
    folder = tmp_path / "clip"
    folder.mkdir()
    noise = np.random.default_rng(7).integers(0, 255, (720, 1280, 3), np.uint8)
    cv2.imwrite(str(folder / "000.png"), noise)
    for number in range(1, PICTURES):
        shutil.copyfile(folder / "000.png", folder / f"{number:03}.png")
    return folder


@contextlib.contextmanager
def clip_of(made: ShadowStand, pictures: Path, frames_per_s: float | None) -> Iterator[Station]:
    """A station of one thread that reads the pictures, with a version in use and a candidate for every part."""
    source = SourceSettings(kind="folder", path=str(pictures), frames_per_s=frames_per_s)
    settings = StationSettings(
        id="clip",
        line=LineSettings(kind="each_frame", mode="production"),
        views=(ViewSettings(id="top", model=MODEL, source=source),),
        deadline_ms=20_000.0,
    )
    shared = Shared(
        device="press-1",
        clock=made.clock,
        mint=Mint(),
        outbox=made.outbox,
        pictures=PictureKeeper(OfferingSpool(made.spool)),
        references=ReferenceStore(made.folder / "references"),
        turns=made.turns,
        runtime=RuntimeSettings(station_threads=1),
        sampling_salt="00" * 16,
        time_quality=lambda: TimeQuality(source=TimeSource.FREE_RUNNING),
        tell=tell_nobody,
        shadows=made.shadows,
    )
    station = assemble(settings, shared)
    thread = Worker("station-clip", station.worker.run)
    thread.start()
    try:
        made.candidate(made.version(release=2))
        Stations({"clip": station.worker}, RuntimeOptions(), lambda _model, _digest: None).activate(made.version())
        yield station  # which waited for its model until now: the candidate is offered the whole clip
    finally:
        assert thread.join(10)
        station.stop_line()
        station.close_cameras()


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.01)


def account_of(made: ShadowStand) -> ShadowHealth:
    (account,) = made.shadows.health("clip")
    return account


def test_a_clip_read_as_fast_as_it_can_be_lends_no_core_while_its_thread_waits_for_the_decoder(
    tmp_path: Path, pictures: Path
) -> None:
    with stand(tmp_path) as made, clip_of(made, pictures, None) as station:
        wait_for(lambda: bool(made.shadows.health("clip")) and account_of(made).chosen > PICTURES / 2)
        account = account_of(made)
        assert not station.worker.ended.is_set()
        assert account.compared == 0, account
        assert set(account.skipped) <= {"busy", "no_core"}


def test_a_clip_played_at_a_pace_lends_its_core_between_two_parts(tmp_path: Path, pictures: Path) -> None:
    with stand(tmp_path) as made, clip_of(made, pictures, 12.0):
        wait_for(lambda: bool(made.shadows.health("clip")) and account_of(made).compared > 0)


def test_once_a_clip_has_ended_its_core_is_lent_again(tmp_path: Path, pictures: Path) -> None:
    with stand(tmp_path) as made:
        with clip_of(made, pictures, None) as station:
            assert station.worker.ended.wait(60)
        wait_for(lambda: made.turns.borrow(lambda: None))
        made.turns.end_borrowing()
