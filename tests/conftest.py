"""Fixtures for all tests: shared data, free ports, and a check that no test leaves a process behind.

With `pytest -n 3` three processes run tests side by side, file by file. Each has session fixtures of its own.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

from agent.capture.feed import Feed
from agent.capture.frame import SourceInfo
from tests.support import ports
from tests.support.side_by_side import SideBySide

REPO = Path(__file__).resolve().parent.parent
_PR_SET_CHILD_SUBREAPER = 36
# Python's own helpers live as long as the process that started them.
_PYTHONS_OWN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
_TURNS = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the file that holds the turns, in the process that starts the others; each of those takes it into use.

    No example of Hypothesis fails for the time it took: that is the machine's, and beside others it has less.
    """
    hypothesis.settings.register_profile("suite", deadline=None)
    hypothesis.settings.load_profile("suite")
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(SideBySide(Path(config.workerinput["turns"])))
    elif config.getoption("tx", None):  # with -n
        handle, name = tempfile.mkstemp(prefix="lineside-turns-")
        os.close(handle)
        config.stash[_TURNS] = Path(name)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process which file holds the turns of its run."""
    node.workerinput["turns"] = str(node.config.stash[_TURNS])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the file of turns."""
    if _TURNS in config.stash:
        config.stash[_TURNS].unlink(missing_ok=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared clips, pictures and models; it is not part of this repository."""
    folder = Path(os.environ.get("LINESIDE_SHARED") or REPO.parent / "shared") / "data"
    if not folder.is_dir():
        pytest.skip(f"The shared data is not here ({folder}); LINESIDE_SHARED may name the folder around it.")
    return folder


@pytest.fixture
def free_port() -> int:
    """A TCP port on 127.0.0.1 where nobody listens; `tests.support.ports.free_port()` gives more."""
    return ports.free_port()


@pytest.fixture(autouse=True)
def _no_test_logs_to_the_stream_of_another() -> Iterator[None]:
    """Take away what a command has set up for its log: where it writes to ends with the test, and so does its level."""
    loggers = [logging.getLogger(name) for name in (None, "agent", "fleet", "wire")]
    before, levels = list(loggers[0].handlers), [logger.level for logger in loggers]
    yield
    for handler in list(loggers[0].handlers):
        if handler not in before:
            loggers[0].removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def _no_camera_is_read_after_its_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the feeds a test has opened: hundreds of threads that ask for frames leave later tests no interpreter."""
    opened: list[Feed] = []
    opens = Feed.open

    def noting(feed: Feed) -> SourceInfo:
        opened.append(feed)
        return opens(feed)

    monkeypatch.setattr(Feed, "open", noting)
    yield
    for feed in opened:
        feed.close()


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
