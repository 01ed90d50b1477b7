"""What the soak measures: growth is told from coming and going, and shared memory is found however it is held."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from scripts import footprint, soak_line


@pytest.mark.parametrize(
    ("values", "grows"),
    [
        ([5, 5, 5, 5, 5, 5], False),
        ([5, 6, 5, 6, 5, 6], False),
        ([5, 6, 7, 8, 9, 10], True),
        ([9, 5, 5, 5, 5, 9], False),
        ([5, 5, 5, 5, 6, 6], True),
        ([6, 6, 6, 5, 5, 5], False),
    ],
)
def test_growth_is_what_only_comes(values: list[float], grows: bool) -> None:
    assert (footprint.growth(values) > 0) is grows


def test_a_slope_survives_single_peaks() -> None:
    minutes = [float(minute) for minute in range(10)]
    steady = [100.0] * 10
    steady[4] = 180.0
    assert footprint.slope_per_minute(minutes, steady) == 0.0
    leaking = [100.0 + 3 * minute for minute in minutes]
    leaking[7] = 0.0
    assert footprint.slope_per_minute(minutes, leaking) == pytest.approx(3.0)


def test_shared_memory_is_counted_once_whether_open_or_only_mapped() -> None:
    before = footprint.segments_of(os.getpid())
    descriptor = os.memfd_create("lineside-test")
    os.truncate(descriptor, 4096)
    assert len(footprint.segments_of(os.getpid()) - before) == 1
    with mmap.mmap(descriptor, 4096):
        assert len(footprint.segments_of(os.getpid()) - before) == 1
        os.close(descriptor)
        assert len(footprint.segments_of(os.getpid()) - before) == 1
    assert footprint.segments_of(os.getpid()) == before


def test_an_unlinked_file_is_shared_memory_too() -> None:
    before = footprint.segments_of(os.getpid())
    with tempfile.TemporaryFile() as stream:
        stream.write(b"frame")
        stream.flush()
        assert len(footprint.segments_of(os.getpid()) - before) == 1


def test_a_named_segment_that_stays_is_seen() -> None:
    before = footprint.named_segments()
    path = footprint.DEV_SHM / f"lineside-test-{os.getpid()}"
    path.write_bytes(b"left behind")
    try:
        assert str(path) in footprint.named_segments() - before
    finally:
        path.unlink()


def test_a_look_counts_the_children(tmp_path: Path) -> None:
    alone = footprint.look(os.getpid())
    child = subprocess.Popen(
        [sys.executable, "-c", "held = bytearray(b'x') * 2**24; print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    together = footprint.look(os.getpid())
    child.communicate(b"\n")
    assert together.processes == alone.processes + 1
    assert together.tree_threads > alone.tree_threads
    assert together.tree_descriptors >= alone.tree_descriptors + 3
    assert together.tree_mb > alone.tree_mb + 16


def test_the_soak_tells_a_leak_of_one_a_fault_from_a_steady_agent() -> None:
    def look(**changed: float) -> footprint.Footprint:
        steady: dict[str, float] = {
            "processes": 5,
            "rss_mb": 120.0,
            "tree_mb": 200.0,
            "threads": 18,
            "descriptors": 26,
            "tree_threads": 26,
            "tree_descriptors": 54,
            "segments": 4,
        }
        return footprint.Footprint(**{**steady, **changed})  # type: ignore[arg-type]

    steady = soak_line.Samples()
    steady.looks = [look(rss_mb=120.0 + number % 3, descriptors=26 + number % 2) for number in range(12)]
    leaking = soak_line.Samples()
    leaking.looks = [look(segments=4 + number // 2, rss_mb=120.0 + 2 * number) for number in range(12)]
    for samples in (steady, leaking):
        samples.minutes = [number / 4 for number in range(12)]
    assert soak_line.what_grew(steady.report()) == []
    assert soak_line.what_grew(leaking.report()) == ["segments grew by 3", "rss_mb grew by 10"]
