"""Fixtures for all tests: shared data, free ports, and a check that no test leaves a process behind."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import ports

REPO = Path(__file__).resolve().parent.parent
_PR_SET_CHILD_SUBREAPER = 36
# Python's own helpers live as long as the process that started them.
_PYTHONS_OWN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared clips, pictures and models; it is not part of this repository."""
    folder = Path(os.environ.get("LINESIDE_SHARED") or REPO.parent / "shared") / "data"
    if not folder.is_dir():
        pytest.skip(f"The shared data is not here ({folder}); LINESIDE_SHARED may name the folder around it.")
    return folder


@pytest.fixture
def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago; `tests.support.ports.free_port()` gives more."""
    return ports.free_port()


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left_behind() -> Iterator[None]:
    """Fail the session if a process that a test started still runs at the end, even one whose parent has gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    deadline = time.monotonic() + 3.0
    while (left := _left_behind()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left:
        pytest.fail("Tests left processes behind:\n" + "\n".join(left))


def _left_behind() -> list[str]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            words = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and not any(own in words for own in _PYTHONS_OWN):
                found.append(f"{process.pid} {words}")
        except psutil.NoSuchProcess:
            continue
    return found
