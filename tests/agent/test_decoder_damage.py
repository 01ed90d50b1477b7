"""Damaged H.264: what the decoder says of it, how long it lasts, and what the picture itself shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.capture.decoder_damage import DamageWatch, tells_damage
from tests.support import damaged_video, vital_cases


def test_a_damaged_picture_is_told_by_the_decoders_log_until_the_next_that_stands_alone(
    shared_data: Path, tmp_path: Path
) -> None:
    clip, spoiled = shared_data / "video" / "car-detection.mp4", tmp_path / "damaged.mp4"
    damaged_video.damage(clip, spoiled, samples=[70], kind="flip", seed=1)

    told = vital_cases.read_logged(spoiled)

    assert len(told) == 377
    # A picture stands alone at 60, 120 and 180 of this clip.
    assert [number for number, damaged in enumerate(told) if damaged] == list(range(70, 120))


def test_a_whole_stream_is_never_told(shared_data: Path) -> None:
    assert not any(vital_cases.read_logged(shared_data / "video" / "cockatoo.mp4"))


def test_damage_is_told_by_the_log_or_at_least_at_first_by_the_picture(shared_data: Path, tmp_path: Path) -> None:
    clip, spoiled = shared_data / "video" / "car-detection.mp4", tmp_path / "damaged.mp4"
    outcomes = [vital_cases.damaged_stream(clip, spoiled, kind, seed=1, first=70) for kind in ("flip", "burst", "tail")]

    for outcome in outcomes:
        assert outcome.damaged > 30
        # Fresh smears are seen in the picture; what later pictures make of them is not.
        assert outcome.first_told, outcome
        assert outcome.by_picture >= 1, outcome
        assert outcome.false == 0
    # Where the decoder notices nothing, it says nothing.
    assert {outcome.by_log >= outcome.damaged * 0.9 for outcome in outcomes} == {True, False}


def test_damage_lasts_until_a_picture_stands_alone_long_enough_after_it() -> None:
    watch = DamageWatch()
    assert not watch.see(complained=False, stands_alone=True)

    assert watch.see(complained=True, stands_alone=False)
    # It comes out so soon that it may be the one the decoder complained of.
    assert watch.see(complained=False, stands_alone=True)
    assert all(watch.see(complained=False, stands_alone=False) for _ in range(20))
    assert not watch.see(complained=False, stands_alone=True)
    assert not watch.see(complained=False, stands_alone=False)


def test_damage_ends_by_itself_where_no_picture_ever_stands_alone() -> None:
    watch = DamageWatch(longest=10)
    told = [watch.see(complained=number == 0, stands_alone=False) for number in range(15)]

    assert told == [True] * 11 + [False] * 4


@pytest.mark.parametrize(
    ("line", "damage"),
    [
        (b"[h264 @ 0x1] error while decoding MB 3 1, bytestream 1555", True),
        (b"[h264 @ 0x1] concealing 1170 DC, 1170 AC, 1170 MV errors in I frame", True),
        (b"[hevc @ 0x1] Could not find ref with POC 12", True),
        (b"[h264 @ 0x1] non-existing PPS 0 referenced", True),
        (b"[h264 @ 0x1] Format yuv420p chosen by get_format().", False),
        (b"[rtsp @ 0x1] method SETUP failed: 461 Unsupported transport", False),
        (b"", False),
    ],
)
def test_only_complaints_of_damage_are_damage(line: bytes, damage: bool) -> None:
    assert tells_damage(line) is damage
