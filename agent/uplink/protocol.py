"""Which version of MQTT to speak: 5 preferred, 3.1.1 where the broker knows no other, and 5 tried again at times."""

from __future__ import annotations

import enum
from typing import Final

UPWARD_AFTER_NS: Final = 3_600_000_000_000
_UNCLEAR_REFUSALS: Final = 2


class Protocol(enum.StrEnum):
    """What the connection speaks."""

    MQTT_5 = "5"
    MQTT_3_1_1 = "3.1.1"


class ProtocolChoice:
    """Decides before each attempt; learns from how it ended.

    A broker of the old kind says so, or closes the connection without a word, or says nothing at all. The last two are
    believed at once of a broker that was never connected to, and only when they happen twice of one that spoke this
    version before, since a broker that is being started or is stuck does the same.

    Args:
        wanted: "auto", or one version for good.
        remembered: what an earlier run of the agent settled on.
        now_ns: monotonic.
    """

    def __init__(self, wanted: str, remembered: str | None, now_ns: int) -> None:
        self._auto = wanted == "auto"
        start = remembered if self._auto else wanted
        self._current = Protocol(start) if start in set(Protocol) else Protocol.MQTT_5
        self._tried_5_ns = now_ns
        self._unclear = 0
        self._known = not self._auto or remembered in set(Protocol)

    @property
    def guessing(self) -> bool:
        """Whether nothing is known about the broker yet."""
        return not self._known

    def next(self, now_ns: int) -> Protocol:
        """Return what to speak in the next attempt."""
        if self._auto and self._current is Protocol.MQTT_3_1_1 and now_ns - self._tried_5_ns >= UPWARD_AFTER_NS:
            self._tried_5_ns = now_ns
            return Protocol.MQTT_5
        return self._current

    def connected(self, protocol: Protocol) -> None:
        """Note that the broker speaks it."""
        self._known = True
        self._current = protocol
        self._unclear = 0

    def refused(self, protocol: Protocol, now_ns: int, *, clearly: bool) -> None:
        """Note that the broker ended an attempt before it was accepted.

        Args:
            protocol: what was tried.
            now_ns: monotonic.
            clearly: the broker named the version as the reason.
        """
        if not self._auto:
            return
        self._unclear += 1
        if not clearly and self._known and self._unclear < _UNCLEAR_REFUSALS:
            return
        self._unclear = 0
        if protocol is Protocol.MQTT_3_1_1:
            self._current = Protocol.MQTT_5
        else:
            self._current = Protocol.MQTT_3_1_1
            self._tried_5_ns = now_ns
