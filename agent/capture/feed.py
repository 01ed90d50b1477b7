"""The feed of one view: a thread of its own reads the source, and each frame is accounted for.

Recorded sources (files) wait for those who take: one frame is decoded ahead, so that decoding runs beside the judging,
and no frame is ever dropped. Live sources wait for nobody; their policy says which frame goes when nobody takes:

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
_READ_AHEAD: Final = 1
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
        policy: for live sources.
        capacity: frames that `every` lets wait.
    """

    def __init__(self, source: Source, policy: Policy = "latest", capacity: int = CAPACITY_DEFAULT) -> None:
        self._source = source
        self._policy = policy
        self._capacity = 1 if policy == "latest" else capacity
        self._live = True
        self._changed = threading.Condition()
        self._queue: deque[Frame | NoFrame] = deque()
        self._frames_in = self._used = self._not_triggered = self._leased = self._waiting = 0
        self._dropped: Counter[str] = Counter()
        self._trouble = ""
        self._ended = False
        self._closed = False
        self.worker: Worker | None = None

    def open(self) -> SourceInfo:
        """Open the source; it is read from now on, by the thread `worker`.

        Raises:
            LinesideError: `source.unavailable` or `source.unreadable`.
        """
        info = self._source.open()
        self._live = info.live
        if not info.live:
            self._capacity = _READ_AHEAD
        self.worker = Worker(f"capture-{info.camera}", self._read)
        self.worker.start()
        return info

    def take(self, timeout_s: float) -> Lease | NoFrame | Ended:
        """Return the next frame; NoFrame, with the source's own trouble if it has any, when none came in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._queue or self._ended, timeout_s):
                return NoFrame(reason=self._trouble or f"no frame within {timeout_s:g} s")
            if not self._queue:
                return Ended()
            answer = self._queue.popleft()
            self._changed.notify_all()
            if isinstance(answer, NoFrame):
                return answer
            self._waiting -= 1
            self._leased += 1
            return Lease(answer, self)

    def counts(self) -> FrameCounts:
        """Return the accounts; they add up at any moment."""
        with self._changed:
            return FrameCounts(
                frames_in=self._frames_in,
                used=self._used,
                not_triggered=self._not_triggered,
                dropped=dict(self._dropped),
                waiting=self._waiting + self._leased,
            )

    def close(self) -> None:
        """Stop reading and close the source; frames nobody took are counted as dropped. Closing twice is harmless."""
        with self._changed:
            if self._closed:
                return
            self._closed = self._ended = True
            if self._waiting:
                self._dropped["closed"] += self._waiting
            self._waiting = 0
            self._queue.clear()
            self._changed.notify_all()
        if self.worker is not None and not self.worker.join(_CLOSE_TIMEOUT_S):
            log.warning("%s does not come back from its source.", self.worker.name, extra={"event": "capture.stuck"})
            return
        self._source.close()

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
                if self._live:
                    self._accept(answer)
                else:
                    self._accept_recorded(answer, worker)

    def _accept(self, answer: Frame | NoFrame) -> None:
        self._trouble = answer.reason if isinstance(answer, NoFrame) else ""
        if isinstance(answer, NoFrame):
            return
        self._frames_in += 1
        if self._closed:
            self._dropped["closed"] += 1
        elif self._waiting < self._capacity:
            self._queue.append(answer)
            self._waiting += 1
        elif self._policy == "latest":
            self._queue[0] = answer
            self._dropped["replaced"] += 1
        else:
            self._dropped["overflow"] += 1
        self._changed.notify()

    def _accept_recorded(self, answer: Frame | NoFrame, worker: Worker) -> None:
        """Wait until there is room; what cannot be read is told to whoever takes, in its place."""
        self._frames_in += 1
        if isinstance(answer, NoFrame):
            self._dropped["unreadable"] += 1
        else:
            self._waiting += 1
        while len(self._queue) >= self._capacity and not self._closed:
            worker.beat()
            self._changed.wait(_READ_TIMEOUT_S)
        if not self._closed:
            self._queue.append(answer)
            self._changed.notify()
        elif isinstance(answer, Frame) and self._waiting:
            self._dropped["closed"] += 1
            self._waiting -= 1

    def _settle(self, *, used: bool) -> None:
        with self._changed:
            self._leased -= 1
            if used:
                self._used += 1
            else:
                self._not_triggered += 1
