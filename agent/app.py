"""The agent's composition root: builds every part once, starts the threads, and ends them in order."""

from __future__ import annotations

import logging
import platform
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import cv2
import onnxruntime

from agent import identity, status
from agent.capture import commissioned
from agent.capture.encode import PictureKeeper
from agent.capture.feed import Feed
from agent.capture.reference import ReferenceStore
from agent.capture.target import CalibrationStore
from agent.clock import SystemClock
from agent.deploy.store import Store
from agent.deploy_assembly import Ground, runner_of, shadow_keeper_of
from agent.desired import DesiredKeeper
from agent.health import cores, memory, time_quality
from agent.health.probes import Probes
from agent.health.reporter import HIGH_WATER_KEY, Overview, Reporter
from agent.inspection.shadow import Shadows
from agent.inspection.stations import Stations
from agent.inspection.turns import Turns
from agent.keeper import Keeper
from agent.local.api import LocalApi
from agent.local.server import LocalServer
from agent.settings import MqttSettings, Settings
from agent.station_assembly import Shared, assemble
from agent.threads import Worker
from agent.uplink import ending
from agent.uplink.connection import Tls
from agent.uplink.ending import Ending
from agent.uplink.fleet_api import FleetApi
from agent.uplink.link import Link, LinkSettings
from agent.uplink.outbox import Outbox
from agent.uplink.picture_spool import PictureSpool
from agent.uplink.pictures import PictureUploader
from agent.version import VERSION
from agent.vision.runtime import RuntimeOptions
from wire import mint
from wire.deployment import DeploymentReport
from wire.errors import LinesideError
from wire.messages import Command, CommandName, Event, Lane, Reported, RunningModel, Severity

log = logging.getLogger(__name__)

_BOOT_KEY: Final = "boot"
_SALT_KEY: Final = "sampling_salt"
_JOIN_TIMEOUT_S: Final = 5.0
_SWITCH_INTERVAL_S: Final = 0.0005
_MIB: Final = 1024 * 1024
_ROOM_AGAIN_S: Final = 5.0


def run(settings: Settings, stop: threading.Event) -> None:
    """Run the agent until `stop` is set.

    Raises:
        LinesideError: where it cannot start: not enrolled, a source that cannot be opened, no right to its data folder.
    """
    enrolment = identity.read(settings.data_dir, settings.device.id)
    agent = _when_there_is_room(
        lambda: Agent(
            settings,
            credential=enrolment.credential,
            mqtt_host=settings.mqtt.host or enrolment.mqtt_host,
            mqtt_port=settings.mqtt.port or enrolment.mqtt_port,
        ),
        stop,
    )
    if agent is None:
        return
    agent.start()
    try:
        stop.wait()
    finally:
        agent.close()


def _when_there_is_room(build: Callable[[], Agent], stop: threading.Event) -> Agent | None:
    """Build the agent as soon as the disk lets it write its marks; None where it is told to stop before that.

    Without its outbox it could record no verdict, and would only divert parts; the line does that by itself meanwhile.
    """
    told = False
    while not stop.is_set():
        try:
            return build()
        except LinesideError as error:
            if error.code != "storage.full":
                raise
            if not told:
                log.error("The agent waits for room on the disk: %s", error, extra={"event": "agent.waits_for_room"})  # noqa: TRY400
            told = True
        stop.wait(_ROOM_AGAIN_S)
    return None


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
        try:
            self._outbox.meta_set(_BOOT_KEY, str(boot))
            salt = self._sampling_salt()
            self._former_end = ending.former(self._outbox)
            self._store = Store(data_dir / "models")
            self._spool = PictureSpool(data_dir / "pictures", max_bytes=settings.outbox.pictures_max_mb * _MIB)
        except LinesideError:
            self._outbox.close()
            raise
        self._mint = mint.Mint(int(self._outbox.meta_get(HIGH_WATER_KEY) or 0))
        self._wall_clock = time_quality.WallClock(self._clock, lambda: self._mint.high_water_ms)
        self._api = FleetApi(settings.fleet.url, device, credential)
        self._outbox.borrow_from(self._spool)
        self._pictures = PictureUploader(self._spool, self._api, self._clock)
        self._keeper_of_pictures = PictureKeeper(self._pictures)
        turns = Turns(max(1, cores.usable() // settings.runtime.threads), self._clock)
        self._shadows = Shadows(turns=turns, outbox=self._outbox, spool=self._pictures, clock=self._clock)
        stations = Shared(
            device=device,
            clock=self._clock,
            mint=self._mint,
            outbox=self._outbox,
            pictures=self._keeper_of_pictures,
            references=ReferenceStore(commissioned.root_of(data_dir)),
            turns=turns,
            runtime=settings.runtime,
            sampling_salt=salt,
            time_quality=self._wall_clock.quality,
            tell=self._tell,
            shadows=self._shadows,
        )
        self._stations = {station.id: assemble(station, stations) for station in settings.stations}
        workers = {name: station.worker for name, station in self._stations.items()}
        feeds = {name: station.feeds for name, station in self._stations.items()}
        options = RuntimeOptions(
            threads=settings.runtime.threads, provider=settings.runtime.provider, cache_dir=data_dir / "cache"
        )
        calibrations = CalibrationStore(commissioned.root_of(data_dir))
        self._models = Stations(workers, options, self._deployment_of, calibrations.read)
        self._link = Link(
            LinkSettings(
                device=device,
                host=mqtt_host,
                port=mqtt_port,
                protocol=settings.mqtt.protocol,
                boot=boot,
                tls=_tls(settings.mqtt),
                compress=settings.mqtt.compress,
            ),
            self._outbox,
            self._clock,
            on_wake=self._wake,
            on_command=self._obey,
            tell=self._tell,
        )
        ground = Ground(
            settings=settings,
            store=self._store,
            api=self._api,
            clock=self._clock,
            stations=self._models,
            runtime=options,
            tell=self._tell,
            is_clock_right=self._wall_clock.is_right,
        )
        killed = self._former_end is Ending.KILLED
        self._runner = runner_of(ground, self._put_report)
        self._candidates = shadow_keeper_of(
            ground, self._runner, self._shadows, calibrations.read, self._changed, killed=killed
        )
        self._keeper = Keeper(
            desired=DesiredKeeper(data_dir, device, self._api),
            runner=self._runner,
            stations=self._models,
            on_change=self._changed,
            clock=self._clock,
            poll_interval_s=settings.fleet.poll_interval_s,
            shadows=self._candidates,
            former_end=self._former_end,
        )
        self._threads = [
            *(
                Worker(f"station-{name}-{number}", partial(worker.run, number=number))
                for name, worker in workers.items()
                for number in range(worker.thread_count)
            ),
            Worker("keeper", self._keeper.run),
            Worker("shadow", self._shadows.run),
        ]
        self._reporter = Reporter(
            device=device,
            agent_version=VERSION,
            data_dir=data_dir,
            outbox=self._outbox,
            probes=Probes(data_dir),
            workers=workers,
            feeds=feeds,
            around={name: station.around for name, station in self._stations.items()},
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
        self._local = self._local_server(feeds) if settings.local.enabled else None

    def start(self) -> None:
        """Start all threads; the stations first, so that no trigger waits for a network.

        Raises:
            LinesideError: `storage.full` where that the run has begun cannot be noted.
        """
        ending.begin(self._outbox)
        self._tell_former_end()
        for thread in self._threads:
            thread.start()
        self._pictures.start()
        if self._local is not None:
            self._local.start()
        self._report()
        self._link.start()
        log.info("%s runs.", self._settings.device.id, extra={"event": "agent.started"})

    def close(self) -> None:
        """Stop judging first, then send what can be sent, then close the files."""
        for station in self._stations.values():
            station.stop_line()
        if self._local is not None:
            self._local.close()
        self._shadows.close()
        for thread in self._threads:
            if not thread.join(_JOIN_TIMEOUT_S):
                log.error("Thread %s did not end.", thread.name, extra={"event": "thread.stuck"})
        self._reporter.flush_counters()
        for station in self._stations.values():
            station.close_cameras()
        self._keeper_of_pictures.close()
        self._pictures.stop(_JOIN_TIMEOUT_S)
        self._link.stop(_JOIN_TIMEOUT_S)
        self._api.close()
        self._note_end()
        self._outbox.close()
        log.info("%s has stopped.", self._settings.device.id, extra={"event": "agent.stopped"})

    def _tell_former_end(self) -> None:
        """A verdict may have left whose record a power cut took: a person must know that there may be a hole."""
        if self._former_end is Ending.POWER_CUT:
            self._tell(
                "agent.power_lost",
                Severity.ALARM,
                "The machine went down while the agent ran: records of the last "
                f"{ending.SYNC_WITHIN_MS} ms before may be missing. Parts of a line that counts show as agent_down.",
            )
        elif self._former_end is Ending.KILLED:
            self._tell("agent.killed", Severity.WARNING, "The agent ended without notice; no record was lost.")

    def _note_end(self) -> None:
        try:
            ending.end(self._outbox)
        except LinesideError as error:
            log.warning("The end cannot be noted: %s", error, extra={"event": "agent.end_not_noted"})

    def _readers(self) -> list[Worker]:
        feeds = [feed for station in self._stations.values() for feed in station.feeds.values()]
        return [feed.worker for feed in feeds if feed.worker is not None]

    def _local_server(self, feeds: Mapping[str, Mapping[str, Feed]]) -> LocalServer:
        stations = self._stations
        local = self._settings.local
        api = LocalApi(
            device=self._settings.device.id,
            status=self._reporter.status,
            metrics=self._reporter.metrics,
            counters={name: station.http for name, station in stations.items() if station.http is not None},
            desks={name: station.worker for name, station in stations.items()},
            views=feeds,
            keep_reference=lambda station, view, image_bgr: stations[station].keep_reference(
                view, image_bgr, self._clock.now_utc()
            ),
        )
        return LocalServer(local.host, local.port, api.routes(), allow_network=local.allow_network)

    def _sampling_salt(self) -> str:
        """The salt of the device's own sampling plan, made once."""
        salt = self._outbox.meta_get(_SALT_KEY)
        if salt is None:
            salt = mint.salt()
            self._outbox.meta_set(_SALT_KEY, salt)
        return salt

    def _running(self) -> tuple[RunningModel, ...]:
        return tuple(
            RunningModel(
                model=model,
                digest=self._models.inferring(model),
                previous_digest=self._store.installed(model).previous,
                provider=self._models.provider(model),
                deployment_id=self._models.deployment_id(model),
                shadow_digest=(self._shadows.running(model) or (None,))[0],
                shadow_trouble=self._candidates.trouble(model),
            )
            for model in self._models.models
        )

    def _changed(self) -> None:
        """What is desired, or what runs, is another than before."""
        self._reporter.interval_s = self._keeper.health_interval_s or self._settings.health.interval_s
        self._report()

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
            pictures_dropped=self._spool.windows(),
            models=self._running(),
            refusals=self._keeper.refusals,
            local_address=self._local.address if self._local is not None else None,
            deployments=tuple(status.deployment_status(attempt) for attempt in self._runner.under_way()),
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
        self._tell("command.finished", Severity.NOTE, f"{command.name.value} {command.id}")

    def _tell(self, name: str, severity: Severity, text: str) -> None:
        """Tell the fleet of an event; a full disk must not stop what it tells of."""
        try:
            self._outbox.put(
                Lane.EVENTS, Event(at=self._clock.now_utc(), name=name, severity=severity, text=text[:1000])
            )
        except LinesideError as error:
            log.warning("The event %s is not told: %s", name, error, extra={"event": "event.lost"})


def _tls(mqtt: MqttSettings) -> Tls | None:
    if mqtt.ca_file is None:
        return None
    return Tls(ca_file=mqtt.ca_file, certificate_file=mqtt.certificate_file, key_file=mqtt.key_file)
