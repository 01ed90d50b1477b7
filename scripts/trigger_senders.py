"""The line's side of `run.py soak triggers`: one process for each kind of trigger, which times every verdict itself.

Each sends triggers at moments that do not wait for the verdicts of former ones, and writes one JSON line for each:
trigger, ms from trigger to verdict, verdict, reason, inspection (empty where the line does not tell it).
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CONNECTIONS: Final = 4
PATIENCE_S: Final = 5.0
SCAN_MS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one trigger was answered; ms is None where nothing came."""

    trigger: str
    ms: float | None
    verdict: str = ""
    reason: str = ""
    inspection: str = ""


def moments(count: int, rate: float, seed: int) -> list[float]:
    """Return when each trigger is due, in seconds from the start: neither in step with anything, nor in bursts."""
    rng = random.Random(seed)  # noqa: S311  (a seeded load)
    found, at = [], 0.5
    for _ in range(count):
        found.append(at)
        at += rng.uniform(0.5, 1.5) / rate
    return found


def over_http(address: str, station: str, due: list[float]) -> Iterator[Told]:
    """Post each trigger on one of a few connections that stay open."""
    told: list[Told] = []
    started = time.monotonic()

    def post(number: int) -> None:
        client = http.client.HTTPConnection(address, timeout=PATIENCE_S)
        client.connect()
        for index in range(number, len(due), CONNECTIONS):
            time.sleep(max(0.0, started + due[index] - time.monotonic()))
            sequence = index + 1
            body = json.dumps({"id": f"h-{sequence}", "part_id": f"S-{sequence}"}).encode()
            sent = time.perf_counter()
            try:
                client.request("POST", f"/v1/stations/{station}/triggers", body, {"Content-Type": "application/json"})
                answer = json.loads(client.getresponse().read())
            except OSError as error:
                told.append(Told(trigger=f"h-{sequence}", ms=None, reason=str(error)))
                client.close()
                continue
            ms = (time.perf_counter() - sent) * 1000
            told.append(
                Told(
                    trigger=f"h-{sequence}", ms=ms, verdict=answer.get("verdict", answer.get("code", "")),
                    reason=answer.get("reason", ""), inspection=answer.get("inspection_id", ""),
                )
            )  # fmt: skip

    threads = [threading.Thread(target=post, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield from told


def over_mqtt(address: str, topic: str, due: list[float]) -> Iterator[Told]:
    """Publish each trigger, and hear the verdicts."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    host, _, port = address.rpartition(":")
    sent: dict[str, float] = {}
    told: dict[str, Told] = {}
    ready = threading.Event()

    def hear(_client: object, _data: object, message: Any) -> None:
        now = time.perf_counter()
        body = json.loads(message.payload)
        name = body["trigger_id"]
        if name in told:
            return
        told[name] = Told(
            trigger=name, ms=(now - sent[name]) * 1000, verdict=body["verdict"], reason=body["reason"],
            inspection=body["inspection_id"],
        )  # fmt: skip

    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda one, *_: one.subscribe([(f"{topic}/verdict", 1)])
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = hear
    client.on_socket_open = lambda _client, _data, own: own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.connect(host, int(port))
    client.loop_start()
    if not ready.wait(PATIENCE_S):
        raise SystemExit("the line's broker does not answer")
    started = time.monotonic()
    for index, at in enumerate(due):
        time.sleep(max(0.0, started + at - time.monotonic()))
        name = f"m-{index + 1}"
        payload = json.dumps({"run": "m", "sequence": index + 1, "part_id": f"S-{index + 1}"})
        sent[name] = time.perf_counter()
        client.publish(topic, payload, qos=1)
    until = time.monotonic() + PATIENCE_S
    while len(told) < len(due) and time.monotonic() < until:
        time.sleep(0.02)
    client.disconnect()
    client.loop_stop()
    yield from (told.get(name, Told(trigger=name, ms=None)) for name in sent)


def over_plc(port: int, station: str, due: list[float]) -> Iterator[Told]:
    """Let parts pass the photo-eye of a simulated PLC; its own scan times the results."""
    from agent.simulator.plc import PlcSettings, SimulatedPlc

    with tempfile.TemporaryDirectory(prefix="lineside-plc-") as folder:
        count_file = Path(folder) / "plc.jsonl"
        plc = SimulatedPlc(PlcSettings(port=port, count_file=count_file, scan_ms=SCAN_MS, deadline_ms=1000.0))
        plc.start()
        try:
            if not plc.wait_until_ready(60):
                raise SystemExit("the agent does not become ready for the PLC")
            started = time.monotonic()
            for index, at in enumerate(due):
                time.sleep(max(0.0, started + at - time.monotonic()))
                plc.photo_eye(f"S-{index + 1}")
            plc.wait_until_settled(PATIENCE_S)
            time.sleep(0.2)
        finally:
            plc.stop()
        for line in count_file.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            name = f"{station}-{event.get('run')}-{event.get('sequence')}"
            if event["event"] == "result":
                yield Told(trigger=name, ms=event["after_ms"], verdict=event["verdict"], reason=event["reason"])
            elif event["event"] in {"no_answer", "late_result"}:
                yield Told(trigger=name, ms=None, reason=event.get("why", event["event"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("kind", choices=["http", "mqtt", "plc"])
    parser.add_argument(
        "--address", required=True, help="host:port of the agent or the broker; 127.0.0.1:port of the PLC"
    )
    parser.add_argument("--name", default="", help="station (http, plc) or topic (mqtt)")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    sys.setswitchinterval(0.0005)
    due = moments(args.count, args.rate, args.seed)
    if args.kind == "http":
        told = over_http(args.address, args.name, due)
    elif args.kind == "mqtt":
        told = over_mqtt(args.address, args.name, due)
    else:
        told = over_plc(int(args.address.rpartition(":")[2]), args.name, due)
    with args.output.open("w", encoding="utf-8") as output:
        for one in told:
            output.write(json.dumps([one.trigger, one.ms, one.verdict, one.reason, one.inspection]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
