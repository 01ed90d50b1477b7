"""The agent's composition root: builds every part once, starts the threads, and ends them in order."""

from __future__ import annotations

import logging
import platform
import sys
import threading
from functools import partial
from typing import Final

import cv2
import onnxruntime

from agent import identity
from agent.capture.encode import PictureKeeper
from agent.capture.feed import Feed
from agent.capture.frame import SourceInfo
from agent.capture.sources import source_of
from agent.clock import SystemClock
from agent.deploy import compatibility, selftest
from agent.deploy.journal import Journal
from agent.deploy.runner import Runner
from agent.deploy.store import Store
from agent.desired import DesiredKeeper
from agent.health import cores, memory, time_quality
from agent.health.probes import Probes
from agent.health.reporter import HIGH_WATER_KEY, Overview, Reporter
from agent.inspection.records import TimeQuality
from agent.inspection.setup import own_setup
from agent.inspection.stations import Stations
from agent.inspection.worker import StationWorker
from agent.keeper import Keeper
from agent.line.each_frame import EachFrame
from agent.line.modbus_client import ModbusClientLine
from agent.line.modbus_server import ModbusServerLine
from agent.line.simulated import SimulatedController
from agent.line.trigger import Line
from agent.settings import Settings, StationSettings
from agent.settings_checks import host_port
from agent.threads import Worker
from agent.uplink.fleet_api import FleetApi
from agent.uplink.link import Link, LinkSettings
from agent.uplink.outbox import Outbox
from agent.uplink.picture_spool import PictureSpool
from agent.uplink.pictures import PictureUploader
from agent.version import VERSION
from agent.vision.runtime import RuntimeOptions
from wire import mint
from wire.deployment import DeploymentReport
from wire.inspection import Mode
from wire.messages import Command, CommandName, Event, Lane, Reported, RunningModel, Severity

log = logging.getLogger(__name__)

_BOOT_KEY: Final = "boot"
_SALT_KEY: Final = "sampling_salt"
_JOIN_TIMEOUT_S: Final = 5.0
_MOST_THREADS: Final = 4
_SWITCH_INTERVAL_S: Final = 0.0005
_MIB: Final = 1024 * 1024


def run(settings: Settings, stop: threading.Event) -> None:
    """Run the agent until `stop` is set.

    Raises:
        LinesideError: where it cannot start: not enrolled, a source that cannot be opened, no right to its data folder.
    """
    enrolment = identity.read(settings.data_dir, settings.device.id)
    agent = Agent(
        settings,
        credential=enrolment.credential,
        mqtt_host=settings.mqtt.host or enrolment.mqtt_host,
        mqtt_port=settings.mqtt.port or enrolment.mqtt_port,
    )
    agent.start()
    try:
        stop.wait()
    finally:
        agent.close()


class Agent:
    """All parts of one agent, wired together; no decision is made here."""

    def __init__(self, settings: Settings, *, credential: str, mqtt_host: str, mqtt_port: int) -> None:
        # One frame stays on one thread; OpenCV's own pool would only fight with the runtime's threads.
        cv2.setNumThreads(1)
        memory.limit_arenas()
        # A thread back from the runtime or the decoder must not wait 5 ms for another one that holds the interpreter.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._settings = settings
        device = settings.device.id
        data_dir = settings.data_dir
        self._clock = SystemClock()
        data_dir.mkdir(parents=True, exist_ok=True)
        self._outbox = Outbox(
            data_dir / "outbox.db",
            self._clock,
            device=device,
            max_bytes=settings.outbox.max_mb * _MIB,
            resend_after_s=settings.mqtt.resend_after_s,
        )
        # Seconds since 1970 keep the count growing also when the outbox had to be set aside and the count with it.
        boot = max(int(self._outbox.meta_get(_BOOT_KEY) or 0) + 1, mint.clock_ms() // 1000)
        self._outbox.meta_set(_BOOT_KEY, str(boot))
        self._mint = mint.Mint(int(self._outbox.meta_get(HIGH_WATER_KEY) or 0))
        self._wall_clock = time_quality.WallClock(self._clock, lambda: self._mint.high_water_ms)
        self._api = FleetApi(settings.fleet.url, device, credential)
        spool = PictureSpool(data_dir / "pictures", max_bytes=settings.outbox.pictures_max_mb * _MIB)
        self._outbox.borrow_from(spool)
        self._pictures = PictureUploader(spool, self._api, self._clock)
        self._keeper_of_pictures = PictureKeeper(self._pictures)
        self._feeds: dict[str, dict[str, Feed]] = {}
        self._lines: list[Line] = []
        self._stations = {station.id: self._station(station) for station in settings.stations}
        options = RuntimeOptions(
            threads=settings.runtime.threads, provider=settings.runtime.provider, cache_dir=data_dir / "cache"
        )
        self._models = Stations(self._stations, options, self._deployment_of)
        self._store = Store(data_dir / "models")
        self._link = Link(
            LinkSettings(
                device=device,
                host=mqtt_host,
                port=mqtt_port,
                protocol=settings.mqtt.protocol,
                boot=boot,
            ),
            self._outbox,
            self._clock,
            on_wake=self._wake,
            on_command=self._obey,
        )
        self._runner = Runner(
            store=self._store,
            journal=Journal(data_dir / "models" / "journal", self._clock),
            api=self._api,
            activator=self._models,
            reports=self._put_report,
            clock=self._clock,
            device=compatibility.this_device(settings.runtime.provider),
            tester=selftest.tester_of(
                selftest.SelfTestOptions(provider=settings.runtime.provider, threads=settings.runtime.threads)
            ),
        )
        self._keeper = Keeper(
            desired=DesiredKeeper(data_dir, device, self._api),
            runner=self._runner,
            stations=self._models,
            on_change=self._report,
            clock=self._clock,
            poll_interval_s=settings.fleet.poll_interval_s,
        )
        self._threads = [
            *(
                Worker(f"station-{name}-{number}", partial(worker.run, number=number))
                for name, worker in self._stations.items()
                for number in range(worker.thread_count)
            ),
            Worker("keeper", self._keeper.run),
        ]
        self._reporter = Reporter(
            device=device,
            agent_version=VERSION,
            data_dir=data_dir,
            outbox=self._outbox,
            probes=Probes(data_dir),
            workers=self._stations,
            feeds=self._feeds,
            threads=[*self._threads, *self._readers()],
            heartbeats={
                "uplink": lambda: self._link.heartbeat_ns,
                "pictures": lambda: self._pictures.heartbeat_ns,
                "outbox-flusher": lambda: self._outbox.heartbeat_ns,
            },
            overview=self._overview,
            clock=self._clock,
            mint=self._mint,
            interval_s=settings.health.interval_s,
        )
        self._threads.append(Worker("reporter", self._reporter.run))

    def start(self) -> None:
        """Start all threads; the stations first, so that no trigger waits for a network."""
        for thread in self._threads:
            thread.start()
        self._pictures.start()
        self._report()
        self._link.start()
        log.info("%s runs.", self._settings.device.id, extra={"event": "agent.started"})

    def close(self) -> None:
        """Stop judging first, then send what can be sent, then close the files."""
        for line in self._lines:
            line.close()
        for thread in self._threads:
            if not thread.join(_JOIN_TIMEOUT_S):
                log.error("Thread %s did not end.", thread.name, extra={"event": "thread.stuck"})
        self._reporter.flush_counters()
        for feeds in self._feeds.values():
            for feed in feeds.values():
                feed.close()
        self._keeper_of_pictures.close()
        self._pictures.stop(_JOIN_TIMEOUT_S)
        self._link.stop(_JOIN_TIMEOUT_S)
        self._api.close()
        self._outbox.close()
        log.info("%s has stopped.", self._settings.device.id, extra={"event": "agent.stopped"})

    def _readers(self) -> list[Worker]:
        return [feed.worker for feeds in self._feeds.values() for feed in feeds.values() if feed.worker is not None]

    def _station(self, station: StationSettings) -> StationWorker:
        line = self._line(station)
        self._lines.append(line)
        feeds = {
            view.id: Feed(source_of(view.id, view.source, self._clock), policy=view.source.policy)
            for view in station.views
        }
        self._feeds[station.id] = feeds
        opened: dict[str, SourceInfo] = {view: feed.open() for view, feed in feeds.items()}
        return StationWorker(
            device=self._settings.device.id,
            settings=station,
            line=line,
            feeds=feeds,
            time_classes={view: info.time_class for view, info in opened.items()},
            setup=own_setup(station, self._sampling_salt()),
            outbox=self._outbox,
            pictures=self._keeper_of_pictures,
            mint=self._mint,
            clock=self._clock,
            time_quality=self._time_quality,
            thread_count=_thread_count(self._settings, station),
        )

    def _line(self, station: StationSettings) -> Line:
        if station.line.kind == "each_frame":
            return EachFrame(self._clock, self._mint, Mode(station.line.mode))
        modbus = station.line.modbus
        if station.line.kind == "modbus" and modbus is not None:
            if modbus.role == "server":
                return ModbusServerLine(modbus, self._clock, station.id)
            # A part whose moment is less certain than a frame may be off would be judged by its neighbour's picture.
            return ModbusClientLine(modbus, self._clock, station.id, trust_ms=station.frame_tolerance_ms)
        host, port = host_port(station.line.address or "")
        return SimulatedController(host, port, self._clock, station.id)

    def _sampling_salt(self) -> str:
        """The salt of the device's own sampling plan, made once."""
        salt = self._outbox.meta_get(_SALT_KEY)
        if salt is None:
            salt = mint.salt()
            self._outbox.meta_set(_SALT_KEY, salt)
        return salt

    def _time_quality(self) -> TimeQuality:
        return self._wall_clock.quality()

    def _running(self) -> tuple[RunningModel, ...]:
        return tuple(
            RunningModel(
                model=model,
                digest=self._models.inferring(model),
                previous_digest=self._store.installed(model).previous,
                provider=self._models.provider(model),
                deployment_id=self._models.deployment_id(model),
            )
            for model in self._models.models
        )

    def _report(self) -> None:
        """Tell the fleet, as the reported document, what runs now."""
        self._link.set_reported(
            Reported(
                desired_revision=self._keeper.desired_revision,
                agent_version=VERSION,
                runtime_version=onnxruntime.__version__,
                architecture=platform.machine(),
                models=self._running(),
                refusals=self._keeper.refusals,
            )
        )

    def _overview(self) -> Overview:
        return Overview(
            connected=self._link.connected,
            mqtt_protocol=self._link.protocol,
            desired_revision=self._keeper.desired_revision,
            pictures_waiting=self._pictures.stats().waiting,
            models=self._running(),
            refusals=self._keeper.refusals,
        )

    def _deployment_of(self, model: str, digest: str) -> str | None:
        return self._runner.deployment_of(model, digest)

    def _put_report(self, report: DeploymentReport) -> None:
        self._outbox.put(Lane.DEPLOYMENTS, report)

    def _wake(self) -> None:
        self._keeper.wake()

    def _obey(self, command: Command) -> None:
        if command.name is CommandName.SEND_HEALTH:
            self._reporter.send_soon()
        else:
            self._report()
        self._outbox.put(
            Lane.EVENTS,
            Event(
                at=self._clock.now_utc(),
                name="command.finished",
                severity=Severity.NOTE,
                text=f"{command.name.value} {command.id}",
            ),
        )


def _thread_count(settings: Settings, station: StationSettings) -> int:
    """Parts of a line come one at a time; frames of a clip keep all cores busy."""
    if settings.runtime.station_threads is not None:
        return settings.runtime.station_threads
    return min(cores.usable(), _MOST_THREADS) if station.line.kind == "each_frame" else 1
