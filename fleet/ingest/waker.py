"""Wakes devices from a process that takes nothing in: the API's, where ingest runs elsewhere."""

from __future__ import annotations

from fleet import clock
from fleet.ingest.inbox import Inbox
from fleet.ingest.link import IngestLink
from wire.mint import Mint


class Waker:
    """The fleet's `Announcer` over a link of its own, which subscribes to nothing.

    Args:
        address: host and port of the broker.
        protocol: `5`, `3.1.1` or `auto`.
    """

    def __init__(self, address: tuple[str, int], protocol: str = "auto", *, now: clock.Now = clock.utc_now) -> None:
        self._link = IngestLink(address, protocol, Inbox(), mint=Mint(), now=now, subscriptions=())

    def start(self) -> None:
        """Start the link, which connects by itself as soon as the broker answers."""
        self._link.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Send what is waiting, and end the link."""
        self._link.stop(timeout_s)

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the broker has answered."""
        return self._link.wait_connected(timeout_s)

    def wake(self, device: str, desired_revision: int) -> None:
        """Hint to a device that its desired document changed; never waits and never raises."""
        self._link.wake(device, desired_revision)
