"""What is measured of the device, its processes, its throttling and its clock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.health import time_quality
from agent.health.probes import Probes
from agent.health.throttling import Throttling


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.mark.parametrize(
    ("word", "throttled"),
    [("0", False), ("50000", False), ("4", True), ("1", True), ("50005", True)],
)
def test_a_raspberry_pis_word_tells_of_now_by_its_low_bits(tmp_path: Path, word: str, *, throttled: bool) -> None:
    write(tmp_path / "devices/platform/soc/soc:firmware/get_throttled", word)
    assert Throttling(tmp_path).read() is throttled


@pytest.mark.parametrize(
    ("kind", "state", "throttled"),
    [
        ("Processor", "0", False),
        ("Processor", "3", True),
        ("cpufreq-cpu0", "1", True),
        ("intel_powerclamp", "-1", False),
        ("pwm-fan", "4", None),  # a fan slows nothing down
        ("Processor", "broken", None),
    ],
)
def test_a_cooling_device_tells_where_it_slows_the_processor(
    tmp_path: Path, kind: str, state: str, *, throttled: bool | None
) -> None:
    write(tmp_path / "class/thermal/cooling_device0/type", kind)
    write(tmp_path / "class/thermal/cooling_device0/cur_state", state)
    assert Throttling(tmp_path).read() is throttled


def test_counted_throttling_tells_of_what_happened_since_the_last_look(tmp_path: Path) -> None:
    path = tmp_path / "devices/system/cpu/cpu3/thermal_throttle/core_throttle_count"
    write(path, "41")
    throttling = Throttling(tmp_path)
    seen = [throttling.read()]
    write(path, "43")
    seen += [throttling.read(), throttling.read()]
    assert seen == [False, True, False]


def test_a_machine_that_tells_nothing_is_not_called_cool(tmp_path: Path) -> None:
    assert Throttling(tmp_path).read() is None


def test_each_process_is_measured_by_its_name_and_one_that_has_ended_is_left_out(tmp_path: Path) -> None:
    program = "import sys; block = bytearray(40_000_000); print(flush=True); sys.stdin.read()"
    probes = Probes(tmp_path)
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        first = probes.read({"camera outlet/top": child.pid})
        child.communicate()
    assert [process.name for process in first.processes] == ["agent", "camera outlet/top"]
    own, other = first.processes
    assert other.private_bytes is not None
    assert other.rss_bytes >= other.private_bytes > 40_000_000
    assert own.rss_bytes == first.rss_bytes
    assert [process.name for process in probes.read({"camera outlet/top": child.pid}).processes] == ["agent"]


def test_the_share_of_a_core_is_that_since_the_last_reading(tmp_path: Path) -> None:
    probes = Probes(tmp_path)
    started = os.times()
    while (os.times().user - started.user) < 0.2:
        sum(range(10_000))
    used = (os.times().user - started.user) / (os.times().elapsed - started.elapsed)  # less than 1 on a busy machine
    assert probes.read().cpu_fraction > 0.5 * used
    assert probes.read().cpu_fraction >= 0.0


@pytest.mark.parametrize(
    ("offset", "status", "expected_ms"),
    [
        (1500, 0x0001, 1.5),  # µs
        (-1_500_000, 0x2001, -1.5),  # ns
        (1500, 0x0041, None),  # nobody sets the clock
        (0, 0x0000, None),  # chrony: the kernel does not steer, and knows nothing
    ],
)
def test_the_clocks_offset_is_told_where_the_kernel_steers(
    monkeypatch: pytest.MonkeyPatch, offset: int, status: int, expected_ms: float | None
) -> None:
    state = time_quality._Timex(offset=offset, max_error_us=1, status=status)
    monkeypatch.setattr(time_quality, "_ask_kernel", lambda: state)
    assert time_quality.clock_offset_ms() == expected_ms
