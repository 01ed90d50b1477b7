"""Pictures of the views two versions disagree about: kept beside those that estimates need, never instead of them."""

from __future__ import annotations

from typing import Final

from agent.capture.encode import PictureOfPart, Spool, jpeg
from agent.clock import Clock
from agent.inspection import shadow_pair
from agent.inspection.shadow_mailbox import CopiedPart, Picture
from wire.messages import ShadowPair

# A candidate that disagrees about every part must not fill the way to the fleet.
AT_ONCE: Final = 20
EVERY_NS: Final = 10_000_000_000


class ShadowPictures:
    """Keeps `AT_ONCE` pictures, and one more every `EVERY_NS`; used by the candidates' thread.

    They have no draw: whether they are kept depends on what was seen, so that no estimate may take them for a sample.
    """

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._left = AT_ONCE
        self._counted_ns = clock.monotonic_ns()

    def keep(self, part: CopiedPart, pair: ShadowPair) -> dict[str, str | None]:
        """Return the digest of each differing view's picture, None where it found no room.

        The picture that the active version's own record names is not kept twice.
        """
        known = {view.view: view.picture_digest for view in part.inspection.views}
        return {view: known[view] or self._keep(part.pictures[view], part) for view in shadow_pair.differing(pair)}

    def _keep(self, picture: Picture, part: CopiedPart) -> str | None:
        more, rest_ns = divmod(self._clock.monotonic_ns() - self._counted_ns, EVERY_NS)
        self._left = min(AT_ONCE, self._left + more)
        self._counted_ns = self._clock.monotonic_ns() - rest_ns
        if not self._left:
            return None
        self._left -= 1
        data, digest = jpeg(picture)
        taken = self._spool.offer(digest, data, PictureOfPart(draw=None, at=part.inspection.triggered_at))
        return digest if taken else None
