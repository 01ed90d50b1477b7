"""The link: one thread that carries the outbox to the broker and brings down what the fleet has to say."""

from __future__ import annotations

import dataclasses
import logging
import random
import socket
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.clock import Clock
from agent.uplink import inbox
from agent.uplink.backoff import Backoff
from agent.uplink.connection import Connection, ProtocolRefusedError, Tls
from agent.uplink.outbox import Outbox
from agent.uplink.presence import Presence
from agent.uplink.protocol import ProtocolChoice
from wire import codec, topics
from wire.errors import LinesideError
from wire.messages import Batch, Command, HostState, Lane, RangeAck, Reported, Severity, Wake

log = logging.getLogger(__name__)

PROTOCOL_MARK: Final = "link.protocol"
# Batches on their way without the fleet's confirmation, by lane: 20 in all, and no lane can keep another waiting.
WINDOW: Final[dict[Lane, int]] = {
    Lane.INSPECTIONS: 15,
    Lane.COUNTERS: 1,
    Lane.DEPLOYMENTS: 1,
    Lane.EVENTS: 1,
    Lane.HEALTH: 1,
    Lane.SHADOW: 1,
}
MAX_UNPUBACKED: Final = 20
_COMPRESSION_LEVEL: Final = 1  # a record is mostly keys and digits: higher levels cost more than they save
_TICK_S: Final = 1.0
# A slow line's records travel a few at a time: each batch costs about 1.5 ms of CPU on both ends, whatever it holds.
# Nobody waits for what a candidate made of a part.
_GATHER_NS: Final[dict[Lane, int]] = {Lane.INSPECTIONS: 250_000_000, Lane.SHADOW: 2_000_000_000}
_GATHERED_ENTRIES: Final = 50
_GUESS_PATIENCE_S: Final = 1.5
_SUBACK_WAIT_NS: Final = 2_000_000_000
_LEAVE_NS: Final = 2_000_000_000
_STABLE_NS: Final = 5_000_000_000
_REMEMBERED_COMMANDS: Final = 64
_PACKET_OVERHEAD_BYTES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """Where the broker is, and the link's patience.

    Args:
        device: this device; also the MQTT client id.
        protocol: "auto", "5" or "3.1.1".
        boot: count of the agent's starts, from its own marks.
        tls: None: the connection is not encrypted.
        compress: whether batches go compressed.
        refused_hold_s: how long a lane rests after the broker refused one of its messages.
    """

    device: str
    host: str
    port: int
    protocol: str = "auto"
    boot: int
    keepalive_s: int = 20
    connect_timeout_s: float = 5.0
    reconnect_first_s: float = 0.2
    reconnect_most_s: float = 30.0
    refused_hold_s: float = 30.0
    tls: Tls | None = None
    compress: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCounts:
    """What the link has done since it started."""

    connections: int = 0
    batches_sent: int = 0
    records_sent: int = 0
    records_settled: int = 0
    records_refused: int = 0
    publishes_refused: int = 0
    undecodable: int = 0
    commands_expired: int = 0
    failures: int = 0


class Link:
    """Sends what the outbox holds, most precious lane first, until the fleet confirms it; reconnects by itself.

    A batch counts as delivered only when the fleet's range acknowledgement says so: neither the broker's PUBACK nor a
    subscription is taken as proof. What is not confirmed goes again after the outbox's time-out, on every reconnect,
    and when ingest says that it began anew.

    Args:
        settings: where to, and how patiently.
        outbox: what to send; also remembers the protocol version.
        clock: for command expiry and waits.
        on_wake: called in the link's thread when the desired document should be read; must return at once.
        on_command: called likewise with a command that is neither expired nor a repetition.
        tell: makes an event for people of its name, severity and text; called in the link's thread.
        rng: a seeded source of jitter for tests.
    """

    def __init__(
        self,
        settings: LinkSettings,
        outbox: Outbox,
        clock: Clock,
        *,
        on_wake: Callable[[], None],
        on_command: Callable[[Command], None],
        tell: Callable[[str, Severity, str], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._clock = clock
        self._on_wake = on_wake
        self._on_command = on_command
        self._tell = tell
        self._backoff = Backoff(settings.reconnect_first_s, settings.reconnect_most_s, rng)
        self._choice = ProtocolChoice(settings.protocol, outbox.meta_get(PROTOCOL_MARK), clock.monotonic_ns())
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)
        self._reported: Reported | None = None
        self._state_wanted = False
        self._connection: Connection | None = None
        self._presence = Presence(settings.device, settings.boot)
        self._state_topic = topics.path("state", settings.device)
        self._pending: dict[int, Batch | None] = {}
        self._held_ns: dict[Lane, int] = {}
        self._gather_until_ns = dict.fromkeys(_GATHER_NS, 0)
        self._host_boot: str | None = None
        self._commands: deque[str] = deque(maxlen=_REMEMBERED_COMMANDS)
        self._counts = LinkCounts()
        self._said: set[str] = set()
        self.heartbeat_ns = time.monotonic_ns()
        outbox.listen(self._wake)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the device and not gone away."""
        connection = self._connection
        return connection is not None and connection.alive

    @property
    def protocol(self) -> str | None:
        """The version spoken now, None while there is no connection."""
        connection = self._connection
        return connection.protocol.value if connection is not None and connection.alive else None

    def counts(self) -> LinkCounts:
        """Return what the link has done so far."""
        return self._counts

    def start(self) -> None:
        """Begin to connect; returns at once, with or without a broker."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Say that the device goes offline, disconnect, and end the thread; what is not confirmed stays on disk."""
        self._stop.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def set_reported(self, reported: Reported) -> None:
        """Publish a reported document now, and again with every birth."""
        self._reported = reported
        self._state_wanted = True
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_out.send(b"\0")
        except BlockingIOError:
            pass  # full of wakes already
        except OSError:
            log.debug("A wake came after the end.")

    def _run(self) -> None:
        while not self._stop.is_set():
            self.heartbeat_ns = time.monotonic_ns()
            try:
                self._serve()
            except LinesideError as error:
                self._say(error.code, error.message, "link.unreachable")
            except Exception:
                self._count(failures=1)
                log.exception("The link failed and begins anew.", extra={"event": "link.failed"})
            finally:
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.close(politely=False)
            if not self._stop.is_set():
                self._clock.wait(self._stop, self._backoff.next_s())

    def _serve(self) -> None:
        """Live through one connection, from the attempt to its end."""
        settings = self._settings
        connection = Connection(
            client_id=settings.device,
            protocol=self._choice.next(self._clock.monotonic_ns()),
            keepalive_s=settings.keepalive_s,
            will=(self._state_topic, self._presence.will()),
            on_message=self._receive,
            on_puback=self._puback,
            wake=self._wake_in,
            tls=settings.tls,
        )
        self._connection = connection
        self._pending = {}
        try:
            # A broker of the old kind may leave a version it does not know without an answer (amqtt 0.12 with a will).
            patience_s = settings.connect_timeout_s
            if self._choice.guessing:
                patience_s = min(patience_s, _GUESS_PATIENCE_S)
            connection.open(settings.host, settings.port, settings.connect_timeout_s, patience_s)
        except ProtocolRefusedError as refusal:
            self._choice.refused(connection.protocol, self._clock.monotonic_ns(), clearly=refusal.clearly)
            raise
        self._count(connections=1)
        self._remember(connection)
        self._said.discard("network.unreachable")
        self._said.discard("broker.unavailable")
        log.info(
            "Connected to the broker at %s:%d by MQTT %s.",
            settings.host,
            settings.port,
            connection.protocol.value,
            extra={"event": "link.connected"},
        )
        # Held lanes stay held: mosquitto 2.0.11 cuts the connection after a refused publish, and what it refuses at
        # once again would keep every other lane waiting.
        self._outbox.unsend_all()
        connection.subscribe([topics.all_down(settings.device), topics.HOST])
        self._state_wanted = True
        while connection.alive and not self._stop.is_set():
            self.heartbeat_ns = time.monotonic_ns()
            self._pump(connection)
            connection.poll(self._patience_s())
            if time.monotonic_ns() - connection.connected_ns > _STABLE_NS:
                self._backoff.reset()
        if self._stop.is_set():
            self._take_leave(connection)
        else:
            log.warning("The broker is gone: %s.", connection.end, extra={"event": "link.disconnected"})

    def _remember(self, connection: Connection) -> None:
        self._choice.connected(connection.protocol)
        try:
            if self._outbox.meta_get(PROTOCOL_MARK) != connection.protocol.value:
                self._outbox.meta_set(PROTOCOL_MARK, connection.protocol.value)
        except LinesideError as error:
            self._say(error.code, error.message, "link.mark_lost")

    def _patience_s(self) -> float:
        now_ns = self._clock.monotonic_ns()
        due = [due_ns for due_ns in (self._outbox.next_due_ns(),) if due_ns is not None]
        due += [until_ns for until_ns in self._gather_until_ns.values() if until_ns > now_ns]
        # A batch that ran out of time may still have to wait for a held lane: never turn the wait into a spin.
        return min([_TICK_S, *(max(0.02, (due_ns - now_ns) / 1e9) for due_ns in due)])

    def _pump(self, connection: Connection) -> None:
        """Send what may be sent now."""
        for problem in connection.subscription_problems:
            self._say(f"subscription {problem}", f"The broker refused a subscription: {problem}.", "link.deaf")
        if not connection.subscribed and time.monotonic_ns() - connection.connected_ns < _SUBACK_WAIT_NS:
            return
        if self._state_wanted:
            self._state_wanted = False
            self._publish_state(connection, self._presence.online(self._clock.now_utc(), self._reported))
        now_ns = self._clock.monotonic_ns()
        window = min(MAX_UNPUBACKED, connection.receive_maximum)
        for lane in Lane:
            if self._held_ns.get(lane, 0) > now_ns:
                continue
            while len(self._pending) < window and self._outbox.in_flight(lane) < WINDOW[lane]:
                room = connection.max_packet_bytes - _PACKET_OVERHEAD_BYTES
                may_live = self._gather_until_ns.get(lane, 0) <= now_ns
                batch = self._outbox.next_batch(lane, room, live=may_live)
                if batch is None:
                    break
                payload = codec.encode(batch)
                if self._settings.compress:
                    payload = zlib.compress(payload, _COMPRESSION_LEVEL)
                packet = connection.publish(topics.path(lane.value, batch.device), payload, retain=False)
                if packet is None:
                    self._outbox.unsend(batch)
                    return
                self._pending[packet] = batch
                self._count(batches_sent=1, records_sent=len(batch.entries))
                is_small = len(batch.entries) < _GATHERED_ENTRIES
                if lane in _GATHER_NS and is_small and self._outbox.is_live(batch):
                    self._gather_until_ns[lane] = now_ns + _GATHER_NS[lane]

    def _take_leave(self, connection: Connection) -> None:
        packet = self._publish_state(connection, self._presence.leave(self._clock.now_utc()))
        deadline_ns = time.monotonic_ns() + _LEAVE_NS
        while packet in self._pending and connection.alive and time.monotonic_ns() < deadline_ns:
            connection.poll(0.1)
        connection.close(politely=True)
        self._connection = None
        log.info("Disconnected from the broker.", extra={"event": "link.stopped"})

    def _publish_state(self, connection: Connection, state: bytes) -> int | None:
        packet = connection.publish(self._state_topic, state, retain=True)
        if packet is not None:
            self._pending[packet] = None
        return packet

    def _puback(self, packet: int, refusal: str) -> None:
        batch = self._pending.pop(packet, None)
        name = "state" if batch is None else batch.lane.value
        if not refusal:
            self._said.discard(f"refused {name}")
            return
        self._count(publishes_refused=1)
        sentence = f"The broker refused a message on {name!r}: {refusal}. It is kept and tried again."
        if self._say(f"refused {name}", sentence, "link.publish_refused") and self._tell is not None:
            self._tell("link.publish_refused", Severity.ALARM, sentence)
        if batch is not None:
            hold_s = self._settings.refused_hold_s
            self._held_ns[batch.lane] = self._clock.monotonic_ns() + int(hold_s * 1e9)
            self._outbox.unsend(batch, hold_s)

    def _receive(self, topic: str, payload: bytes) -> None:
        try:
            message = inbox.read(self._settings.device, topic, payload)
        except LinesideError as error:
            self._count(undecodable=1)
            kind = topic.rsplit("/", 1)[-1] if len(topic) < 200 else "?"
            self._say(f"{error.code} {kind}", error.message, "link.message_refused")
            return
        match message:
            case RangeAck():
                self._settle(message)
            case Wake():
                self._on_wake()
            case Command():
                self._command(message)
            case HostState():
                self._host(message)

    def _settle(self, ack: RangeAck) -> None:
        try:
            settled = self._outbox.settle(ack.epoch, ack.lane, ack.ranges)
            refused = self._outbox.settle(ack.epoch, ack.lane, ack.refused)
        except LinesideError as error:
            self._say(error.code, f"A confirmation could not be noted: {error.message}", "link.settle_failed")
            return
        self._backoff.reset()
        self._count(records_settled=settled, records_refused=refused)
        if refused:
            codes = ", ".join(sorted({refusal.code for refusal in ack.refused}))
            log.error(
                "The fleet refused %d records of %s (%s) and keeps them in quarantine.",
                refused,
                ack.lane.value,
                codes,
                extra={"event": "link.records_refused"},
            )

    def _command(self, command: Command) -> None:
        if command.id in self._commands:
            return
        self._commands.append(command.id)
        if command.expires_at <= self._clock.now_utc():
            self._count(commands_expired=1)
            log.info("Command %s came too late.", command.name.value, extra={"event": "command.expired"})
            return
        self._on_command(command)

    def _host(self, host: HostState) -> None:
        if self._host_boot not in {None, host.boot}:
            log.info("Ingest began anew; what it did not confirm goes again.", extra={"event": "link.host_restarted"})
            self._outbox.unsend_all()
        self._host_boot = host.boot

    def _count(self, **more: int) -> None:
        self._counts = dataclasses.replace(
            self._counts, **{name: getattr(self._counts, name) + number for name, number in more.items()}
        )

    def _say(self, key: str, text: str, event: str) -> bool:
        """Log a trouble once, not once per round; True where it was said."""
        if key in self._said:
            return False
        if len(self._said) < 200:
            self._said.add(key)
        log.error("%s", text, extra={"event": event})
        return True
