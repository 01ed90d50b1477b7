"""The feed of one view: a thread of its own reads the source, and each frame is accounted for.

Recorded sources (files) wait for those who take: one frame is decoded ahead, so that decoding runs beside the judging,
and no frame is ever dropped. Live sources wait for nobody; their policy says which frame goes when nobody takes:

- `latest`: a mailbox of one frame; the newest replaces an older one, which is counted as dropped ("replaced").
- `every`: a queue; when it is full the frame that arrives is counted as dropped ("overflow"), so that the parts in the
  queue keep their frames and the part of the lost one shows as NO_VERDICT.

At any moment frames_in = used + not_triggered + dropped + waiting. Every frame's pixels go back to their owner exactly
once, when its account is closed.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from agent.capture.accounts import FeedHealth, FrameCounts, Supervised
from agent.capture.demand import ViewDemand
from agent.capture.frame import Ended, Frame, NoFrame, Source, SourceInfo, TimeClass, Vital
from agent.threads import Worker
from wire.errors import LinesideError

log = logging.getLogger(__name__)

Policy = Literal["latest", "every"]
CAPACITY_DEFAULT: Final = 8
_READ_AHEAD: Final = 1
_MOST_GIVEN_BACK: Final = 8
_READ_TIMEOUT_S: Final = 0.5
_CLOSE_TIMEOUT_S: Final = 3.0


class Watch(Protocol):
    """Looks at every picture of the view (agent.capture.vitals)."""

    @property
    def raised(self) -> frozenset[Vital]: ...

    def see(self, image_bgr: NDArray[np.uint8]) -> tuple[Vital, ...]: ...


class Lease:
    """A frame that somebody works on; as a context manager it is released, and counted as used, at the end.

    Its pixels belong to somebody else again as soon as it is released.
    """

    def __init__(self, frame: Frame, feed: Feed) -> None:
        self.frame = frame
        self._feed = feed
        self._open = True

    def release(self) -> None:
        """Count the frame as used; releasing again changes nothing."""
        self._feed._settle(self, used=True)  # noqa: SLF001  (a lease is part of its feed)

    def not_used(self) -> None:
        """Count the frame as one that belongs to no part, and release it."""
        self._feed._settle(self, used=False)  # noqa: SLF001

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
        vitals: looks at each picture, on the reading thread; None where nobody asks.
        on_demand: told what `demand` is told, before it returns: the reference view is exchanged with the recipe.
    """

    def __init__(
        self,
        source: Source,
        policy: Policy = "latest",
        capacity: int = CAPACITY_DEFAULT,
        *,
        vitals: Watch | None = None,
        on_demand: Callable[[ViewDemand], None] | None = None,
    ) -> None:
        self._source = source
        self._supervised = source if isinstance(source, Supervised) else None
        self._policy = policy
        self._capacity = 1 if policy == "latest" else capacity
        self._vitals = vitals
        self._on_demand = on_demand
        self._live = True
        self._recorded = False
        self._changed = threading.Condition()
        self._queue: deque[Frame | NoFrame] = deque()
        self._given_back: deque[Frame] = deque()
        self._frames_in = self._used = self._not_triggered = self._leased = self._waiting = 0
        self._dropped: Counter[str] = Counter()
        self._trouble = ""
        self._unmet = False
        self._newest_ns: int | None = None
        self._own_vitals: tuple[Vital, ...] = ()
        self._viewers = self._pictures = 0
        self._picture: NDArray[np.uint8] | None = None
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
        self._recorded = info.time_class is TimeClass.RECORDED
        if not info.live:
            self._capacity = _READ_AHEAD
        self.worker = Worker(f"capture-{info.camera}", self._read)
        self.worker.start()
        return info

    @property
    def is_live(self) -> bool:
        """Whether the source waits for nobody; known once it is open."""
        return self._live

    def take(self, timeout_s: float) -> Lease | NoFrame | Ended:
        """Return the next frame; NoFrame, with the source's own trouble if it has any, when none came in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._given_back or self._queue or self._ended, timeout_s):
                return NoFrame(reason=self._trouble or f"no frame within {timeout_s:g} s")
            if self._given_back:
                answer: Frame | NoFrame = self._given_back.popleft()
            elif self._queue:
                answer = self._queue.popleft()
                self._changed.notify_all()
            else:
                return Ended()
            if isinstance(answer, NoFrame):
                return answer
            self._waiting -= 1
            self._leased += 1
            return Lease(answer, self)

    def give_back(self, lease: Lease) -> None:
        """Let a frame that was only looked at be taken again, before all that came after it."""
        with self._changed:
            if not self._end(lease):
                return
            if self._closed:
                self._drop(lease.frame, "closed")
                return
            if len(self._given_back) >= _MOST_GIVEN_BACK:
                self._waiting -= 1
                self._drop(self._given_back.popleft(), "overflow")
            self._given_back.append(lease.frame)
            self._waiting += 1
            self._changed.notify_all()

    def demand(self, demand: ViewDemand) -> None:
        """Say what the recipe in force asks of the camera; until it is so, frames carry Vital.SETTINGS."""
        if self._on_demand is not None:
            self._on_demand(demand)
        if self._supervised is not None:
            self._supervised.demand(demand)
        else:
            # A recording was exposed long ago; any other camera that cannot be told cannot be trusted either.
            self._unmet = demand.locks_camera and not self._recorded

    def snapshot(self, timeout_s: float) -> NDArray[np.uint8] | NoFrame:
        """Return a copy of the next picture, for a person; the accounts do not change."""
        with self._changed:
            waiting = self._queue[0] if self._queue and not self._live else None
            if isinstance(waiting, Frame):  # a recorded source reads on only when somebody takes
                return waiting.image_bgr.copy()
            before = self._pictures
            self._viewers += 1
            try:
                self._changed.wait_for(lambda: self._pictures > before or self._ended, timeout_s)
                if self._pictures > before and self._picture is not None:
                    return self._picture
            finally:
                self._viewers -= 1
                if not self._viewers:
                    self._picture = None
            return NoFrame(reason=self._trouble or f"no frame within {timeout_s:g} s")

    def counts(self) -> FrameCounts:
        """Return the accounts; they add up at any moment."""
        with self._changed:
            dropped = Counter(self._dropped)
            unseen = self._supervised.dropped() if self._supervised is not None else {}
            dropped.update(unseen)
            return FrameCounts(
                frames_in=self._frames_in + sum(unseen.values()),
                used=self._used,
                not_triggered=self._not_triggered,
                dropped=dict(dropped),
                waiting=self._waiting + self._leased,
            )

    def health(self) -> FeedHealth:
        """Return how the view is now."""
        supervised = self._supervised
        with self._changed:
            trouble = self._trouble if supervised is None else supervised.trouble
            age_ns = None if self._newest_ns is None else time.monotonic_ns() - self._newest_ns
            raised = {*self._own_vitals, *(self._vitals.raised if self._vitals is not None else ())}
            return FeedHealth(
                connected=not trouble and not self._ended,
                trouble=trouble,
                frame_age_ms=None if age_ns is None else age_ns / 1e6,
                restarts=0 if supervised is None else supervised.restarts,
                raised=tuple(sorted(raised)),
                process_id=None if supervised is None else supervised.process_id,
            )

    def close(self) -> None:
        """Stop reading and close the source; frames nobody took are counted as dropped. Closing twice is harmless."""
        with self._changed:
            if self._closed:
                return
            self._closed = self._ended = True
            for waiting in (*self._given_back, *self._queue):
                if isinstance(waiting, Frame):
                    self._waiting -= 1
                    self._drop(waiting, "closed")
            self._given_back.clear()
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
            if isinstance(answer, Frame):
                try:
                    answer = self._seen(answer)
                except BaseException:
                    _free(answer)
                    raise
            with self._changed:
                if isinstance(answer, Ended):
                    self._ended = True
                    self._changed.notify_all()
                    return
                if self._live:
                    self._accept(answer)
                else:
                    self._accept_recorded(answer, worker)

    def _seen(self, frame: Frame) -> Frame:
        """Look at a frame, outside the lock, and write down what is wrong with it."""
        self._newest_ns = time.monotonic_ns()
        own = (*frame.vitals, Vital.SETTINGS) if self._unmet else frame.vitals
        self._own_vitals = own
        wrong = own if self._vitals is None else (*own, *self._vitals.see(frame.image_bgr))
        if self._viewers:
            copied = frame.image_bgr.copy()
            with self._changed:
                self._picture = copied
                self._pictures += 1
        return frame if wrong == frame.vitals else dataclasses.replace(frame, vitals=wrong)

    def _accept(self, answer: Frame | NoFrame) -> None:
        if isinstance(answer, NoFrame):
            self._trouble = "" if answer.expected else answer.reason
            return
        self._trouble = ""
        self._frames_in += 1
        if self._closed:
            self._drop(answer, "closed")
        elif len(self._queue) < self._capacity:
            self._queue.append(answer)
            self._waiting += 1
        elif self._policy == "latest":
            replaced, self._queue[0] = self._queue[0], answer
            if isinstance(replaced, Frame):
                self._drop(replaced, "replaced")
        else:
            self._drop(answer, "overflow")
        self._changed.notify_all()

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
            self._changed.notify_all()
        elif isinstance(answer, Frame):
            self._waiting -= 1
            self._drop(answer, "closed")

    def _drop(self, frame: Frame, reason: str) -> None:
        self._dropped[reason] += 1
        _free(frame)

    def _settle(self, lease: Lease, *, used: bool) -> None:
        with self._changed:
            if not self._end(lease):
                return
            if used:
                self._used += 1
            else:
                self._not_triggered += 1
        _free(lease.frame)

    def _end(self, lease: Lease) -> bool:
        """End a lease, under the lock; False where it has ended already."""
        was_open, lease._open = lease._open, False  # noqa: SLF001  (a lease is part of its feed)
        self._leased -= was_open
        return was_open


def _free(frame: Frame) -> None:
    if frame.free is not None:
        frame.free()
