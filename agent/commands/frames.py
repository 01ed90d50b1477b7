"""Frames of a file that a command names: a video, a picture, or a folder of pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.capture.folder import FolderSource
    from agent.capture.frame import Frame
    from agent.capture.video import VideoSource

_TAKE_TIMEOUT_S = 30.0


def source_of(path: Path, every_nth: int) -> FolderSource | VideoSource:
    """Return the source that suits a path."""
    from agent.capture import folder, video

    if path.is_dir() or path.suffix.lower() in folder.SUFFIXES:
        return folder.FolderSource(path, path.name, every_nth=every_nth)
    return video.VideoSource(path, path.name, every_nth=every_nth)


def picture_of(source: FolderSource | VideoSource, frame: Frame) -> str | None:
    """Return the name of a frame's file; None for a frame of a video."""
    from agent.capture.folder import FolderSource

    return source.name_of(frame.number) if isinstance(source, FolderSource) else None


def frames_of(source: FolderSource | VideoSource, limit: int | None) -> Iterator[Frame]:
    """Yield at most `limit` frames; each is valid until the next is asked for.

    Raises:
        LinesideError: `source.unavailable` or `source.unreadable`, where it cannot be opened.
    """
    from agent.capture.feed import Feed
    from agent.capture.frame import Ended, NoFrame

    feed = Feed(source)
    feed.open()
    count = 0
    try:
        while limit is None or count < limit:
            taken = feed.take(_TAKE_TIMEOUT_S)
            if isinstance(taken, Ended):
                return
            if isinstance(taken, NoFrame):
                sys.stderr.write(f"no frame: {taken.reason}\n")
                continue
            count += 1
            with taken:
                yield taken.frame
    finally:
        feed.close()
