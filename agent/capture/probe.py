"""Looks at one source for a few seconds, alone, and says what it is like."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Ended, Frame, NoFrame, Source, SourceInfo
from agent.capture.settings import VitalsSettings
from agent.capture.vitals import VitalsWatch

_READ_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What was seen of a source.

    Args:
        first_after_s: from the opening to the first frame, None where none came.
        frames: seen, the first one included.
        seconds: from the first frame to the last.
        longest_gap_ms: between two frames.
        sizes_px: widths and heights that came.
        vitals: how many frames each trouble of the picture showed on.
        trouble: the source's own last word where it gave no frame.
        picture_bgr: the last frame, (H, W, 3) uint8.
    """

    info: SourceInfo
    first_after_s: float | None
    frames: int
    seconds: float
    longest_gap_ms: float
    sizes_px: tuple[tuple[int, int], ...]
    vitals: dict[str, int] = field(default_factory=dict)
    trouble: str = ""
    picture_bgr: NDArray[np.uint8] | None = None

    @property
    def frames_per_s(self) -> float | None:
        """The pace that was seen; None before two frames."""
        return (self.frames - 1) / self.seconds if self.frames > 1 and self.seconds > 0 else None


def probe(source: Source, *, seconds: float, open_timeout_s: float) -> Probed:
    """Open a source, watch it, and close it.

    Args:
        seconds: to watch it, from its first frame on.
        open_timeout_s: to wait for the first frame.

    Raises:
        LinesideError: `source.unavailable` where it cannot be opened at all.
    """
    started = time.monotonic()
    info = source.open()
    try:
        return _watch(source, info, started, seconds=seconds, open_timeout_s=open_timeout_s)
    finally:
        source.close()


def _watch(source: Source, info: SourceInfo, started: float, *, seconds: float, open_timeout_s: float) -> Probed:
    watch = VitalsWatch(VitalsSettings())
    vitals: Counter[str] = Counter()
    sizes: dict[tuple[int, int], None] = {}
    first = last = None
    until = started + open_timeout_s
    frames, gap_s, trouble, picture = 0, 0.0, "", None
    while (left_s := until - time.monotonic()) > 0:
        answer = source.read(min(left_s, _READ_S))
        if isinstance(answer, Ended):
            break
        if isinstance(answer, NoFrame):
            trouble = answer.reason
            continue
        now = time.monotonic()
        first = now if first is None else first
        gap_s = max(gap_s, now - last) if last is not None else 0.0
        if last is None:
            until = now + seconds
        last = now
        frames += 1
        sizes[answer.image_bgr.shape[1], answer.image_bgr.shape[0]] = None
        vitals.update(vital.value for vital in (*answer.vitals, *watch.see(answer.image_bgr)))
        picture = _kept(answer)
    return Probed(
        info=info,
        first_after_s=first - started if first is not None else None,
        frames=frames,
        seconds=last - first if first is not None and last is not None else 0.0,
        longest_gap_ms=gap_s * 1000,
        sizes_px=tuple(sizes),
        vitals=dict(vitals),
        trouble=trouble,
        picture_bgr=picture,
    )


def _kept(frame: Frame) -> NDArray[np.uint8]:
    """Copy the pixels, and give them back to whoever owns them."""
    picture = frame.image_bgr.copy()
    if frame.free is not None:
        frame.free()
    return picture
