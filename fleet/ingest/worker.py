"""The ingest worker: messages of a few milliseconds become one transaction, and only its commit acknowledges them.

    inbox -> route (pure) -> each lane's slice absorbs -> commit -> range acks to devices, MQTT acks to the broker

A database that fails or is busy is tried again with the same messages: nothing is acknowledged meanwhile, the inbox
fills, and the link stops reading. A record that no slice can digest (a fault of ours) is set apart by savepoints: it
harms no other, is kept in quarantine, and stays unacknowledged, so that the device keeps it for a repaired fleet.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

from fleet import clock, db
from fleet.ingest import acks, commit, isolate, seams, shards
from fleet.ingest.beat import Beat
from fleet.ingest.inbox import CAPACITY, Delivery, Inbox
from fleet.ingest.link import IngestLink
from fleet.ingest.route import (
    Routed,
    Standing,
    device_of,
    route,
    whole,
)
from wire.mint import Mint

log = logging.getLogger(__name__)

MAX_MESSAGES: Final = 500
WINDOW_S: Final = 0.02
RETRY_FIRST_S: Final = 0.05
RETRY_MOST_S: Final = 5.0
COMMITS_REMEMBERED: Final = 1_000


@dataclass(slots=True, kw_only=True)
class Counts:
    """What ingest has done since it started; written by the worker's thread only.

    `held` counts messages of unknown devices, `refused` and `failed` records (or messages that cannot be read).
    """

    messages: int = 0
    accepted: int = 0
    duplicate: int = 0
    refused: int = 0
    held: int = 0
    failed: int = 0
    states: int = 0
    commits: int = 0
    retries: int = 0
    commit_s: float = 0.0
    commit_max_s: float = 0.0


class Ingest:
    """Takes everything devices send, and wakes devices (it is the fleet's `Announcer`).

    Args:
        engine: of the database.
        address: host and port of the broker.
        protocol: `5`, `3.1.1` or `auto`.
        fleet_seams: where messages go; the fleet's own slices by default.
        share: whose messages are taken.
        capacity: messages that may wait for the database.
    """

    def __init__(
        self,
        engine: Engine,
        address: tuple[str, int],
        protocol: str = "auto",
        *,
        fleet_seams: seams.Seams | None = None,
        now: clock.Now = clock.utc_now,
        share: shards.Share = shards.WHOLE,
        capacity: int = CAPACITY,
        max_messages: int = MAX_MESSAGES,
        window_s: float = WINDOW_S,
    ) -> None:
        self._engine = engine
        self._seams = fleet_seams or seams.of_the_fleet()
        self._now = now
        self._max_messages = max_messages
        self._window_s = window_s
        self._inbox = Inbox(capacity)
        self._link = IngestLink(address, protocol, self._inbox, mint=Mint(), now=now, subscriptions=share.subscriptions)
        self._beat = Beat(engine, share, self.status, now=now)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._counts = Counts()
        self._commit_seconds: deque[float] = deque(maxlen=COMMITS_REMEMBERED)

    def start(self) -> None:
        """Start both threads; the link connects by itself as soon as the broker answers."""
        self._thread = threading.Thread(target=self._run, name="ingest-worker", daemon=True)
        self._thread.start()
        self._link.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Finish the transaction at hand, acknowledge it, and end; what is not committed is sent again later."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._link.stop(timeout_s)

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the subscription stands."""
        return self._link.wait_connected(timeout_s)

    def wake(self, device: str, desired_revision: int) -> None:
        """Hint to a device that its desired document changed; never waits and never raises."""
        self._link.wake(device, desired_revision)

    def status(self) -> dict[str, Any]:
        """Return the counters and whether ingest works, for the API."""
        counts = self._counts
        return {
            "connected": self._link.connected,
            "running": self._thread is not None and self._thread.is_alive(),
            "waiting": len(self._inbox),
            "waiting_bytes": self._inbox.waiting_bytes,
            "received": self._link.received,
            "connections": self._link.connections,
            **{name: getattr(counts, name) for name in Counts.__dataclass_fields__},
            "commit_p99_s": _p99(self._commit_seconds.copy()),
        }

    def commit_seconds(self) -> list[float]:
        """Return how long the latest transactions took, from their first statement to the end of the commit."""
        return list(self._commit_seconds)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._beat.tell()
            deliveries = self._inbox.take(self._max_messages, self._window_s, timeout_s=0.2)
            if deliveries:
                self._process(deliveries)
        self._beat.tell(last=True)

    def _process(self, deliveries: Sequence[Delivery]) -> None:
        """Commit the messages, trying again until the database takes them or ingest is told to stop."""
        attempt, isolated = 0, False
        while not self._stop.is_set() or attempt == 0:
            try:
                outcome = self._commit(self._route(deliveries, isolated=isolated), isolated=isolated)
            except Exception as error:  # noqa: BLE001 - top of the thread: nothing is acknowledged, and it tries again
                if not isolated and not isolate.is_of_the_database(error):
                    isolated = True
                    continue
                attempt += 1
                self._counts.retries += 1
                self._report_retry(error, attempt)
                most_s = min(RETRY_MOST_S, RETRY_FIRST_S * 2 ** min(attempt, 10))
                self._stop.wait(random.uniform(RETRY_FIRST_S, most_s))  # noqa: S311 - spreads retries
                continue
            self._link.settle(deliveries, acks.of(outcome.accepted, outcome.rejects))
            self._count(deliveries, outcome)
            return

    def _route(self, deliveries: Sequence[Delivery], *, isolated: bool) -> list[Routed]:
        names = {name for delivery in deliveries if (name := device_of(delivery.topic)) is not None}
        with db.read_session(self._engine) as session:
            standings = self._seams.standing_of(session, names)

        def standing(device: str) -> Standing:
            return standings.get(device, Standing.UNKNOWN)

        routed: list[Routed] = []
        for one in deliveries:
            with isolate.Fence(None, active=isolated) as fence:
                routed.append(route(one.topic, one.payload, standing, one.received_at))
            if fence.error is not None:
                reject = whole(one.topic, device_of(one.topic), one.payload, isolate.as_lineside(fence.error))
                routed.append(Routed(rejects=(reject,)))
        return routed

    def _commit(self, routed: Sequence[Routed], *, isolated: bool) -> commit.Outcome:
        began = time.monotonic()
        outcome = commit.put(self._engine, self._seams, routed, isolated=isolated, now=self._now())
        spent = time.monotonic() - began
        self._counts.commit_s += spent
        self._counts.commit_max_s = max(self._counts.commit_max_s, spent)
        self._commit_seconds.append(spent)
        return outcome

    def _count(self, deliveries: Sequence[Delivery], outcome: commit.Outcome) -> None:
        counts = self._counts
        counts.messages += len(deliveries)
        counts.accepted += len(outcome.accepted)
        counts.duplicate += outcome.duplicates
        counts.refused += sum(
            reject.seqs.last - reject.seqs.first + 1 if reject.seqs else 1
            for reject in outcome.rejects
            if not reject.held
        )
        counts.held += sum(reject.held for reject in outcome.rejects)
        counts.failed += len(outcome.failed)
        counts.states += outcome.states
        counts.commits += 1

    def _report_retry(self, error: Exception, attempt: int) -> None:
        if attempt == 1 or attempt % 20 == 0:
            log.error(
                "The database did not take a batch; ingest acknowledges nothing and tries again.",
                exc_info=error,
                extra={"event": "ingest.commit_failed", "attempt": attempt},
            )


def _p99(seconds: Collection[float]) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * 0.99))] if seconds else 0.0
