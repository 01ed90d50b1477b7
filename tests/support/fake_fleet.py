"""The fleet as a device sees it: rows by (device, epoch, lane, seq), and acknowledgements that a test can spoil."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.brokers import RunningBroker
from wire import codec, topics
from wire.messages import Batch, Command, HostState, Lane, RangeAck, Refusal, SeqRange, State, Wake


class FakeFleet:
    """Takes what devices publish and answers it; use it in a `with` statement.

    Args:
        broker: where to connect; reconnected to for ever.
        lose: chance that an acknowledgement is not sent.
        repeat: chance that it is sent twice.
        delay_s: how long each batch takes, as with a slow database.
        refuse: seqs of inspections that are refused.
    """

    def __init__(
        self,
        broker: RunningBroker,
        *,
        seed: int = 1,
        lose: float = 0.0,
        repeat: float = 0.0,
        delay_s: float = 0.0,
        refuse: frozenset[int] = frozenset(),
        protocol: mqtt.MQTTProtocolVersion = mqtt.MQTTv311,
    ) -> None:
        self.lose = lose
        self.repeat = repeat
        self.delay_s = delay_s
        self.answering = True
        self.rows: dict[tuple[str, str, Lane, int], bytes] = {}
        self.arrivals: list[tuple[float, Batch]] = []
        self.sizes: list[int] = []
        self.states: list[State] = []
        self.deliveries: Counter[tuple[str, str, Lane, int]] = Counter()
        self._refuse = refuse
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="fake-fleet", protocol=protocol)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._address = (broker.host, broker.port)

    def __enter__(self) -> Self:
        self._client.connect(*self._address, keepalive=10)
        self._client.loop_start()
        assert self._subscribed.wait(10), "the broker did not answer"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def seqs(self, lane: Lane = Lane.INSPECTIONS) -> set[int]:
        """Return the seqs that are rows, all epochs together."""
        return {seq for _, _, row_lane, seq in list(self.rows) if row_lane is lane}

    def wait(self, condition: Callable[[FakeFleet], object], timeout_s: float = 20.0) -> None:
        """Wait until `condition(self)` holds."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition(self):
                left = deadline - time.monotonic()
                assert left > 0, f"still waiting with {len(self.rows)} rows, {len(self.states)} states"
                self._changed.wait(min(left, 0.2))

    def host(self, boot: str) -> None:
        """Say that ingest has started anew."""
        self._client.publish(topics.HOST, codec.encode(HostState(boot=boot, online=True)), qos=1, retain=True)

    def wake(self, device: str, revision: int = 1) -> None:
        """Hint at a new desired document."""
        self.raw(topics.path("wake", device), codec.encode(Wake(desired_revision=revision)))

    def command(self, device: str, command: Command) -> None:
        """Ask a device for a momentary act."""
        self.raw(topics.path("command", device), codec.encode(command))

    def raw(self, topic: str, payload: bytes) -> None:
        """Publish any bytes."""
        self._client.publish(topic, payload, qos=1).wait_for_publish(10)

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(topics.ALL_UP, 1)

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        address = topics.parse(message.topic)
        time.sleep(self.delay_s)
        payload = bytes(message.payload)
        with self._changed:
            if address.topic.name == "state":
                self.states.append(codec.decode(payload, State))
            else:
                assert len(payload) <= address.topic.max_bytes
                self.sizes.append(len(payload))
                batch = codec.decode(payload, Batch)
                self.arrivals.append((time.monotonic(), batch))
                if self.answering:
                    self._absorb(client, batch)
            self._changed.notify_all()

    def _absorb(self, client: mqtt.Client, batch: Batch) -> None:
        ranges, refused = [], []
        for entry in batch.entries:
            key = (batch.device, batch.epoch, batch.lane, entry.seq)
            self.deliveries[key] += 1
            if batch.lane is Lane.INSPECTIONS and entry.seq in self._refuse:
                refused.append(Refusal(first=entry.seq, last=entry.seq, code="message.invalid_value"))
                continue
            earlier = self.rows.setdefault(key, bytes(entry.body))
            assert earlier == bytes(entry.body), f"{key} came with two bodies"
            ranges.append(SeqRange(first=entry.seq, last=entry.seq))
        ack = RangeAck(epoch=batch.epoch, lane=batch.lane, ranges=tuple(ranges), refused=tuple(refused))
        times = 0 if self._random.random() < self.lose else 2 if self._random.random() < self.repeat else 1
        for _ in range(times):
            client.publish(topics.path("ack", batch.device), codec.encode(ack), qos=1)
