"""What a thread waited for a core is told apart from what it computed, and from what it slept."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agent.inspection import core_wait

# Ends by itself, also where its parent is killed.
BURN = "import time; print(flush=True); end = time.monotonic() + 20\nwhile time.monotonic() < end: pass"


def burn(seconds: float) -> tuple[float, float]:
    """Compute for so long; returns how long that took, and how long of it a core was waited for."""
    before, began = core_wait.waited_ns(), time.monotonic()
    while time.monotonic() - began < seconds:
        pass
    return time.monotonic() - began, (core_wait.waited_ns() - before) / 1e9


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="this kernel does not count it")
def test_a_thread_that_shares_its_core_with_another_process_has_waited_for_it() -> None:
    core = min(os.sched_getaffinity(0))
    found: list[tuple[float, float]] = []

    def on_one_core() -> None:
        os.sched_setaffinity(0, {core})  # of this thread only
        found.append(burn(1.0))

    with subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE) as other:
        try:
            os.sched_setaffinity(other.pid, {core})
            assert other.stdout is not None
            other.stdout.readline()
            thread = threading.Thread(target=on_one_core)
            thread.start()
            thread.join(20)
        finally:
            other.kill()
    ((took_s, waited_s),) = found
    assert 0.2 < waited_s <= took_s


def test_who_sleeps_waits_for_no_core() -> None:
    before, began_ns, cpu_ns = core_wait.waited_ns(), time.monotonic_ns(), time.thread_time_ns()
    time.sleep(0.3)
    took_ns, ran_ns = time.monotonic_ns() - began_ns, time.thread_time_ns() - cpu_ns
    assert core_wait.waited_ns() - before <= took_ns - ran_ns - 250_000_000


def test_where_the_kernel_does_not_say_nothing_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_wait, "_FILE", "/proc/thread-self/no-such-file")
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(core_wait.waited_ns()))
    thread.start()
    thread.join(5)
    assert found == [0]


def test_each_thread_gives_its_file_back_when_it_ends() -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = files()
    for _ in range(50):
        thread = threading.Thread(target=core_wait.waited_ns)
        thread.start()
        thread.join(5)
    assert files() <= before + 2
