"""The feed of one view: hands frames to whoever judges, and accounts for each one.

Files are pulled: a frame is read when it is taken, under a lock. Live sources are pushed: a named thread reads them,
whether or not anybody takes. Policies for live sources:

- `latest`: a mailbox of one frame; the newest replaces an older one, which is counted as dropped ("replaced").
- `every`: a queue; when it is full the frame that arrives is counted as dropped ("overflow"), so that the parts in the
  queue keep their frames and the part of the lost one shows as NO_VERDICT.

At any moment frames_in = used + not_triggered + dropped + waiting.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

from agent.capture.frame import Ended, Frame, NoFrame, Source, SourceInfo
from agent.threads import Worker
from wire.errors import LinesideError

log = logging.getLogger(__name__)

Policy = Literal["latest", "every"]
CAPACITY_DEFAULT: Final = 8
_READ_TIMEOUT_S: Final = 0.5
_CLOSE_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCounts:
    """Where a source's frames went since the feed was opened.

    Args:
        frames_in: read from the source.
        used: judged.
        not_triggered: taken, and belonging to no part.
        dropped: per reason: "replaced", "overflow", "unreadable", "closed".
        waiting: not taken yet, or taken and not released yet.
    """

    frames_in: int
    used: int
    not_triggered: int
    dropped: dict[str, int]
    waiting: int


class Lease:
    """A frame that somebody works on; as a context manager it is released, and counted as used, at the end."""

    def __init__(self, frame: Frame, feed: Feed) -> None:
        self.frame = frame
        self._feed = feed
        self._released = False

    def release(self) -> None:
        """Count the frame as used; releasing again changes nothing."""
        self._settle(used=True)

    def not_used(self) -> None:
        """Count the frame as one that belongs to no part, and release it."""
        self._settle(used=False)

    def _settle(self, *, used: bool) -> None:
        if not self._released:
            self._released = True
            self._feed._settle(used=used)  # noqa: SLF001  (a lease is part of its feed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Feed:
    """One source's frames under one policy. `take` may be called from several threads.

    Args:
        source: opened and closed by this feed.
        policy: for live sources; a file gives every frame, at the pace of those who take.
        capacity: frames that `every` lets wait.
    """

    def __init__(self, source: Source, policy: Policy = "latest", capacity: int = CAPACITY_DEFAULT) -> None:
        self._source = source
        self._policy = policy
        self._capacity = 1 if policy == "latest" else capacity
        self._pull_lock = threading.Lock()
        self._changed = threading.Condition()
        self._queue: deque[Frame] = deque()
        self._frames_in = self._used = self._not_triggered = self._leased = 0
        self._dropped: Counter[str] = Counter()
        self._trouble = ""
        self._ended = False
        self._closed = False
        self.worker: Worker | None = None

    def open(self) -> SourceInfo:
        """Open the source; a live one is read from now on, by the thread `worker`.

        Raises:
            LinesideError: `source.unavailable` or `source.unreadable`.
        """
        info = self._source.open()
        if info.live:
            self.worker = Worker(f"capture-{info.camera}", self._read)
            self.worker.start()
        return info

    def take(self, timeout_s: float) -> Lease | NoFrame | Ended:
        """Return the next frame; NoFrame, with the source's own trouble if it has any, when none came in time."""
        return self._pull(timeout_s) if self.worker is None else self._wait(timeout_s)

    def counts(self) -> FrameCounts:
        """Return the accounts; they add up at any moment."""
        with self._changed:
            return FrameCounts(
                frames_in=self._frames_in,
                used=self._used,
                not_triggered=self._not_triggered,
                dropped=dict(self._dropped),
                waiting=len(self._queue) + self._leased,
            )

    def close(self) -> None:
        """Stop reading and close the source; frames nobody took are counted as dropped. Closing twice is harmless."""
        with self._changed:
            if self._closed:
                return
            self._closed = self._ended = True
            if self._queue:
                self._dropped["closed"] += len(self._queue)
                self._queue.clear()
            self._changed.notify_all()
        if self.worker is not None and not self.worker.join(_CLOSE_TIMEOUT_S):
            log.warning("%s does not come back from its source.", self.worker.name, extra={"event": "capture.stuck"})
            return
        with self._pull_lock:
            self._source.close()

    def _pull(self, timeout_s: float) -> Lease | NoFrame | Ended:
        with self._pull_lock:
            if self._ended:
                return Ended()
            answer = self._source.read(timeout_s)
        with self._changed:
            if isinstance(answer, Ended):
                self._ended = True
                return answer
            self._frames_in += 1
            if isinstance(answer, NoFrame):
                self._dropped["unreadable"] += 1
                return answer
            self._leased += 1
            return Lease(answer, self)

    def _wait(self, timeout_s: float) -> Lease | NoFrame | Ended:
        with self._changed:
            if not self._changed.wait_for(lambda: self._queue or self._ended, timeout_s):
                return NoFrame(reason=self._trouble or f"no frame within {timeout_s:g} s")
            if not self._queue:
                return Ended()
            self._leased += 1
            return Lease(self._queue.popleft(), self)

    def _read(self, worker: Worker) -> None:
        while not worker.stop.is_set():
            worker.beat()
            try:
                answer = self._source.read(_READ_TIMEOUT_S)
            except LinesideError as error:
                answer = NoFrame(reason=error.message)
                worker.stop.wait(_READ_TIMEOUT_S)
            with self._changed:
                if isinstance(answer, Ended):
                    self._ended = True
                    self._changed.notify_all()
                    return
                self._accept(answer)

    def _accept(self, answer: Frame | NoFrame) -> None:
        self._trouble = answer.reason if isinstance(answer, NoFrame) else ""
        if isinstance(answer, NoFrame):
            return
        self._frames_in += 1
        if self._closed:
            self._dropped["closed"] += 1
        elif len(self._queue) < self._capacity:
            self._queue.append(answer)
        elif self._policy == "latest":
            self._queue[0] = answer
            self._dropped["replaced"] += 1
        else:
            self._dropped["overflow"] += 1
        self._changed.notify()

    def _settle(self, *, used: bool) -> None:
        with self._changed:
            self._leased -= 1
            if used:
                self._used += 1
            else:
                self._not_triggered += 1
