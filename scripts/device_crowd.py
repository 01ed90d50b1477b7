"""Many devices in one process: a real MQTT connection each, told apart by nothing from real ones but what they cost.

Each connects as itself (MQTT 3.1.1, clean, with a will), subscribes to what comes down, says its birth, and sends one
batch of inspections a second and its health now and then. Like an outbox it keeps each batch until the fleet's range
acknowledgement, and sends it again after ten seconds, after a reconnection, and when ingest says that it began anew.
After `--seconds` it sends no new ones, waits until all is settled, and prints what it sent as one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import selectors
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import msgspec

from scripts import mqtt_packets
from scripts.small_device import record_of, verdict_of
from wire import codec, mint, topics
from wire.messages import Batch, Entry, Health, HostState, Lane, RangeAck, State
from wire.mint import Mint

RESEND_AFTER_S: Final = 10.0
CONNECTS_PER_S: Final = 150
KEEPALIVE_S: Final = 60
SETTLE_S: Final = 60.0
_PLACEHOLDER: Final = "01932f5e-7a10-7abc-8def-0123456789ab"


@dataclass(slots=True)
class Sent:
    """A batch that is not settled."""

    packet: bytes
    first_at: float
    at: float


@dataclass
class Figures:
    """What the crowd saw."""

    connections: int = 0
    messages: int = 0
    repeated: int = 0
    ack_s: deque[float] = field(default_factory=lambda: deque(maxlen=200_000))


class CrowdDevice:
    """One device; `serve` is called when its socket has something, `tick` now and then.

    Args:
        events: inspections a batch.
        health_every_s: between two records of health.
    """

    def __init__(self, name: str, port: int, events: int, health_every_s: float, figures: Figures, boot: int) -> None:
        self.name = name
        self.sent = dict.fromkeys((Lane.INSPECTIONS, Lane.HEALTH), 0)
        self.socket: socket.socket | None = None
        self.connect_at = 0.0
        self._port = port
        self._events = events
        self._health_every_s = health_every_s
        self._figures = figures
        self._boot = boot
        self._revision = 0
        self._host_boot = ""
        self._epoch = mint.epoch_id()
        self._mint = Mint()
        self._unsettled: dict[tuple[Lane, int], Sent] = {}
        self._inbound, self._outbound = bytearray(), bytearray()
        self._packet_id = 0
        draw = random.Random(name)  # noqa: S311 - spreads the devices over the second
        self._batch_at = time.monotonic() + draw.random()
        self._health_at = time.monotonic() + draw.random() * health_every_s
        body = codec.encode(record_of(name, "@trigger@", 1, _PLACEHOLDER, datetime(2026, 1, 1, tzinfo=UTC)))
        self._body = body.replace(b'"trigger_sequence":1,', b'"trigger_sequence":@sequence@,')

    @property
    def unsettled(self) -> int:
        return len(self._unsettled)

    @property
    def wants_write(self) -> bool:
        return bool(self._outbound)

    def connect(self) -> None:
        """Begin a connection; everything that is not settled goes again.

        Raises:
            OSError: nobody listens.
        """
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._figures.connections += 1
        self._inbound.clear()
        state = topics.path("state", self.name)
        self._revision += 1_000_000
        will = State(device=self.name, boot=self._boot, revision=self._revision + 999_999, online=False)
        birth = State(device=self.name, boot=self._boot, revision=self._revision, online=True, at=datetime.now(UTC))
        self._outbound = bytearray(
            mqtt_packets.connect(self.name, KEEPALIVE_S, will=(state, codec.encode(will)))
            + mqtt_packets.subscribe(self._next_id(), [topics.all_down(self.name), topics.HOST])
            + mqtt_packets.publish(state, codec.encode(birth), self._next_id(), retain=True)
        )
        self._send_again(0.0)

    def disconnect(self) -> None:
        """Forget a connection that ended."""
        if self.socket is not None:
            self.socket.close()
        self.socket = None
        self.connect_at = time.monotonic() + random.uniform(0.2, 2.0)  # noqa: S311

    def leave(self) -> None:
        """Say goodbye."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.send(mqtt_packets.DISCONNECT)
            self.socket.close()
            self.socket = None

    def tick(self, now: float, *, making: bool) -> None:
        """Send what is due."""
        if making and now >= self._batch_at:
            self._batch_at = max(self._batch_at + 1.0, now - 1.0)
            self._put(Lane.INSPECTIONS, [self._record() for _ in range(self._events)], now)
        if making and now >= self._health_at:
            self._health_at += self._health_every_s
            self._put(Lane.HEALTH, [_health(len(self._unsettled))], now)
        if self._unsettled and next(iter(self._unsettled.values())).at + RESEND_AFTER_S < now:
            self._send_again(now - RESEND_AFTER_S)

    def serve(self, *, readable: bool, writable: bool) -> None:
        """Read and write what the network takes.

        Raises:
            OSError: the connection is over.
        """
        if self.socket is None:
            return
        if writable and self._outbound:
            del self._outbound[: self.socket.send(self._outbound)]
        if readable:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the broker closed the connection")
            self._inbound += data
            for packet in mqtt_packets.taken(self._inbound):
                if packet.kind == mqtt_packets.PUBLISH:
                    self._receive(packet)

    def _receive(self, packet: mqtt_packets.Packet) -> None:
        topic, packet_id, payload = packet.message()
        if packet_id:
            self._outbound += mqtt_packets.puback(packet_id)
        if topic.endswith("/ack"):
            ack = codec.decode(payload, RangeAck)
            now = time.monotonic()
            for one in ack.ranges:
                for seq in range(one.first, one.last + 1):
                    known = self._unsettled.pop((ack.lane, seq), None)
                    if known is not None:
                        self._figures.ack_s.append(now - known.first_at)
        elif topic == topics.HOST:
            boot = codec.decode(payload, HostState).boot
            if self._host_boot not in ("", boot):
                self._send_again(time.monotonic())
            self._host_boot = boot

    def _put(self, lane: Lane, bodies: list[bytes], now: float) -> None:
        first = self.sent[lane] + 1
        entries = tuple(Entry(seq=first + at, body=msgspec.Raw(body)) for at, body in enumerate(bodies))
        self.sent[lane] += len(bodies)
        payload = codec.encode(Batch(device=self.name, epoch=self._epoch, lane=lane, entries=entries))
        packet = mqtt_packets.publish(topics.path(lane.value, self.name), payload, self._next_id())
        # The whole batch is one commit, so its last seq stands for all of it.
        self._unsettled[lane, self.sent[lane]] = Sent(packet=packet, first_at=now, at=now)
        self._figures.messages += 1
        if self.socket is not None:
            self._outbound += packet

    def _send_again(self, before: float) -> None:
        """Repeat what was sent last before a moment; 0 for everything."""
        now = time.monotonic()
        for known in self._unsettled.values():
            if not before or known.at <= before:
                known.at = now
                self._figures.repeated += 1
                if self.socket is not None:
                    self._outbound += known.packet

    def _record(self) -> bytes:
        self._sequence = sequence = self.sent[Lane.INSPECTIONS] + 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
        return (
            self._body.replace(_PLACEHOLDER.encode(), self._mint.uuid7().encode())
            .replace(b"@trigger@", f"{self._epoch}-{sequence}".encode())
            .replace(b"@sequence@", str(sequence).encode())
            .replace(b"2026-01-01T00:00:00Z", now)
            .replace(b'"verdict":"OK"', f'"verdict":"{verdict_of(sequence).value}"'.encode())
        )

    def _next_id(self) -> int:
        self._packet_id = self._packet_id % 60_000 + 1
        return self._packet_id


def _health(waiting: int) -> bytes:
    return codec.encode(
        Health(
            at=datetime.now(UTC),
            uptime_s=time.monotonic(),
            cpu_fraction=0.4,
            rss_bytes=120_000_000,
            disk_free_bytes=10_000_000_000,
            disk_free_fraction=0.6,
            temperature_c=51.5,
            outbox_unsettled=waiting,
            outbox_bytes=40_960,
            outbox_dropped=0,
        )
    )


class Crowd:
    """All devices on one thread."""

    def __init__(self, devices: list[CrowdDevice], figures: Figures) -> None:
        self._devices = devices
        self.figures = figures
        self._selector = selectors.DefaultSelector()
        self._events: dict[str, int] = {}

    def run(self, seconds: float) -> float:
        """Send for so long, then wait until all is settled; return how long that took."""
        began = time.monotonic()
        for number, device in enumerate(self._devices):
            device.connect_at = began + number / CONNECTS_PER_S
        while (now := time.monotonic()) < began + seconds + SETTLE_S:
            making = now < began + seconds
            if not making and not any(device.unsettled for device in self._devices):
                break
            for device in self._devices:
                if device.socket is None and now >= device.connect_at:
                    try:
                        device.connect()
                    except OSError:
                        device.disconnect()
                device.tick(now, making=making)
                self._watch(device)
            self._serve(0.02)
        for device in self._devices:
            device.leave()
        return time.monotonic() - began - seconds

    def _serve(self, timeout_s: float) -> None:
        for key, events in self._selector.select(timeout_s):
            device: CrowdDevice = key.data
            try:
                device.serve(
                    readable=bool(events & selectors.EVENT_READ), writable=bool(events & selectors.EVENT_WRITE)
                )
            except BlockingIOError:
                continue
            except OSError:
                self._selector.unregister(key.fileobj)
                self._events.pop(device.name, None)
                device.disconnect()

    def _watch(self, device: CrowdDevice) -> None:
        if device.socket is None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if device.wants_write else 0)
        before = self._events.get(device.name)
        if before is None:
            self._selector.register(device.socket, events, device)
        elif before != events:
            self._selector.modify(device.socket, events, device)
        self._events[device.name] = events


def main() -> int:
    """Run some of the devices of a crowd."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--first", type=int, required=True, help="number of the first device")
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--events", type=int, default=1, help="inspections a batch")
    parser.add_argument("--health-every-s", type=float, default=30.0)
    args = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, args.devices + 100), hard), hard))
    figures, boot = Figures(), int(time.time())
    devices = [
        CrowdDevice(f"crowd-{number}", args.port, args.events, args.health_every_s, figures, boot)
        for number in range(args.first, args.first + args.devices)
    ]
    crowd = Crowd(devices, figures)
    settling_s = crowd.run(args.seconds)
    ack_s = sorted(figures.ack_s)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "sent": {device.name: [device.sent[Lane.INSPECTIONS], device.sent[Lane.HEALTH]] for device in devices},
        "unsettled": sum(device.unsettled for device in devices),
        "connections": figures.connections,
        "messages": figures.messages,
        "repeated": figures.repeated,
        "settling_s": settling_s,
        "ack_p50_ms": ack_s[len(ack_s) // 2] * 1000 if ack_s else 0.0,
        "ack_p99_ms": ack_s[len(ack_s) * 99 // 100] * 1000 if ack_s else 0.0,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }
    print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
