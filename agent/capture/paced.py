"""A recorded source played at a camera's pace: frames come when they are due, whether or not anybody takes them."""

from __future__ import annotations

import dataclasses
import time
from datetime import timedelta

from agent.capture.frame import Ended, Frame, NoFrame, Source, SourceInfo


class PacedSource:
    """Wraps a recorded source; frames are decoded ahead of time and stamped when they are due.

    Args:
        source: of files.
        frames_per_s: the pace; a reader that falls behind by more than one frame starts the pace anew.
    """

    def __init__(self, source: Source, frames_per_s: float) -> None:
        self._source = source
        self._pitch_s = 1.0 / frames_per_s
        self._due: float | None = None
        self._next: Frame | NoFrame | Ended | None = None

    def open(self) -> SourceInfo:
        """Open the files; they now count as live."""
        return dataclasses.replace(self._source.open(), live=True, frames_per_s=1.0 / self._pitch_s)

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        """Return the next frame when it is due; NoFrame when that is later than `timeout_s`."""
        if self._next is None:
            self._next = self._source.read(timeout_s)
        now = time.monotonic()
        due = now if self._due is None else self._due
        if due - now > timeout_s:
            time.sleep(timeout_s)
            return NoFrame(reason="the next frame is not due", expected=True)
        time.sleep(max(0.0, due - now))
        answer, self._next = self._next, None
        self._due = max(due, now - self._pitch_s) + self._pitch_s
        if isinstance(answer, Frame):
            late_ns = time.monotonic_ns() - answer.exposed_ns
            shown_utc = answer.exposed_utc + timedelta(microseconds=late_ns / 1000)
            return dataclasses.replace(answer, exposed_ns=answer.exposed_ns + late_ns, exposed_utc=shown_utc)
        return answer

    def close(self) -> None:
        """Close the files."""
        self._source.close()
