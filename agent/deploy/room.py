"""Whether what is still to be downloaded fits on the disk, beside what must stay free for records and pictures."""

from __future__ import annotations

from typing import Final

from agent.clock import Clock
from agent.deploy import download
from agent.deploy.store import Store

# Once a disk has refused to take more, it is not asked again for so long, whatever its free space is said to be.
_REFUSES_FOR_NS: Final = 300 * 10**9
# What had no room must find so much more than it needs before it goes on, or it would stop and go with every log line.
_ROOM_AGAIN: Final = 1.25


class Room:
    """The free space of the store's disk, as downloads see it."""

    def __init__(self, store: Store, clock: Clock, keep_free_bytes: int) -> None:
        self._store = store
        self._clock = clock
        self._keep_free_bytes = keep_free_bytes
        self._refused_until_ns = 0

    def note_refusal(self) -> None:
        """The disk has just refused to take more."""
        self._refused_until_ns = self._clock.monotonic_ns() + _REFUSES_FOR_NS

    def lacks(self, digest: str, *, is_held: bool) -> bool:
        """Tell whether there is no room for what a version still needs."""
        if self._clock.monotonic_ns() < self._refused_until_ns:
            return not download.is_complete(self._store, digest)
        to_come = download.bytes_to_come(self._store, digest)
        needed = (to_come + self._keep_free_bytes) * (_ROOM_AGAIN if is_held else 1.0)
        return to_come > 0 and self._store.room_bytes() < needed
