"""Live cameras under test: feeds that recover quickly, and what is left behind by them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from agent.capture.accounts import FrameCounts
from agent.capture.feed import Feed, Lease, Policy
from agent.capture.settings import SourceSettings
from agent.capture.sources import source_of
from agent.clock import SystemClock
from agent.uplink.backoff import Backoff


def feed_of(view: str, settings: SourceSettings, policy: Policy = "every") -> Feed:
    """A feed whose lost camera is tried again after a tenth of a second at most."""
    return Feed(source_of(view, settings, SystemClock(), backoff=Backoff(0.1, 0.1)), policy=policy)


def eventually(condition: Callable[[], bool], within_s: float = 10.0, what: str = "it") -> float:
    """Wait for something; how long it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_s:
            pytest.fail(f"{what} did not happen within {within_s:g} s")
        time.sleep(0.01)
    return time.monotonic() - began


def adds_up(counts: FrameCounts) -> bool:
    """Whether every frame has an account."""
    return counts.frames_in == counts.used + counts.not_triggered + sum(counts.dropped.values()) + counts.waiting


class Consumer:
    """Takes every frame of a feed on a thread of its own, looks at it, and checks the accounts."""

    def __init__(self, feed: Feed, look: Callable[[Lease], object] | None = None) -> None:
        self.feed = feed
        self.taken = 0
        self.wrong: list[FrameCounts] = []
        self.shapes: list[tuple[int, ...]] = []
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            answer = self.feed.take(0.05)
            if isinstance(answer, Lease):
                with answer:
                    if answer.frame.image_bgr.shape not in self.shapes:
                        self.shapes.append(answer.frame.image_bgr.shape)
                    if self._look is not None:
                        self._look(answer)
                    self.taken += 1
            if not adds_up(counts := self.feed.counts()):
                self.wrong.append(counts)

    def close(self) -> FrameCounts:
        """Stop taking, close the feed, and return its accounts, which must add up."""
        self._stop.set()
        self._thread.join(10)
        self.feed.close()
        counts = self.feed.counts()
        assert not self.wrong, self.wrong[:3]
        assert adds_up(counts), counts
        assert counts.waiting == 0
        assert counts.used == self.taken
        return counts


def shared_frames(pid: int | str = "self") -> int:
    """How many rings a process maps."""
    return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").count("lineside-frames")


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
