"""Notices that a stream changed its picture format, which OpenCV hides.

Where a camera switches its resolution within a stream, OpenCV (4.7 and later) goes on giving pictures of the first
size, cropped or scaled, without a word (its issue 27116). FFmpeg, below it, says in its debug log that the decoder is
set up anew. OpenCV prints that log, and in a camera's own process nobody else uses standard output; so it is read here,
right after each grab, and never shown: it may hold the camera's address.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

# What libavcodec says when a decoder is set up for a picture format, for the first time or again.
_SET_UP: Final = (b"chosen by get_format()", b"Reinit context to")
_PRINTED_TO: Final = (1, 2)
_PIECE_BYTES: Final = 65_536
_LOG_LEVEL_DEBUG: Final = "48"


class DecoderLog:
    """Takes over what this process prints; make it before OpenCV opens its first stream."""

    def __init__(self) -> None:
        os.environ["OPENCV_FFMPEG_LOGLEVEL"] = _LOG_LEVEL_DEBUG
        self._reading, writing = os.pipe()
        # A full pipe loses lines rather than stopping the decoder.
        os.set_blocking(self._reading, False)
        os.set_blocking(writing, False)
        for fd in _PRINTED_TO:
            os.dup2(writing, fd)
        os.close(writing)
        self._flush = ctypes.CDLL(None).fflush
        self._rest = b""

    def was_set_up(self) -> bool:
        """Return whether a decoder was set up since this was last asked."""
        found = False
        self._flush(None)  # C's own buffers, which hold back what goes to a pipe
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._reading, _PIECE_BYTES):
                text = self._rest + piece
                found = found or any(words in text for words in _SET_UP)
                self._rest = b"" if found else text[-max(map(len, _SET_UP)) + 1 :]
        return found
