"""What FFmpeg says of a stream below OpenCV, which passes none of it on: damage, and another picture format.

Where a camera switches its resolution within a stream, OpenCV (4.7 and later) goes on giving pictures of the first
size, cropped or scaled, without a word (its issue 27116). Where a picture is damaged, it comes concealed. FFmpeg's
debug log tells both. OpenCV prints that log, and in a camera's own process nobody else prints; so it is read here,
right after each grab, and never shown: it may hold the camera's address.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass
from typing import Final

from agent.capture.decoder_damage import tells_damage

# What libavcodec says when a decoder is set up for a picture format, for the first time or again.
_SET_UP: Final = (b"chosen by get_format()", b"Reinit context to")
# Above this level are words for programmers, which also speak of what went well.
_WARNINGS: Final = (b":FFMPEG:08]", b":FFMPEG:16]", b":FFMPEG:24]")
_PRINTED_TO: Final = (1, 2)
_PIECE_BYTES: Final = 65_536
_LOG_LEVEL_DEBUG: Final = "48"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the decoder said since it was last asked.

    Args:
        was_set_up: for a picture format; after the first picture it means another one.
        complained: of a damaged picture.
    """

    was_set_up: bool
    complained: bool


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

    def read(self) -> Said:
        """Return what the decoder, which works on the calling thread, has said by now."""
        self._flush(None)  # C's own buffers, which hold back what goes to a pipe
        text = self._rest
        with contextlib.suppress(BlockingIOError):
            more = True
            while more:
                piece = os.read(self._reading, _PIECE_BYTES)
                text += piece
                more = len(piece) == _PIECE_BYTES
        whole, _, rest = text.rpartition(b"\n")
        self._rest = rest[-_PIECE_BYTES:]
        return said_in(whole)


def said_in(lines: bytes) -> Said:
    """Return what lines of the log say."""
    complained = any(level in lines for level in _WARNINGS) and any(
        tells_damage(line) for line in lines.splitlines() if any(level in line for level in _WARNINGS)
    )
    return Said(was_set_up=any(words in lines for words in _SET_UP), complained=complained)
