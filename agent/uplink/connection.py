"""One MQTT connection, from CONNECT to its end: a paho client used from one thread only, and thrown away afterwards.

paho keeps unsent messages in memory and would send them in a later connection; a client that lives for one connection
cannot. What was on its way is the outbox's to send again.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.uplink.protocol import Protocol
from wire.errors import LinesideError

MAX_INBOUND_BYTES: Final = 72 * 1024
_VERSIONS: Final = {
    Protocol.MQTT_5: MQTTProtocolVersion.MQTTv5,
    Protocol.MQTT_3_1_1: MQTTProtocolVersion.MQTTv311,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The files of an encrypted connection (PEM).

    Args:
        ca_file: the authorities that may have signed the broker's certificate.
        certificate_file, key_file: the device's own, None where the broker asks for none.
    """

    ca_file: str
    certificate_file: str | None = None
    key_file: str | None = None


class ProtocolRefusedError(LinesideError):
    """The broker ended the attempt before accepting it, maybe because of the version.

    Args:
        clearly: the broker named the version as the reason.
    """

    def __init__(self, message: str, *, clearly: bool) -> None:
        super().__init__("broker.unavailable", message, "Look whether an MQTT broker listens there.")
        self.clearly = clearly


class Connection:
    """A connection to the broker.

    Args:
        client_id: the device.
        protocol: version to speak.
        keepalive_s: after 1.5 of these without a word the broker publishes the will.
        will: topic and payload, retained, QoS 1.
        on_message: gets topic and payload of what comes in.
        on_puback: gets the packet id, and the reason in words where the broker refused the message, else "".
        wake: a socket whose readability ends `poll`.
        tls: None: not encrypted.

    Raises:
        LinesideError: `config.missing_file` where a file of `tls` cannot be used.
    """

    def __init__(
        self,
        *,
        client_id: str,
        protocol: Protocol,
        keepalive_s: int,
        will: tuple[str, bytes],
        on_message: Callable[[str, bytes], None],
        on_puback: Callable[[int, str], None],
        wake: socket.socket,
        tls: Tls | None = None,
    ) -> None:
        self.protocol = protocol
        self.receive_maximum = 65535
        self.max_packet_bytes = 268_435_455
        self.connected_ns = 0
        self._keepalive_s = keepalive_s
        self._wake = wake
        self._connack: ReasonCode | None = None
        self._subscriptions: set[int | None] = set()
        self.subscription_problems: list[str] = []
        self._end: str = ""
        self._watched: tuple[socket.socket, int] | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake, selectors.EVENT_READ)
        version = _VERSIONS[protocol]
        clean = None if protocol is Protocol.MQTT_5 else True
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=clean, protocol=version,
            reconnect_on_failure=False,
        )  # fmt: skip
        # The link's own window is far below: nothing is ever queued inside paho.
        self._client.max_inflight_messages_set(1000)
        self._client.max_queued_messages_set(1000)
        if tls is not None:
            _encrypt(self._client, tls)
        self._client.will_set(will[0], will[1], qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = lambda _client, _data, message: on_message(message.topic, bytes(message.payload))
        self._client.on_publish = lambda _client, _data, mid, reason, _properties: on_puback(
            mid, str(reason) if reason.is_failure else ""
        )

    @property
    def alive(self) -> bool:
        """Whether the broker accepted us and has not gone away."""
        return self._client.is_connected() and self._client.socket() is not None

    @property
    def subscribed(self) -> bool:
        """Whether all subscriptions were answered."""
        return not self._subscriptions

    @property
    def end(self) -> str:
        """Why the connection ended, in words."""
        return self._end or "the broker closed the connection"

    def open(self, host: str, port: int, timeout_s: float, patience_s: float) -> None:
        """Connect and wait for the broker's word.

        Args:
            timeout_s: for the network.
            patience_s: for the broker's answer, once the network has brought us there.

        Raises:
            LinesideError: `network.unreachable`, `broker.unavailable`, or `ProtocolRefusedError`.
        """
        self._client.connect_timeout = timeout_s
        properties = None
        if self.protocol is Protocol.MQTT_5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = MAX_INBOUND_BYTES
        try:
            if self.protocol is Protocol.MQTT_5:
                self._client.connect(host, port, self._keepalive_s, clean_start=True, properties=properties)
            else:
                self._client.connect(host, port, self._keepalive_s)
        except OSError as error:
            raise LinesideError(
                "network.unreachable", f"The broker at {host}:{port} does not answer: {error}."
            ) from error
        with contextlib.suppress(OSError):
            self._socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        deadline = time.monotonic() + patience_s
        while self._connack is None and self._client.socket() is not None:
            if (left := deadline - time.monotonic()) <= 0:
                raise ProtocolRefusedError(f"The broker at {host}:{port} accepts but says nothing.", clearly=False)
            self.poll(left)
        if self._connack is None:
            raise ProtocolRefusedError(
                f"The broker at {host}:{port} closed the connection without a word.", clearly=False
            )
        if self._connack.is_failure:
            reason = str(self._connack)
            if reason == "Unsupported protocol version":
                raise ProtocolRefusedError(f"The broker at {host}:{port} knows no MQTT {self.protocol}.", clearly=True)
            raise LinesideError("broker.unavailable", f"The broker at {host}:{port} refused the device: {reason}.")
        self.connected_ns = time.monotonic_ns()

    def subscribe(self, topics: list[str]) -> None:
        """Ask for topics at QoS 1."""
        code, mid = self._client.subscribe([(topic, 1) for topic in topics])
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._subscriptions.add(mid)

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> int | None:
        """Hand a message to the network; return its packet id, None where the connection has ended."""
        if not self.alive:
            return None
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def poll(self, timeout_s: float) -> None:
        """Wait for the network, or for a wake, and serve what there is."""
        self._watch()
        if self._has_decrypted():
            self._client.loop_read()
            timeout_s = 0.0
        for key, events in self._selector.select(max(0.0, timeout_s)):
            if key.fileobj is self._wake:
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)
                continue
            if events & selectors.EVENT_READ:
                self._client.loop_read()
            if events & selectors.EVENT_WRITE:
                self._client.loop_write()
        self._client.loop_misc()

    def close(self, *, politely: bool) -> None:
        """End the connection; without a DISCONNECT the broker publishes the will."""
        if politely and self.alive:
            self._client.disconnect()
            deadline = time.monotonic() + 1.0
            while self._client.socket() is not None and self._client.want_write() and time.monotonic() < deadline:
                self.poll(0.1)
        self._selector.close()
        if self._client.socket() is not None:
            with contextlib.suppress(OSError):
                self._socket().close()

    def _has_decrypted(self) -> bool:
        """Whether TLS has taken bytes off the network that nobody has read yet: no selector tells of them."""
        current = self._client.socket()
        return isinstance(current, ssl.SSLSocket) and current.pending() > 0

    def _socket(self) -> socket.socket:
        found = self._client.socket()
        if not isinstance(found, socket.socket):
            raise LinesideError("network.unreachable", f"The connection ended: {self.end}.")
        return found

    def _watch(self) -> None:
        """Have the selector look at paho's socket, and for writing only while there is something to write."""
        current = self._client.socket()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._client.want_write() else 0)
        if self._watched is not None and self._watched == (current, events):
            return
        if self._watched is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._watched[0])
            self._watched = None
        if isinstance(current, socket.socket):
            self._selector.register(current, events)
            self._watched = (current, events)

    def _on_connect(
        self, _client: object, _data: object, _flags: object, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._connack = reason
        self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", self.max_packet_bytes)

    def _on_disconnect(
        self, _client: object, _data: object, _flags: object, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._end = str(reason)

    def _on_subscribe(
        self, _client: object, _data: object, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._subscriptions.discard(mid)
        self.subscription_problems.extend(str(reason) for reason in reasons if reason.is_failure)


def _encrypt(client: mqtt.Client, tls: Tls) -> None:
    try:
        client.tls_set(ca_certs=tls.ca_file, certfile=tls.certificate_file, keyfile=tls.key_file)
    except (OSError, ValueError) as error:
        raise LinesideError(
            "config.missing_file", f"TLS of [mqtt] cannot be set up: {error}.", "Correct ca_file and the others."
        ) from error
