"""When there is no room, the draw decides which pictures stay, so that what stays is still a known sample."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.uplink.outbox import Outbox
from agent.uplink.picture_spool import PictureSpool
from tests.support import records
from wire import sampling
from wire.errors import LinesideError
from wire.messages import Lane
from wire.sampling import Draw

NOON = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


def picture(n: int, length: int = 1000) -> tuple[str, bytes]:
    data = random.Random(n).randbytes(length)
    return hashlib.sha256(data).hexdigest(), data


def draw(u: float, pi: float = 0.5) -> Draw:
    return Draw(plan_revision=1, stratum="all", pi=pi, u=u, kept=True)


def names(folder: Path) -> set[str]:
    return {path.name.split("_")[0] for path in folder.iterdir() if path.name != "windows.json"}


@pytest.mark.parametrize("bounds", [{"max_bytes": 3500}, {"max_bytes": 10**6, "max_count": 3}])
def test_a_full_folder_drops_the_largest_u_by_pi_old_or_new_and_publishes_tau(
    tmp_path: Path, bounds: dict[str, int]
) -> None:
    spool = PictureSpool(tmp_path, **bounds)
    assert all(spool.take(*picture(n), draw(u), NOON) for n, u in enumerate([0.4, 0.1, 0.2]))
    assert not spool.take(*picture(3), draw(0.45), NOON), "the new one has the largest"
    assert spool.windows()[0].tau == pytest.approx(0.9)
    assert spool.take(*picture(4), draw(0.05), NOON), "an old one has the largest"
    assert names(tmp_path) == {picture(n)[0] for n in (1, 2, 4)}
    assert spool.take(*picture(5), draw(0.35, pi=1.0), NOON), "u/pi counts, not u"
    (window,) = spool.windows()
    assert (window.dropped, window.gate_trimmed) == (3, False)
    assert window.tau == pytest.approx(0.4)
    assert window.start == NOON.replace(minute=0)
    assert (len(spool), spool.bytes, spool.dropped) == (3, 3000, 3)
    assert spool.take(*picture(4), draw(0.05), NOON), "one that waits already needs no room"


def test_the_gates_sample_goes_last_and_an_hour_that_lost_some_says_so(tmp_path: Path) -> None:
    spool = PictureSpool(tmp_path, max_bytes=10**6, max_count=3)
    for n, u in enumerate([0.019, 0.4, 0.015]):
        spool.take(*picture(n), draw(u), NOON, gate_rate=0.02)
    spool.take(*picture(3), draw(0.018), NOON + timedelta(hours=1), gate_rate=0.02)
    assert names(tmp_path) == {picture(n)[0] for n in (0, 2, 3)}
    assert [window.gate_trimmed for window in spool.windows()] == [False]
    assert not spool.take(*picture(4), draw(0.0195), NOON + timedelta(hours=1), gate_rate=0.02)
    assert [window.gate_trimmed for window in spool.windows()] == [False, True]


def test_what_waits_and_what_went_survive_a_restart(tmp_path: Path) -> None:
    first = PictureSpool(tmp_path, max_bytes=10**6, max_count=3)
    for n, u in enumerate([0.4, 0.1, 0.2, 0.3]):
        first.take(*picture(n), draw(u), NOON, gate_rate=0.15)
    (tmp_path / f"{'a' * 64}.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"not ours")
    again = PictureSpool(tmp_path, max_bytes=10**6, max_count=3)
    assert again.windows() == first.windows()
    assert len(again) == 3
    again.take(*picture(9), draw(0.05), NOON, gate_rate=0.15)
    assert names(tmp_path) == {picture(n)[0] for n in (1, 2, 9)}, "the ranks were forgotten"


def test_an_estimate_from_what_stayed_is_right_and_keeping_the_newest_would_not_be(tmp_path: Path) -> None:
    """Defects come at the end of an outage: who keeps the newest pictures sees far too many of them."""
    rng = random.Random(7)
    truth, estimates = 0, []
    for run in range(12):
        spool = PictureSpool(tmp_path / str(run), max_bytes=10**9, max_count=150)
        defects = {}
        for n in range(4000):
            pi = 0.3 if rng.random() < 0.2 else 0.1
            one = Draw(plan_revision=1, stratum="all", pi=pi, u=rng.random(), kept=True)
            digest = hashlib.sha256(f"{run} {n}".encode()).hexdigest()
            is_defect = rng.random() < (0.2 if n > 3600 else 0.01)
            truth += is_defect
            if one.u < one.pi:
                spool.take(digest, b"x", one, NOON)
                defects[digest] = (is_defect, one)
        (window,) = spool.windows()
        stayed = [defects[name] for name in names(tmp_path / str(run))]
        assert all(one.u / one.pi < window.tau for _, one in stayed)
        estimates.append(sum(is_defect / min(1.0, one.pi * window.tau) for is_defect, one in stayed))
    assert sum(estimates) == pytest.approx(truth, rel=0.15)


def test_records_take_the_room_of_pictures_before_any_record_is_dropped(tmp_path: Path) -> None:
    spool = PictureSpool(tmp_path / "pictures", max_bytes=4 * 2**20)
    for n in range(40):
        spool.take(*picture(n, 100_000), draw(n / 100), NOON)
    box = Outbox(tmp_path / "o.db", SystemClock(), device="cell-1", max_bytes=2**20)
    box.borrow_from(spool)
    while len(spool):
        box.put_inspection(records.inspection(), line_run=None)
        assert box.stats().dropped_by_lane[Lane.INSPECTIONS] == 0, "a record went before the pictures"
    assert spool.windows()[0].tau == 0.0
    while not box.stats().dropped_by_lane[Lane.INSPECTIONS]:
        box.put_inspection(records.inspection(), line_run=None)
    assert box.stats().bytes > 4 * 2**20, "the room of the pictures was not used"
    box.unsend_all()
    box.close()


def test_the_room_goes_back_to_the_pictures_when_the_records_are_settled(tmp_path: Path) -> None:
    spool = PictureSpool(tmp_path / "pictures", max_bytes=4 * 2**20)
    box = Outbox(tmp_path / "o.db", SystemClock(), device="cell-1", max_bytes=2**20)
    box.borrow_from(spool)
    while box.stats().bytes < 3 * 2**20:
        box.put_inspection(records.inspection(), line_run=None)
    assert spool.take(*picture(1, 500_000), draw(0.1), NOON)
    assert not spool.take(*picture(2, 3_000_000), draw(0.1), NOON)
    epoch = box.epoch
    box.settle(epoch, Lane.INSPECTIONS, [records.seq_range(1, 10**6)])
    for _ in range(300):
        box.put_inspection(records.inspection(), line_run=None)
    assert spool.take(*picture(3, 3_000_000), draw(0.1), NOON)
    box.close()


def test_a_disk_that_takes_nothing_costs_a_picture_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = PictureSpool(tmp_path, max_bytes=10**6)
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(LinesideError) as caught:
        spool.take(*picture(1), draw(0.1), NOON)
    assert caught.value.code == "storage.full"
    assert (len(spool), spool.bytes, spool.dropped) == (0, 0, 1)
    assert spool.windows()[0].tau == pytest.approx(0.2)


def test_the_draw_of_a_real_plan_fits(tmp_path: Path) -> None:
    plan = sampling.SamplingPlan(revision=1, salt="00" * 16, floor_rate=0.5, gate_rate=0.1)
    spool = PictureSpool(tmp_path, max_bytes=10**6)
    kept = [one for one in (sampling.draw(plan, f"id-{n}") for n in range(100)) if one.kept]
    assert all(spool.take(*picture(n), one, NOON, gate_rate=0.1) for n, one in enumerate(kept))


def test_a_picture_outside_of_the_plan_goes_first_and_no_tau_knows_of_it(tmp_path: Path) -> None:
    spool = PictureSpool(tmp_path, max_bytes=10**6, max_count=3)
    assert spool.take(*picture(0), None, NOON)
    for n, u in enumerate([0.4, 0.1], start=1):
        assert spool.take(*picture(n), draw(u), NOON)
    assert spool.take(*picture(3), draw(0.49), NOON), "the worst claim of the sample goes before an extra picture's"
    assert names(tmp_path) == {picture(n)[0] for n in (1, 2, 3)}
    assert not spool.take(*picture(4), None, NOON), "an extra picture took the room of the sample"
    assert spool.windows() == (), "the sample is not smaller than before"
    assert spool.dropped == 2


def test_an_extra_picture_that_turns_out_to_be_of_the_sample_goes_by_its_draw_from_then_on(tmp_path: Path) -> None:
    spool = PictureSpool(tmp_path, max_bytes=10**6, max_count=2)
    spool.take(*picture(0), None, NOON)
    spool.take(*picture(0), draw(0.1), NOON)
    spool.take(*picture(1), draw(0.2), NOON)
    again = PictureSpool(tmp_path, max_bytes=10**6, max_count=2)
    assert not again.take(*picture(2), draw(0.3), NOON)
    assert names(tmp_path) == {picture(n)[0] for n in (0, 1)}
    again.take(*picture(1), None, NOON)
    assert not again.take(*picture(3), None, NOON), "a picture of the sample lost its claim"


def test_an_upload_that_finds_its_file_renamed_forgets_nothing(tmp_path: Path) -> None:
    spool = PictureSpool(tmp_path, max_bytes=10**6)
    spool.take(*picture(0), None, NOON)
    oldest = spool.oldest()
    assert oldest is not None
    spool.take(*picture(0), draw(0.1), NOON)
    spool.forget(*oldest)
    assert len(spool) == 1
    assert spool.oldest() != oldest
