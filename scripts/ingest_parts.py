"""What `bench_ingest.py` measures: one contestant, in a process of its own, until its standard input closes.

- raw: the chain as one would write it by hand: plain paho with its network thread, msgspec into the wire's own types,
  one batched `executemany` into one table (rowid and a unique id), one commit, then the MQTT acknowledgements and one
  range acknowledgement for each device. Same limits (500 messages or 20 ms), same durability (WAL, FULL), and it
  refuses, checks and keeps nothing else.
- lineside: `fleet.ingest` as `lineside-fleet ingest` runs it, over the fleet's real schema with all its indexes.

Prints `ready`, and at the end one JSON line: processor seconds, commits, rows.
"""

from __future__ import annotations

import argparse
import json
import queue
import resource
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MAX_MESSAGES = 500
WINDOW_S = 0.02
RECEIVE_MAXIMUM = 1000


def main() -> int:
    """Run one contestant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("raw", "lineside"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--profile", type=Path, help="write cProfile's figures of the worker's thread there")
    args = parser.parse_args()
    parts: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"raw": raw, "lineside": lineside}
    print(json.dumps(parts[args.part](args)), flush=True)
    return 0


def _until_told() -> float:
    """Say that all is ready and wait for the end of the input; return the processor seconds spent meanwhile."""
    before = _cpu_s()
    print("ready", flush=True)
    sys.stdin.read()
    return _cpu_s() - before


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))] * 1000 if values else 0.0


def raw(args: argparse.Namespace) -> dict[str, Any]:
    """The chain by hand."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, manual_ack=True)
    client.on_message = lambda _client, _data, message: received.put(message)
    client.max_queued_messages_set(0)
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", args.port, properties=properties)
    client.loop_start()
    client.subscribe("lineside/v1/+/+/up/+", qos=1)
    subscribed.wait(10)
    connection = sqlite3.connect(args.folder / "raw.db", isolation_level=None, check_same_thread=False)
    connection.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        "CREATE TABLE inspection (row INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, device TEXT NOT NULL,"
        " epoch TEXT NOT NULL, seq INTEGER NOT NULL, verdict TEXT NOT NULL, record TEXT NOT NULL)"
    )
    stop = threading.Event()
    commits: list[float] = []
    worker = threading.Thread(target=_raw_worker, args=(client, received, connection, stop, commits))
    worker.start()
    cpu_s = _until_told()
    stop.set()
    worker.join()
    client.disconnect()
    client.loop_stop()
    (rows,) = connection.execute("SELECT count(*) FROM inspection").fetchone()
    return _figures(cpu_s, commits, rows)


def _raw_worker(client: Any, received: Any, connection: Any, stop: threading.Event, commits: list[float]) -> None:
    import msgspec

    from wire import topics
    from wire.inspection import Inspection
    from wire.messages import Batch, RangeAck, SeqRange

    batches, records, encoder = msgspec.json.Decoder(Batch), msgspec.json.Decoder(Inspection), msgspec.json.Encoder()
    while not stop.is_set():
        messages = []
        deadline = None
        while len(messages) < MAX_MESSAGES:
            try:
                wait_s = 0.1 if deadline is None else deadline - time.monotonic()
                messages.append(received.get(timeout=max(wait_s, 0)))
            except (queue.Empty, ValueError):
                break
            deadline = deadline or time.monotonic() + WINDOW_S
        if not messages:
            continue
        rows = []
        settled: dict[tuple[str, str, str], list[int]] = {}
        for message in messages:
            batch = batches.decode(message.payload)
            seqs = settled.setdefault((batch.device, batch.epoch, batch.lane), [])
            for entry in batch.entries:
                record = records.decode(entry.body)
                key = bytes.fromhex(record.id.replace("-", ""))
                body = bytes(entry.body).decode()
                rows.append((key, batch.device, batch.epoch, entry.seq, record.verdict.value, body))
                seqs.append(entry.seq)
        began = time.monotonic()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO inspection (id, device, epoch, seq, verdict, record) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            rows,
        )
        connection.execute("COMMIT")
        commits.append(time.monotonic() - began)
        for message in messages:
            client.ack(message.mid, 1)
        for (device, epoch, lane), seqs in settled.items():
            seqs.sort()
            ranges: list[list[int]] = []
            for seq in seqs:
                if ranges and ranges[-1][1] + 1 == seq:
                    ranges[-1][1] = seq
                else:
                    ranges.append([seq, seq])
            ack = RangeAck(epoch=epoch, lane=lane, ranges=tuple(SeqRange(first=a, last=b) for a, b in ranges))
            client.publish(topics.path("ack", device), encoder.encode(ack), qos=1)


def lineside(args: argparse.Namespace) -> dict[str, Any]:
    """The fleet's ingest."""
    from sqlmodel import Session, text

    from fleet import collector, db
    from fleet.devices.tables import Device
    from fleet.ingest.worker import Ingest
    from fleet.migrations import runner
    from wire import ids

    engine = db.open_engine(args.folder / "fleet.db")
    runner.upgrade(engine)
    with Session(engine) as session:
        for number in range(args.devices):
            name = f"bench-{number}"
            session.add(
                Device(
                    id=name,
                    shard=ids.shard_of(name),
                    credential_lookup=name,
                    credential_hash="",
                    enrolled_at=datetime.now(UTC),
                    architecture="",
                    agent_version="",
                )
            )
        session.commit()
    ingest = Ingest(engine, ("127.0.0.1", args.port), "5")
    if args.profile is not None:
        _profile(ingest, args.profile)
    ingest.start()
    if not ingest.wait_connected(10):
        raise TimeoutError("ingest did not connect")
    collector.relax()
    cpu_s = _until_told()
    ingest.stop()
    with Session(engine) as session:
        (rows,) = session.execute(text("SELECT count(*) FROM inspection")).one()
    return _figures(cpu_s, ingest.commit_seconds(), rows)


def _profile(ingest: Any, path: Path) -> None:
    import cProfile

    for place, name in ((ingest, "_run"), (ingest._link, "_run")):  # noqa: SLF001
        run, profiler = getattr(place, name), cProfile.Profile()

        def profiled(run: Any = run, profiler: Any = profiler, suffix: str = type(place).__name__) -> None:
            profiler.runcall(run)
            profiler.dump_stats(f"{path}.{suffix}")

        setattr(place, name, profiled)


def _figures(cpu_s: float, commits: list[float], rows: int) -> dict[str, Any]:
    return {
        "cpu_s": cpu_s,
        "rows": rows,
        "commits": len(commits),
        "commit_p50_ms": sorted(commits)[len(commits) // 2] * 1000 if commits else 0.0,
        "commit_p99_ms": _p99(commits),
        "rss_mb": _rss_mb(),
    }


if __name__ == "__main__":
    sys.exit(main())
