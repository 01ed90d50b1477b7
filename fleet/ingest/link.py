"""The link between ingest and the broker: one owner thread around one MQTT client.

Nothing here is remembered across connections. Each connection starts clean, subscribes, and only then publishes a
`HostState` with a new boot id: devices answer it by sending again whatever is not yet acknowledged, which covers all
that the broker, or this process, may have lost. Only the owner thread touches the client; others leave their wishes
in bounded queues and wake it.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fleet.clock import Now
from fleet.ingest.buffered import BufferedClient
from fleet.ingest.inbox import Delivery, Inbox
from wire import codec, topics
from wire.messages import HostState, RangeAck, Wake
from wire.mint import Mint

log = logging.getLogger(__name__)

RECEIVE_MAXIMUM: Final = 1_000  # messages the broker may send ahead of our acknowledgements
ACK_WINDOW: Final = 100  # to the broker, unless it announces less
ACK_WINDOW_UNTOLD: Final = 20  # what an MQTT 3.1.1 broker may be expected to bear
MAX_WISHES: Final = 20_000
KEEPALIVE_S: Final = 30
CONNECT_TIMEOUT_S: Final = 5.0
GUESS_TIMEOUT_S: Final = 2.0
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MOST_S: Final = 10.0
_READS_IN_A_ROW: Final = 200
_LOWEST_FAILURE: Final = 128


class IngestLink:
    """Feeds an `Inbox` from the broker, and sends what the writer has settled.

    Args:
        address: host and port of the broker.
        protocol: `5`, `3.1.1`, or `auto`: 5 first, 3.1.1 where the broker refuses it or does not answer; after each
            connection that stood, 5 again.
        subscriptions: what to take in; with none, the link only sends, and announces no ingest.
    """

    def __init__(
        self,
        address: tuple[str, int],
        protocol: str,
        inbox: Inbox,
        *,
        mint: Mint,
        now: Now,
        subscriptions: Sequence[str] = (topics.ALL_UP,),
    ) -> None:
        self._subscriptions = list(subscriptions)
        self._address = address
        self._inbox = inbox
        self._mint = mint
        self._now = now
        self._falls_back = protocol == "auto"
        self._version = mqtt.MQTTv311 if protocol == "3.1.1" else mqtt.MQTTv5
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._wake_receive, self._wake_send = socket.socketpair()
        self._wake_receive.setblocking(False)
        self._wake_send.setblocking(False)
        self._settled: deque[tuple[int, int]] = deque()
        self._acks: deque[tuple[str, bytes]] = deque(maxlen=MAX_WISHES)
        self._wakes: dict[str, int] = {}
        self._wakes_lock = threading.Lock()
        self._connection = 0
        self._lost = False
        self._boot = ""
        self._unconfirmed = 0
        self._ack_window = ACK_WINDOW_UNTOLD
        self.received = 0
        self.connections = 0
        self.failures = 0

    @property
    def connected(self) -> bool:
        """Whether the subscription stands and devices have been told so."""
        return self._ready.is_set()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the subscription stands."""
        return self._ready.wait(timeout_s)

    def start(self) -> None:
        """Start the owner thread, which connects by itself and again whenever it must."""
        self._thread = threading.Thread(target=self._run, name="ingest-link", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Send what is waiting, say goodbye, and end the thread."""
        self._stop.set()
        self._nudge()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def settle(self, deliveries: Sequence[Delivery], acks: Sequence[tuple[str, RangeAck]]) -> None:
        """Acknowledge messages to the broker and records to their devices; called after the commit, never waits.

        Args:
            acks: device and what to tell it. The oldest are forgotten over a bound; the device then sends again.
        """
        self._acks.extend((topics.path("ack", device), codec.encode(ack)) for device, ack in acks)
        self._settled.extend((delivery.connection, delivery.mid) for delivery in deliveries)
        self._nudge()

    def wake(self, device: str, desired_revision: int) -> None:
        """Hint to a device that its desired document changed; kept until there is a connection, the newest only."""
        with self._wakes_lock:
            if len(self._wakes) < MAX_WISHES or device in self._wakes:
                self._wakes[device] = max(desired_revision, self._wakes.get(device, 0))
        self._nudge()

    def _nudge(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_send.send(b"\0")

    def _run(self) -> None:
        failed_in_a_row = 0
        while not self._stop.is_set():
            if self._inbox.full:
                self._stop.wait(0.2)  # more could not be taken in anyhow
                continue
            try:
                self._live()
            except Exception as error:  # noqa: BLE001 - top of the thread: a broken packet must not end ingest
                self._note_failure(error)
            failed_in_a_row = 0 if self._ready.is_set() else failed_in_a_row + 1
            if self._ready.is_set() and self._falls_back:
                self._version = mqtt.MQTTv5
            self._ready.clear()
            most_s = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(failed_in_a_row, 10))
            self._stop.wait(random.uniform(BACKOFF_FIRST_S / 2, most_s))  # noqa: S311 - spreads reconnects

    def _live(self) -> None:
        """Connect and serve until the connection or ingest ends."""
        client = self._connect()
        try:
            self._serve(client)
        finally:
            if self._ready.is_set() and not self._lost and self._subscriptions:
                client.publish(topics.HOST, self._host_state(online=False), qos=1, retain=True)
            client.disconnect()
            while _wants_write(client) and _writable(client, timeout_ms=500):
                _write(client)

    def _connect(self) -> BufferedClient:
        self._connection += 1
        self._lost = False
        self._boot = self._mint.uuid7()
        self._unconfirmed = 0
        client = BufferedClient(
            CallbackAPIVersion.VERSION2,
            client_id=f"lineside-ingest-{secrets.token_hex(6)}",
            protocol=self._version,
            manual_ack=True,
            reconnect_on_failure=False,
            clean_session=None if self._version == mqtt.MQTTv5 else True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(ACK_WINDOW)
        client.max_queued_messages_set(MAX_WISHES)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        # Set, it keeps the client from writing to the socket in the middle of a call: packets leave in `_serve`.
        client.on_socket_register_write = lambda *_: None
        if self._subscriptions:
            client.will_set(topics.HOST, self._host_state(online=False), qos=1, retain=True)
        host, port = self._address
        if self._version == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            client.connect(host, port, KEEPALIVE_S, clean_start=True, properties=properties)
        else:
            client.connect(host, port, KEEPALIVE_S)
        return client

    def _serve(self, client: BufferedClient) -> None:
        guesses = self._falls_back and self._version == mqtt.MQTTv5
        answer_by = time.monotonic() + (GUESS_TIMEOUT_S if guesses else CONNECT_TIMEOUT_S)
        while not self._lost and not self._stop.is_set():
            connection = client.socket()
            if connection is None:
                return
            if not self._ready.is_set() and time.monotonic() > answer_by:
                if guesses and not client.is_connected():
                    self._fall_back()  # amqtt says nothing at all to a version it does not know
                self._lose("The broker did not answer in time.")
                return
            self._wait(client, connection)
            self._send_wishes(client)
            if not self._inbox.full:
                self._read(client)
            _write(client)
            client.loop_misc()
        if self._stop.is_set():
            self._send_wishes(client)

    def _wait(self, client: BufferedClient, connection: Any) -> None:
        """Wait until there is something to read, to write or to send; a full inbox leaves the socket unread."""
        poller = select.poll()  # not select(): its descriptors end at 1024
        poller.register(self._wake_receive, select.POLLIN)
        full = self._inbox.full
        poller.register(connection, (0 if full else select.POLLIN) | (select.POLLOUT if _wants_write(client) else 0))
        buffered = client.buffered_socket()
        poller.poll(50 if full else 0 if buffered is not None and buffered.buffered else 1000)
        with contextlib.suppress(BlockingIOError):
            self._wake_receive.recv(4096)

    def _read(self, client: BufferedClient) -> None:
        """Read what is here, but no more than the inbox takes, and not for so long that nothing is sent."""
        for _ in range(_READS_IN_A_ROW):
            if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS or self._inbox.full:
                return
            buffered = client.buffered_socket()
            if buffered is None or not buffered.buffered:
                return

    def _send_wishes(self, client: BufferedClient) -> None:
        if not self._ready.is_set():
            return
        # What is over the window waits here, where a new connection still finds it, and not in the client.
        while self._acks and self._unconfirmed < self._ack_window:
            topic, payload = self._acks.popleft()
            client.publish(topic, payload, qos=1)
            self._unconfirmed += 1
        while self._settled:
            connection, mid = self._settled.popleft()
            if connection == self._connection and mid:
                client.ack(mid, 1)
        with self._wakes_lock:
            wakes, self._wakes = self._wakes, {}
        for device, revision in wakes.items():
            client.publish(topics.path("wake", device), codec.encode(Wake(desired_revision=revision)), qos=1)
            self._unconfirmed += 1

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            unsupported = reason.value == 0x84  # MQTT 5, 3.2.2.2: unsupported protocol version
            if unsupported and self._falls_back and self._version == mqtt.MQTTv5:
                self._fall_back()
            self._lose(f"The broker refused the connection: {reason}.")
            return
        untold = ACK_WINDOW_UNTOLD if self._version == mqtt.MQTTv311 else ACK_WINDOW
        self._ack_window = max(1, min(ACK_WINDOW, getattr(properties, "ReceiveMaximum", untold)))
        if self._subscriptions:
            client.subscribe([(topic, 1) for topic in self._subscriptions])
        else:
            self._stand()

    def _on_subscribe(self, client: mqtt.Client, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        if any(reason.value >= _LOWEST_FAILURE for reason in reasons):
            self._lose(f"The broker refused a subscription to {self._subscriptions[0]}: {reasons[0]}.")
            return
        client.publish(topics.HOST, self._host_state(online=True), qos=1, retain=True)
        self._unconfirmed += 1
        self._stand()

    def _stand(self) -> None:
        self.connections += 1
        self._ready.set()
        verb = "listens" if self._subscriptions else "is connected to wake devices"
        log.info("Ingest %s at %s:%d.", verb, *self._address, extra={"event": "ingest.connected", "boot": self._boot})

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.received += 1
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = repr(message._topic)  # noqa: SLF001 - the property raises, and the bytes belong in quarantine
        self._inbox.put(
            Delivery(
                connection=self._connection,
                mid=message.mid if message.qos else 0,
                topic=topic,
                payload=bytes(message.payload),
                received_at=self._now(),
            )
        )

    def _on_publish(self, _client: mqtt.Client, _data: Any, _mid: int, _reason: Any, _properties: Any) -> None:
        self._unconfirmed -= 1

    def _on_disconnect(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._ready.is_set() and self._falls_back and self._version == mqtt.MQTTv5:
            self._fall_back()  # an old broker just closes a connection it does not understand
        if not self._stop.is_set():
            self._lose(f"The connection to the broker is lost: {reason}.")

    def _fall_back(self) -> None:
        self._version = mqtt.MQTTv311
        log.warning("The broker does not speak MQTT 5; 3.1.1 is used.", extra={"event": "ingest.fell_back"})

    def _lose(self, sentence: str) -> None:
        if not self._lost:
            self._lost = True
            self.failures += 1
            log.warning(sentence, extra={"event": "ingest.disconnected"})

    def _note_failure(self, error: Exception) -> None:
        self.failures += 1
        level = logging.DEBUG if isinstance(error, OSError) and self.failures % 20 != 1 else logging.WARNING
        log.log(
            level,
            "Ingest has no connection to %s:%d: %s.",
            *self._address,
            error,
            exc_info=None if isinstance(error, OSError) else error,
            extra={"event": "ingest.disconnected"},
        )

    def _host_state(self, *, online: bool) -> bytes:
        return codec.encode(HostState(boot=self._boot, online=online))


def _wants_write(client: BufferedClient) -> bool:
    buffered = client.buffered_socket()
    return client.want_write() or (buffered is not None and buffered.unsent)


def _write(client: BufferedClient) -> None:
    """Hand over what the client has to say, and then to the kernel what it takes."""
    if client.want_write():
        client.loop_write()
    buffered = client.buffered_socket()
    if buffered is not None:
        buffered.flush()


def _writable(client: BufferedClient, timeout_ms: int = 0) -> bool:
    connection = client.socket()
    if connection is None:
        return False
    poller = select.poll()
    poller.register(connection, select.POLLOUT)
    return any(event & select.POLLOUT for _, event in poller.poll(timeout_ms))
