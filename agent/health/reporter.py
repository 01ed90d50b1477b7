"""Reports how the device is: health to the fleet, status to the file beside it, counters on their way."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from agent import status
from agent.capture.feed import Feed
from agent.clock import Clock
from agent.health.probes import Probes
from agent.inspection.worker import StationWorker
from agent.threads import Worker
from wire.errors import LinesideError
from wire.messages import Health, Lane, RunningModel, StationHealth
from wire.mint import Mint

log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
_COUNTERS_EVERY_S: Final = 5.0
# Threads that talk to the network rest up to a minute between two tries, and one try may take as long.
_NETWORK_STALLED_AFTER_NS: Final = 180_000_000_000
HIGH_WATER_KEY: Final = "mint_high_water_ms"


class OutboxStats(Protocol):
    """How full the outbox is."""

    @property
    def unsettled(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def dropped(self) -> int: ...


class Outbox(Protocol):
    """What is needed of the outbox."""

    def put(self, lane: Lane, body: object) -> int: ...
    def stats(self) -> OutboxStats: ...
    def emit_counters(self) -> int: ...
    def meta_set(self, key: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What other parts tell about themselves for the status file."""

    connected: bool
    mqtt_protocol: str | None
    desired_revision: int
    pictures_waiting: int
    models: tuple[RunningModel, ...]
    refusals: tuple[str, ...]


class Reporter:
    """Ticks once a second: status file each time, counters and health at their intervals."""

    def __init__(
        self,
        *,
        device: str,
        agent_version: str,
        data_dir: Path,
        outbox: Outbox,
        probes: Probes,
        workers: Mapping[str, StationWorker],
        feeds: Mapping[str, Mapping[str, Feed]],
        threads: Sequence[Worker],
        heartbeats: Mapping[str, Callable[[], int]],
        overview: Callable[[], Overview],
        clock: Clock,
        mint: Mint,
        interval_s: float,
    ) -> None:
        self._device = device
        self._agent_version = agent_version
        self._data_dir = data_dir
        self._outbox = outbox
        self._probes = probes
        self._workers = workers
        self._feeds = feeds
        self._threads = threads
        self._heartbeats = heartbeats
        self._overview = overview
        self._clock = clock
        self._mint = mint
        self.interval_s = interval_s
        self._started = time.monotonic()
        self._send_at = 0.0

    def send_soon(self) -> None:
        """Send health at the next tick, whatever the interval says."""
        self._send_at = 0.0

    def run(self, worker: Worker) -> None:
        """Report until told to stop."""
        counters_at = 0.0
        failing = False
        while not worker.stop.is_set():
            worker.beat()
            try:
                self._write_status()
                if time.monotonic() >= counters_at:
                    counters_at = time.monotonic() + _COUNTERS_EVERY_S
                    self.flush_counters()
                if time.monotonic() >= self._send_at:
                    self._send_at = time.monotonic() + self.interval_s
                    self._outbox.put(Lane.HEALTH, self._health())
                failing = False
            except (LinesideError, OSError) as error:
                if not failing:  # told once, not with each second
                    log.warning("Health cannot be kept: %s", error, extra={"event": "health.failed"})
                failing = True
            self._clock.wait(worker.stop, _TICK_S)

    def flush_counters(self) -> None:
        """Put changed counters on their way, and remember the latest time used in an id."""
        self._outbox.emit_counters()
        self._outbox.meta_set(HIGH_WATER_KEY, str(self._mint.high_water_ms))

    def _stalled(self) -> tuple[str, ...]:
        silent_since_ns = time.monotonic_ns() - _NETWORK_STALLED_AFTER_NS
        stalled = [thread.name for thread in self._threads if thread.stalled]
        stalled += [name for name, heartbeat_ns in self._heartbeats.items() if heartbeat_ns() < silent_since_ns]
        return tuple(stalled)

    def _health(self) -> Health:
        reading = self._probes.read()
        stats = self._outbox.stats()
        return Health(
            at=self._clock.now_utc(),
            uptime_s=time.monotonic() - self._started,
            cpu_fraction=reading.cpu_fraction,
            rss_bytes=reading.rss_bytes,
            disk_free_bytes=reading.disk_free_bytes,
            disk_free_fraction=reading.disk_free_fraction,
            temperature_c=reading.temperature_c,
            outbox_unsettled=stats.unsettled,
            outbox_bytes=stats.bytes,
            outbox_dropped=stats.dropped,
            threads_stalled=self._stalled(),
            stations=tuple(self._station(station) for station in self._workers),
        )

    def _station(self, station: str) -> StationHealth:
        worker = self._workers[station]
        counts = [feed.counts() for feed in self._feeds[station].values()]
        percentiles = worker.tally.percentiles_ms()
        return StationHealth(
            station=station,
            triggers=worker.tally.received + worker.missed_count,
            verdicts=worker.tally.answered + worker.missed_count,
            frames_in=sum(count.frames_in for count in counts),
            frames_used=sum(count.used for count in counts),
            frames_not_triggered=sum(count.not_triggered for count in counts),
            frames_dropped=sum(sum(count.dropped.values()) for count in counts),
            latency_p50_ms=percentiles[0] if percentiles else None,
            latency_p99_ms=percentiles[1] if percentiles else None,
        )

    def _write_status(self) -> None:
        overview = self._overview()
        stats = self._outbox.stats()
        stations = tuple(
            status.StationStatus(
                health=self._station(name),
                ready=worker.setup.ready,
                verdicts=worker.tally.verdicts,
                steps_ms=worker.tally.step_percentiles_ms(),
                missed=worker.missed_count,
                unrecorded=worker.tally.unrecorded,
            )
            for name, worker in self._workers.items()
        )
        status.write(
            self._data_dir,
            status.Status(
                device=self._device,
                pid=os.getpid(),
                at=self._clock.now_utc(),
                agent_version=self._agent_version,
                connected=overview.connected,
                mqtt_protocol=overview.mqtt_protocol,
                desired_revision=overview.desired_revision,
                outbox_unsettled=stats.unsettled,
                outbox_dropped=stats.dropped,
                pictures_waiting=overview.pictures_waiting,
                models=overview.models,
                refusals=overview.refusals,
                stations=stations,
                threads_stalled=self._stalled(),
            ),
        )
