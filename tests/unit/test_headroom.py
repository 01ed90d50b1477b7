"""How much memory may still be taken: the least of what the machine and each control group has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.deploy import gap, headroom

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("available_mb", "needed_mb", "keep_free_mb", "fits"),
    [
        (1000.0, 400.0, 64.0, True),
        (564.0, 400.0, 64.0, True),  # 400 with a quarter more, and 64 to spare
        (563.0, 400.0, 64.0, False),
        (100.0, 0.0, 64.0, True),
        (0.0, 1.0, 0.0, False),
        (None, 10_000.0, 64.0, True),
    ],
)
def test_a_second_session_fits_with_a_quarter_more_than_measured_and_room_to_spare(
    available_mb: float | None, needed_mb: float, keep_free_mb: float, fits: bool
) -> None:
    assert headroom.fits(available_mb, needed_mb, keep_free_mb) is fits


def group(folder: Path, most: str, used_mb: int, idle_file_mb: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used_mb * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 1\nactive_file 5\ninactive_file {idle_file_mb * MIB}\n")


def left_mb(tmp_path: Path) -> float | None:
    return headroom.available_mb(meminfo=tmp_path / "meminfo", own_group=tmp_path / "own", groups=tmp_path / "groups")


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A machine with 2,000 MB left; the agent is in two groups, one in the other, neither of which is bound."""
    (tmp_path / "meminfo").write_text(f"MemTotal: 9000000 kB\nMemFree: 1 kB\nMemAvailable:  {2000 * 1024} kB\n")
    (tmp_path / "own").write_text("12:cpu:/x\n0::/system.slice/lineside.service\n")
    for folder in (tmp_path / "groups" / "system.slice", tmp_path / "groups" / "system.slice" / "lineside.service"):
        group(folder, "max", 100)
    return tmp_path


def test_without_bounds_it_is_what_the_machine_has(device: Path) -> None:
    assert left_mb(device) == 2000.0


def test_the_agents_own_group_bounds_it(device: Path) -> None:
    group(device / "groups" / "system.slice" / "lineside.service", str(512 * MIB), 200)
    assert left_mb(device) == 312.0


def test_what_files_hold_that_nobody_reads_counts_as_free(device: Path) -> None:
    group(device / "groups" / "system.slice" / "lineside.service", str(512 * MIB), 400, idle_file_mb=150)
    assert left_mb(device) == 262.0


def test_a_group_above_bounds_it_too_and_the_least_counts(device: Path) -> None:
    group(device / "groups" / "system.slice" / "lineside.service", str(4096 * MIB), 200)
    group(device / "groups" / "system.slice", str(1024 * MIB), 900)
    assert left_mb(device) == 124.0


def test_a_group_that_is_over_its_bound_has_nothing_left(device: Path) -> None:
    group(device / "groups" / "system.slice" / "lineside.service", str(100 * MIB), 200)
    assert left_mb(device) == 0.0


def test_in_a_container_the_mount_is_the_own_group(device: Path) -> None:
    (device / "own").write_text("0::/../..\n")
    group(device / "groups", str(700 * MIB), 300)
    assert left_mb(device) == 400.0


@pytest.mark.parametrize("missing", ["meminfo", "own"])
def test_what_the_system_does_not_say_does_not_count(device: Path, missing: str) -> None:
    group(device / "groups" / "system.slice" / "lineside.service", str(512 * MIB), 200)
    (device / missing).unlink()
    assert left_mb(device) == (312.0 if missing == "meminfo" else 2000.0)


def test_where_nothing_is_said_nothing_is_known(tmp_path: Path) -> None:
    assert left_mb(tmp_path) is None


def test_this_machine_says_something() -> None:
    available = headroom.available_mb()
    assert available is None or available > 0


def test_the_gap_is_told_with_a_margin() -> None:
    assert gap.expected_s(2000.0) == pytest.approx(3.2)
    assert gap.expected_s(0.0) > 0
