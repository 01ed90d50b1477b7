"""Birth, will and leave of a device: states numbered so that (boot, revision) alone tells which one is the newest."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Final

from wire import codec, topics
from wire.messages import Reported, State

# One block of revisions for each connection; the will has the last number of its connection's block, so that it
# overrules every state of its own connection and is overruled by the birth of the next.
REVISIONS_PER_CONNECTION: Final = 1_000_000


class Presence:
    """Makes the states of one boot.

    Args:
        device: this device.
        boot: count of the agent's starts.
    """

    def __init__(self, device: str, boot: int) -> None:
        self._device = device
        self._boot = boot
        self._block = 0
        self._revision = 0

    def will(self) -> bytes:
        """Begin a connection and return the will to give to the broker."""
        self._block += REVISIONS_PER_CONNECTION
        self._revision = self._block
        return codec.encode(self._offline())

    def online(self, at: datetime, reported: Reported | None) -> bytes:
        """Return the next state of this connection; a document over the topic's budget goes without its refusals."""
        self._revision += 1
        state = State(
            device=self._device, boot=self._boot, revision=self._revision, online=True, at=at, reported=reported
        )
        payload = codec.encode(state)
        if reported is not None and len(payload) > topics.TABLE["state"].max_bytes:
            shorter = dataclasses.replace(reported, refusals=("too many to report: see the device's log",))
            payload = codec.encode(dataclasses.replace(state, reported=shorter))
        return payload

    def leave(self, at: datetime) -> bytes:
        """Return the state of a device that goes offline on purpose."""
        return codec.encode(dataclasses.replace(self._offline(), at=at))

    def _offline(self) -> State:
        last = self._block + REVISIONS_PER_CONNECTION - 1
        return State(device=self._device, boot=self._boot, revision=last, online=False)
