"""A device as the broker sees it: publishes what a test gives it and remembers the acknowledgements."""

from __future__ import annotations

import threading
import time
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from wire import codec, topics
from wire.messages import HostState, RangeAck, Wake


class FakeDevice:
    """Connects as `name`; use it in a `with` statement."""

    def __init__(self, name: str, address: tuple[str, int], protocol: int = mqtt.MQTTv5) -> None:
        self.name = name
        self._address = address
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self.acks: list[RangeAck] = []
        self.wakes: list[Wake] = []
        self.hosts: list[HostState] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"test-{name}", protocol=protocol)
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.connect(*self._address)
        self._client.loop_start()
        assert self._subscribed.wait(10), "the broker did not answer"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, name: str, payload: bytes) -> None:
        """Publish on one of the device's own topics."""
        self.publish(topics.path(name, self.name), payload)

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Publish on any topic."""
        self._client.publish(topic, payload, qos=qos)

    def settled(self) -> set[int]:
        """Return the sequence numbers acknowledged as rows."""
        return {seq for ack in list(self.acks) for part in ack.ranges for seq in range(part.first, part.last + 1)}

    def refused(self) -> dict[int, str]:
        """Return the sequence numbers refused, with the code."""
        return {
            seq: part.code
            for ack in list(self.acks)
            for part in ack.refused
            for seq in range(part.first, part.last + 1)
        }

    def wait(self, condition: Any, timeout_s: float = 15.0) -> None:
        """Wait until `condition(self)` holds."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition(self):
                left = deadline - time.monotonic()
                assert left > 0, f"still waiting: {len(self.acks)} acks, refused {self.refused()}"
                self._changed.wait(min(left, 0.5))

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe([(topics.all_down(self.name), 1), (topics.HOST, 1)])

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            if message.topic == topics.HOST:
                self.hosts.append(codec.decode(bytes(message.payload), HostState))
            elif message.topic.endswith("/ack"):
                self.acks.append(codec.decode(bytes(message.payload), RangeAck))
            elif message.topic.endswith("/wake"):
                self.wakes.append(codec.decode(bytes(message.payload), Wake))
            self._changed.notify_all()
