"""A load of outbox batches on one raw MQTT 3.1.1 connection, as cheap as it can be, so that only the other side counts.

All packets are made beforehand. A window bounds what is on its way without a range acknowledgement, as outboxes do;
the clock runs from the first packet to the last acknowledgement. What was acknowledged is counted here, by sequence
number, and by nobody else.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import msgspec

from wire import codec, topics
from wire.inspection import Box, Finding, Inspection, TimeSource, Timings, Verdict, ViewRecord
from wire.messages import Batch, Entry, Lane, RangeAck
from wire.mint import Mint
from wire.sampling import Draw

_BURST: Final = 64
ACKS: Final = f"{topics.ROOT}/+/+/down/ack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One batch: `events` records of `device`, from the sequence number `first` on."""

    topic: str
    payload: bytes
    device: str
    first: int
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What one load came to.

    Args:
        seconds: from the first packet to the last acknowledgement.
        events: acknowledged, each counted once.
        sent: messages, those that were sent again included.
    """

    seconds: float
    events: int
    messages: int
    sent: int
    bytes_per_event: float


def record(device: str, sequence: int, mint: Mint) -> Inspection:
    """Return an inspection as a station with one view and one finding sends it."""
    now = datetime.now(UTC)
    view = ViewRecord(
        view="top",
        camera="cam-0",
        verdict=Verdict.OK,
        score=0.12,
        frame_number=sequence,
        frame_at=now,
        width_px=1280,
        height_px=720,
        model="parts",
        model_digest="a" * 64,
        findings=(Finding(label="scratch", score=0.31, box=Box(x1_px=32.5, y1_px=24.1, x2_px=96.9, y2_px=72.3)),),
        timings_ms=Timings(retrieve=3.1, preprocess=0.3, run=22.4, decode=0.2, judge=0.05),
    )
    return Inspection(
        id=mint.uuid7(),
        device=device,
        station="station-1",
        recipe="default",
        recipe_revision=3,
        trigger_id=f"run7-{sequence}",
        trigger_sequence=sequence,
        triggered_at=now,
        judged_at=now,
        time_source=TimeSource.SYNCHRONISED,
        time_uncertainty_ms=4.0,
        verdict=Verdict.NG if sequence % 50 == 0 else Verdict.OK,
        score=0.12,
        views=(view,),
        sampling=Draw(plan_revision=1, stratum="all", pi=0.05, u=0.7, kept=False),
        total_ms=27.0,
    )


def messages_of(devices: int, messages: int, events: int) -> list[Message]:
    """Return messages of so many events each, the devices taking turns.

    Bodies differ in what indexes see (id, sequence, times), and are otherwise alike.
    """
    mint, epoch, made = Mint(), "00112233445566aa", []
    patterns = {number: record(f"bench-{number}", 1, mint) for number in range(devices)}
    for message in range(messages):
        number, turn = message % devices, message // devices
        device = f"bench-{number}"
        entries = []
        for seq in range(turn * events + 1, (turn + 1) * events + 1):
            now = datetime.now(UTC)
            verdict = Verdict.NG if seq % 50 == 0 else Verdict.OK
            body = replace(
                patterns[number],
                id=mint.uuid7(),
                trigger_id=f"run7-{seq}",
                trigger_sequence=seq,
                triggered_at=now,
                judged_at=now,
                verdict=verdict,
            )
            entries.append(Entry(seq=seq, body=msgspec.Raw(codec.encode(body))))
        batch = Batch(device=device, epoch=epoch, lane=Lane.INSPECTIONS, entries=tuple(entries))
        made.append(
            Message(
                topic=topics.path("inspections", device),
                payload=codec.encode(batch),
                device=device,
                first=turn * events + 1,
                events=events,
            )
        )
    return made


def carry(
    port: int,
    made: Sequence[Message],
    *,
    window: int,
    resend_after_s: float | None = None,
    patience_s: float = 120.0,
) -> Carried:
    """Send the messages and wait until each of their events is acknowledged.

    Args:
        window: events on their way without acknowledgement.
        resend_after_s: what is missing is sent again where nothing was acknowledged for so long; None: never.

    Raises:
        TimeoutError: naming how many are missing.
    """
    packets = [_publish(one.topic, one.payload, 1 + index % 65_000) for index, one in enumerate(made)]
    total = sum(one.events for one in made)
    settled: set[tuple[str, int]] = set()
    inbound = bytearray()
    queue, sent, on_way = deque(range(len(made))), 0, 0
    with contextlib.closing(_connect(port)) as connection:
        connection.setblocking(False)
        outbound, began = memoryview(b""), time.monotonic()
        moved = began
        while len(settled) < total:
            now = time.monotonic()
            if now - began > patience_s:
                raise TimeoutError(f"{total - len(settled)} of {total} events were not acknowledged")
            if not outbound and resend_after_s is not None and now - moved > resend_after_s:
                queue = deque(k for k, one in enumerate(made) if (one.device, one.first) not in settled)
                on_way, moved = len(settled), now
            burst: list[bytes] = []
            while not outbound and queue and len(burst) < _BURST and on_way - len(settled) < window:
                burst.append(packets[queue[0]])
                on_way += made[queue.popleft()].events
            sent += len(burst)
            outbound = memoryview(b"".join(burst)) if burst else outbound
            _, writable, _ = select.select([connection], [connection] if outbound else [], [], 0.2)
            if writable:
                outbound = outbound[connection.send(outbound) :]
            with contextlib.suppress(BlockingIOError):
                inbound += connection.recv(1 << 16)
            before = len(settled)
            _read(inbound, settled)
            moved = time.monotonic() if len(settled) > before else moved
        seconds = time.monotonic() - began
    size = sum(len(one.payload) for one in made) / total
    return Carried(seconds=seconds, events=total, messages=len(made), sent=sent, bytes_per_event=size)


def _read(inbound: bytearray, settled: set[tuple[str, int]]) -> None:
    """Take whole packets off the front; acknowledgements of records are entered, the broker's own passed over."""
    at = 0
    while (found := _packet(inbound, at)) is not None:
        kind, start, end = found
        if kind == 0x30:
            (length,) = struct.unpack_from(">H", inbound, start)
            topic = bytes(inbound[start + 2 : start + 2 + length]).decode()
            ack = codec.decode(bytes(inbound[start + 2 + length : end]), RangeAck)
            device = topic.split("/")[3]
            for one in ack.ranges:
                settled.update((device, seq) for seq in range(one.first, one.last + 1))
        at = end
    del inbound[:at]


def _packet(data: bytearray, at: int) -> tuple[int, int, int] | None:
    length, shift, place = 0, 0, at + 1
    while True:
        if place >= len(data):
            return None
        byte = data[place]
        length |= (byte & 127) << shift
        shift, place = shift + 7, place + 1
        if byte < 128:
            break
    return (data[at] & 0xF0, place, place + length) if place + length <= len(data) else None


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(_framed(0x10, _text("MQTT") + b"\x04\x02\x00\x00" + _text(f"load-{time.monotonic_ns()}")))
    connection.sendall(_framed(0x82, b"\x00\x01" + _text(ACKS) + b"\x00"))
    answer = b""
    while len(answer) < 9:  # CONNACK (4 bytes) and SUBACK (5)
        part = connection.recv(9 - len(answer))
        if not part:
            raise ConnectionError("the broker closed the connection")
        answer += part
    return connection


def _publish(topic: str, payload: bytes, mid: int) -> bytes:
    return _framed(0x32, _text(topic) + struct.pack(">H", mid) + payload)


def _framed(kind: int, rest: bytes) -> bytes:
    length, out = len(rest), bytearray([kind])
    while True:
        length, digit = divmod(length, 128)
        out.append(digit | (128 if length else 0))
        if not length:
            return bytes(out) + rest


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text.encode())) + text.encode()
