"""Reports how the device is: health to the fleet, troubles as they begin and end, status to the file beside it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from agent import status as status_file
from agent import threads
from agent.clock import Clock
from agent.health import exposition, fit, station_report, troubles
from agent.health.probes import DeviceReading, Probes
from agent.health.rates import FrameRates
from agent.health.station_report import Feed, Report, Surroundings, Worker
from agent.status import DeploymentStatus, Status
from wire.errors import LinesideError
from wire.messages import Event, Health, Lane, PictureWindow, RunningModel, Severity
from wire.mint import Mint

log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
_COUNTERS_EVERY_S: Final = 5.0
_READ_EVERY_S: Final = 5.0
# Cameras open and models load; what is still wrong after that is told.
_TROUBLES_AFTER_S: Final = 10.0
_EVENTS_WAITING_MOST: Final = 100
# Threads that talk to the network rest up to a minute between two tries, and one try may take as long.
_NETWORK_STALLED_AFTER_NS: Final = 180_000_000_000
# The wire's own bounds (wire.messages.Health).
_THREADS_MOST: Final = 50
_PROCESSES_MOST: Final = 64
HIGH_WATER_KEY: Final = "mint_high_water_ms"
_TROUBLES_KEY: Final = "troubles_told"


class OutboxStats(Protocol):
    """How full the outbox is."""

    @property
    def unsettled(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def dropped_by_lane(self) -> Mapping[Lane, int]: ...


class Outbox(Protocol):
    """What is needed of the outbox."""

    def put(self, lane: Lane, body: object) -> int: ...
    def stats(self) -> OutboxStats: ...
    def emit_counters(self) -> int: ...
    def meta_get(self, key: str) -> str | None: ...
    def meta_set(self, key: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What other parts tell about themselves for the status file; `local_address` is host:port."""

    connected: bool
    mqtt_protocol: str | None
    desired_revision: int
    pictures_waiting: int
    models: tuple[RunningModel, ...]
    refusals: tuple[str, ...]
    local_address: str | None = None
    pictures_dropped: tuple[PictureWindow, ...] = ()
    deployments: tuple[DeploymentStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One look at everything."""

    health: Health
    status: Status


class Reporter:
    """Ticks once a second: status file and troubles each time, counters and health at their intervals.

    Args:
        workers, feeds: by station; feeds by view.
        around: by station, what stands around it; a station may be missing.
        threads: of the agent; named where one does not answer.
        heartbeats: monotonic clock in ns of threads that talk to the network.
        interval_s: between two healths.
    """

    def __init__(
        self,
        *,
        device: str,
        agent_version: str,
        data_dir: Path,
        outbox: Outbox,
        probes: Probes,
        workers: Mapping[str, Worker],
        feeds: Mapping[str, Mapping[str, Feed]],
        threads: Sequence[threads.Worker],
        heartbeats: Mapping[str, Callable[[], int]],
        overview: Callable[[], Overview],
        clock: Clock,
        mint: Mint,
        interval_s: float,
        around: Mapping[str, Surroundings] | None = None,
    ) -> None:
        self._device = device
        self._agent_version = agent_version
        self._data_dir = data_dir
        self._outbox = outbox
        self._probes = probes
        self._workers = workers
        self._feeds = feeds
        self._around = around or {}
        self._threads = threads
        self._heartbeats = heartbeats
        self._overview = overview
        self._clock = clock
        self._mint = mint
        self.interval_s = interval_s
        self._started = time.monotonic()
        self._send_at = 0.0
        self._rates = FrameRates()
        self._read_at = 0.0
        self._reading: DeviceReading | None = None
        self._lock = threading.Lock()  # one look at a time
        self._last: _Look | None = None
        self._watch = troubles.TroubleWatch(_remembered(outbox.meta_get(_TROUBLES_KEY)))
        self._events: deque[Event] = deque(maxlen=_EVENTS_WAITING_MOST)
        self._untold = False  # what was told has yet to be remembered over a restart

    # What the local address asks; any thread

    def status(self) -> Status:
        """Return what was last written for `lineside status`."""
        return self._latest().status

    def metrics(self) -> str:
        """Return the figures of the last second as Prometheus text."""
        look = self._latest()
        return exposition.metrics(look.health, look.status)

    def send_soon(self) -> None:
        """Send health at the next tick, whatever the interval says."""
        self._send_at = 0.0

    def run(self, worker: threads.Worker) -> None:
        """Report until told to stop."""
        counters_at = 0.0
        failing = False
        while not worker.stop.is_set():
            worker.beat()
            try:
                look = self._look()
                status_file.write(self._data_dir, look.status)
                self._tell_troubles(look)
                if time.monotonic() >= counters_at:
                    counters_at = time.monotonic() + _COUNTERS_EVERY_S
                    self.flush_counters()
                if time.monotonic() >= self._send_at:
                    self._send_at = time.monotonic() + self.interval_s
                    self._outbox.put(Lane.HEALTH, fit.fitted(look.health))
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

    def _latest(self) -> _Look:
        return self._last or self._look()

    def _look(self) -> _Look:
        with self._lock:
            now_ns = time.monotonic_ns()
            reports = {
                station: station_report.look(
                    station,
                    worker,
                    self._feeds.get(station, {}),
                    self._around.get(station, Surroundings()),
                    self._rates,
                    now_ns,
                )
                for station, worker in self._workers.items()
            }
            overview = self._overview()
            health = self._health(reports, overview)
            self._last = _Look(health=health, status=self._status(health, reports, overview))
            return self._last

    def _health(self, reports: Mapping[str, Report], overview: Overview) -> Health:
        stats = self._outbox.stats()
        reading = self._read_device(reports)
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
            threads_stalled=self._stalled()[:_THREADS_MOST],
            stations=tuple(report.status.health for report in reports.values()),
            processes=reading.processes[:_PROCESSES_MOST],
            throttled=reading.throttled,
            clock_offset_ms=reading.clock_offset_ms,
            outbox_dropped_by_lane={lane.value: count for lane, count in stats.dropped_by_lane.items() if count},
            pictures_waiting=overview.pictures_waiting,
            pictures_dropped=overview.pictures_dropped,
        )

    def _read_device(self, reports: Mapping[str, Report]) -> DeviceReading:
        """Measure the device now and then: that costs more than looking at counts."""
        if self._reading is None or time.monotonic() >= self._read_at:
            self._read_at = time.monotonic() + _READ_EVERY_S
            cameras = {
                f"camera {station}/{view}": pid
                for station, report in reports.items()
                for view, pid in report.cameras.items()
            }
            self._reading = self._probes.read(cameras)
        return self._reading

    def _stalled(self) -> tuple[str, ...]:
        silent_since_ns = time.monotonic_ns() - _NETWORK_STALLED_AFTER_NS
        stalled = [thread.name for thread in self._threads if thread.stalled]
        stalled += [name for name, heartbeat_ns in self._heartbeats.items() if heartbeat_ns() < silent_since_ns]
        return tuple(stalled)

    def _status(self, health: Health, reports: Mapping[str, Report], overview: Overview) -> Status:
        return Status(
            device=self._device,
            pid=os.getpid(),
            at=health.at,
            agent_version=self._agent_version,
            connected=overview.connected,
            mqtt_protocol=overview.mqtt_protocol,
            desired_revision=overview.desired_revision,
            outbox_unsettled=health.outbox_unsettled,
            outbox_dropped=health.outbox_dropped,
            pictures_waiting=overview.pictures_waiting,
            models=overview.models,
            refusals=overview.refusals,
            deployments=overview.deployments,
            stations=tuple(report.status for report in reports.values()),
            threads_stalled=health.threads_stalled,
            local_address=overview.local_address,
            health=replace(health, stations=()),
        )

    def _tell_troubles(self, look: _Look) -> None:
        """Tell what has begun or ended; an event that finds no room now is put again with the next look."""
        if time.monotonic() - self._started >= _TROUBLES_AFTER_S:
            stations = look.status.stations
            lines = {station.health.station: station.line_trouble for station in stations}
            outputs = {
                f"{station.health.station}/{output.name}": output.trouble
                for station in stations
                for output in station.outputs
            }
            told = self._watch.look(troubles.troubles_of(look.health, lines, outputs), time.monotonic_ns())
            for one in told:
                level = logging.INFO if one.severity is Severity.NOTE else logging.WARNING
                log.log(level, "%s", one.text, extra={"event": one.name})
                self._events.append(Event(at=look.health.at, name=one.name, severity=one.severity, text=one.text))
            self._untold = self._untold or bool(told)
        while self._events:
            self._outbox.put(Lane.EVENTS, self._events[0])
            self._events.popleft()
        if self._untold:  # after the events: told twice is better than never
            self._outbox.meta_set(_TROUBLES_KEY, json.dumps(self._watch.told))
            self._untold = False


def _remembered(text: str | None) -> dict[str, str]:
    """Return the troubles told before the agent was started anew; what cannot be read is told anew."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(key): str(one) for key, one in value.items()} if isinstance(value, dict) else {}
