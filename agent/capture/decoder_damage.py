"""Which pictures of a video stream the decoder could not decode whole: told by its own complaints.

FFmpeg conceals what is missing and hands the picture on; OpenCV passes no flag with it. But FFmpeg writes a line about
each damaged slice to the standard error output, before the picture comes out. A process that decodes one stream, on
one decoder thread (`cv2.CAP_PROP_N_THREADS` = 1), and reads what is written there, can therefore tell: a damaged
picture, and all that were predicted from it, until a picture that stands alone.
"""

from __future__ import annotations

import re
from typing import Final

_DAMAGE: Final = re.compile(
    rb"error while decoding|concealing|corrupt|slice_header error|invalid nal|missing picture in access unit|no frame!|"
    rb"missing reference|reference picture missing|could not find ref|non-existing [ps]ps|"
    rb"unavailable for requested|cabac decode|out of range at",
    re.IGNORECASE,
)
# Pictures come out in another order than they are decoded in: H.264 and H.265 hold back at most 16.
_HELD_BACK: Final = 16


def tells_damage(lines: bytes) -> bool:
    """Tell whether lines of FFmpeg's log complain of a damaged picture."""
    return _DAMAGE.search(lines) is not None


class DamageWatch:
    """Follows damage through a stream: it lasts until a picture that stands alone follows whole.

    Args:
        longest: pictures after which damage is over anyway: streams that refresh a strip at a time have no picture
            that stands alone.
    """

    def __init__(self, *, longest: int = 300) -> None:
        self._longest = longest
        self._since: int | None = None

    def see(self, *, complained: bool, stands_alone: bool) -> bool:
        """Return whether the next picture, in their order, may be damaged.

        Args:
            complained: the decoder did, since the picture before.
            stands_alone: it is an intra-coded picture (`cv2.CAP_PROP_FRAME_TYPE` is 'I').
        """
        if complained:
            self._since = 0
            return True
        if self._since is None:
            return False
        self._since += 1
        # A picture that comes out so soon after the complaint may be the one it was about.
        if (stands_alone and self._since > _HELD_BACK) or self._since > self._longest:
            self._since = None
        return self._since is not None
