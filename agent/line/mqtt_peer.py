"""A connection to a broker of the line: one thread of its own, bounded queues, reconnects by itself for ever.

MQTT 3.1.1, which every broker speaks. Sessions are clean: what was published while nobody listened is not delivered
later, since a trigger of some minutes ago has no frame any more. As in agent/uplink/connection.py, a paho client lives
for one connection only, so that nothing waits inside it unseen.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from agent.capture.address import credentials_in
from agent.line.settings import MqttLineSettings
from agent.line.trigger import OutputCounts
from agent.settings_checks import host_port
from agent.threads import Worker
from agent.uplink.backoff import Backoff
from wire.errors import LinesideError

log = logging.getLogger(__name__)

KEEPALIVE_S: Final = 5
MAX_INBOUND_BYTES: Final = 64 * 1024
_CONNECT_S: Final = 3.0
_WINDOW: Final = 20
_TICK_S: Final = 1.0
_STABLE_S: Final = 5.0  # before that a broker that throws us out at once would be asked without a pause
_LEAVE_S: Final = 1.0
_JOIN_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    topic: str
    payload: bytes
    retain: bool
    offered_s: float


class MqttPeer:
    """Publishes what it is given, in order, at least once; hears some topics.

    Args:
        settings: where the broker is, and how it knows us.
        client_id: unique at the broker: a second client of the same id throws the first one out.
        name: of the thread and in the log.
        topics: to hear; retained messages are left out, they are not of now.
        on_message: gets topic and payload on this peer's thread; must return at once.
        on_connected: called on this peer's thread after each connection.
        state_topic: where the retained state stands.
        gone: the state when we are gone: the broker publishes it for us, within 1.5 times `KEEPALIVE_S` at the latest.
        capacity: messages that may wait for the broker; beyond, the newest is dropped and counted.
        stale_after_s: a message that waited longer is dropped and counted; None keeps it.
        rng: a seeded source of jitter for tests.
    """

    def __init__(
        self,
        settings: MqttLineSettings,
        *,
        client_id: str,
        name: str,
        topics: tuple[str, ...] = (),
        on_message: Callable[[str, bytes], None] | None = None,
        on_connected: Callable[[], None] | None = None,
        state_topic: str,
        gone: bytes,
        capacity: int,
        stale_after_s: float | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._host, self._port = host_port(settings.address)
        self._settings = settings
        self._client_id = client_id
        self._name = name
        self._topics = topics
        self._on_message = on_message
        self._on_connected = on_connected
        self._state_topic = state_topic
        self._gone = gone
        self._state = gone
        self._state_told = False
        self._capacity = capacity
        self._stale_after_s = stale_after_s
        self._backoff = Backoff(0.2, 10.0, rng)
        self._lock = threading.Lock()
        self._waiting: deque[_Message] = deque()
        self._in_flight: dict[int, _Message | None] = {}
        self._sent = self._dropped = self._failed = 0
        self._trouble = "not connected yet"
        self._connack: ReasonCode | None = None
        self._subscribed = False
        self._deaf = ""
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self.worker = Worker(name, self._run)
        self.worker.start()

    @property
    def connected(self) -> bool:
        """Whether the broker has taken us and our subscriptions."""
        return not self._trouble

    def counts(self) -> OutputCounts:
        """Return what became of the messages."""
        with self._lock:
            return OutputCounts(sent=self._sent, dropped=self._dropped, failed=self._failed, trouble=self._trouble)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Queue a message; False where there is no room."""
        message = _Message(topic=topic, payload=payload, retain=retain, offered_s=time.monotonic())
        with self._lock:
            if len(self._waiting) >= self._capacity:
                self._dropped += 1
                return False
            self._waiting.append(message)
        self._wake()
        return True

    def set_state(self, payload: bytes) -> None:
        """Keep a retained state at the broker, now and after each connection; the newest one wins."""
        with self._lock:
            if payload == self._state:
                return
            self._state, self._state_told = payload, False
        self._wake()

    def close(self) -> None:
        """Say that we are gone, send what can be sent in a moment, and end the thread."""
        self.set_state(self._gone)
        self.worker.stop.set()
        self._wake()
        if not self.worker.join(_JOIN_S):
            log.error("Thread %s did not end.", self._name, extra={"event": "thread.stuck"})

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_out.send(b"\0")

    def _run(self, worker: Worker) -> None:
        while not worker.stop.is_set():
            try:
                self._serve(worker)
            except LinesideError as error:
                self._note(error.message)
            except OSError as error:
                self._note(f"The broker at {self._settings.address} cannot be reached: {error}.")
            worker.beat()
            worker.stop.wait(self._backoff.next_s())

    def _serve(self, worker: Worker) -> None:
        """Live through one connection, from the attempt to its end."""
        client = self._client()
        try:
            self._connack, self._subscribed = None, False
            client.connect(self._host, self._port, KEEPALIVE_S)
            self._await(client, lambda: self._connack is not None, "accepts but says nothing")
            if self._connack is not None and self._connack.is_failure:
                raise LinesideError(
                    "broker.unavailable", f"The broker at {self._settings.address} refused us: {self._connack}."
                )
            with contextlib.suppress(OSError, AttributeError):
                client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # type: ignore[union-attr]
            if self._topics:
                client.subscribe([(topic, 1) for topic in self._topics])
                self._await(client, lambda: self._subscribed, "does not answer a subscription")
                if self._deaf:
                    raise LinesideError(
                        "broker.unavailable",
                        f"The broker at {self._settings.address} refused a subscription: {self._deaf}.",
                    )
            self._connected()
            stable_s = time.monotonic() + _STABLE_S
            while client.socket() is not None and not worker.stop.is_set():
                worker.beat()
                if time.monotonic() > stable_s:
                    self._backoff.reset()
                self._pump(client)
                self._poll(client, _TICK_S)
            if worker.stop.is_set():
                self._take_leave(client)
                return
            self._note(f"The broker at {self._settings.address} is gone.")
        finally:
            self._bring_back()
            if (left := client.socket()) is not None:
                with contextlib.suppress(OSError):
                    left.close()

    def _client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=self._client_id, clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311, reconnect_on_failure=False,
        )  # fmt: skip
        client.connect_timeout = _CONNECT_S
        client.max_inflight_messages_set(_WINDOW * 2)
        client.will_set(self._state_topic, self._gone, qos=1, retain=True)
        if self._settings.credentials_file is not None:
            user, password = credentials_in(self._settings.credentials_file)
            client.username_pw_set(user, password)
        if self._settings.ca_file is not None:
            try:
                context = ssl.create_default_context(cafile=self._settings.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise LinesideError(
                    "config.invalid_value", f"The CA in {self._settings.ca_file} cannot be read: {error}."
                ) from error
            client.tls_set_context(context)
        client.on_connect = lambda _client, _data, _flags, reason, _properties: setattr(self, "_connack", reason)
        client.on_subscribe = self._note_subscription
        client.on_message = self._hear
        client.on_publish = lambda _client, _data, mid, _reason, _properties: self._settle(mid)
        return client

    def _await(self, client: mqtt.Client, done: Callable[[], bool], otherwise: str) -> None:
        until = time.monotonic() + _CONNECT_S
        while not done():
            left_s = until - time.monotonic()
            if client.socket() is None or left_s <= 0 or self.worker.stop.is_set():
                what = otherwise if client.socket() is not None else "closed the connection"
                raise LinesideError("broker.unavailable", f"The broker at {self._settings.address} {what}.")
            self._poll(client, min(left_s, 0.2))

    def _connected(self) -> None:
        with self._lock:
            self._state_told = False
            self._trouble = ""
        log.info("Connected to the broker at %s.", self._settings.address, extra={"event": "mqtt_line.connected"})
        if self._on_connected is not None:
            self._on_connected()

    def _pump(self, client: mqtt.Client) -> None:
        """Hand to the network what the window allows."""
        with self._lock:
            state = None if self._state_told else self._state
            self._state_told = True
        if state is not None:
            info = client.publish(self._state_topic, state, qos=1, retain=True)
            self._in_flight[info.mid] = None
        while len(self._in_flight) < _WINDOW and client.socket() is not None:
            with self._lock:
                message = self._waiting.popleft() if self._waiting else None
                if message is not None and self._is_stale(message):
                    self._dropped += 1
                    continue
            if message is None:
                return
            info = client.publish(message.topic, message.payload, qos=1, retain=message.retain)
            if info.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN}:
                with self._lock:
                    self._failed += 1
                continue
            self._in_flight[info.mid] = message

    def _is_stale(self, message: _Message) -> bool:
        return self._stale_after_s is not None and time.monotonic() - message.offered_s > self._stale_after_s

    def _poll(self, client: mqtt.Client, timeout_s: float) -> None:
        """Wait for the network, or for a wake, and serve what there is."""
        own = client.socket()
        poller = select.poll()
        poller.register(self._wake_in, select.POLLIN)
        if own is not None:
            poller.register(own, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        for descriptor, events in poller.poll(timeout_s * 1000):
            if descriptor == self._wake_in.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._wake_in.recv(4096)
                continue
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                client.loop_read()
                while isinstance(own, ssl.SSLSocket) and client.socket() is not None and own.pending():
                    client.loop_read()  # decrypted already: the descriptor tells nothing of it
                _acknowledge_at_once(own)
            if events & select.POLLOUT and client.socket() is not None:
                client.loop_write()
        client.loop_misc()

    def _take_leave(self, client: mqtt.Client) -> None:
        until = time.monotonic() + _LEAVE_S
        self._pump(client)
        while (self._in_flight or self._waiting) and client.socket() is not None and time.monotonic() < until:
            self._poll(client, 0.05)
            self._pump(client)
        client.disconnect()
        while client.want_write() and client.socket() is not None and time.monotonic() < until:
            self._poll(client, 0.05)

    def _bring_back(self) -> None:
        """What was on its way goes first in the next connection, maybe for the second time."""
        with self._lock:
            self._waiting.extendleft(message for message in reversed(self._in_flight.values()) if message is not None)
            self._in_flight = {}
            self._state_told = False

    def _settle(self, mid: int) -> None:
        if self._in_flight.pop(mid, None) is not None:
            with self._lock:
                self._sent += 1

    def _note_subscription(
        self, _client: object, _data: object, _mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        self._deaf = refused[0] if refused else ""
        self._subscribed = True

    def _hear(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.retain or self._on_message is None:
            return
        payload = bytes(message.payload)
        self._on_message(message.topic, payload if len(payload) <= MAX_INBOUND_BYTES else b"")

    def _note(self, trouble: str) -> None:
        """Tell a new trouble once."""
        with self._lock:
            told, self._trouble = self._trouble, trouble
        if told != trouble and not self.worker.stop.is_set():
            log.warning("%s", trouble, extra={"event": "mqtt_line.disconnected"})


def _acknowledge_at_once(connection: object) -> None:
    """Ask the kernel to acknowledge what came without waiting for something to send along.

    A broker that gathers small packets (Nagle; mosquitto does by default) holds the next trigger back until then, up to
    40 ms. With such a broker and a model of 4 ms the median from trigger to verdict is 62 ms without this, 35 with it.
    """
    if isinstance(connection, socket.socket) and hasattr(socket, "TCP_QUICKACK"):
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
