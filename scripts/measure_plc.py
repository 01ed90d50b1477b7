"""Measures the line to a PLC by itself: what its cycle costs, and how long a part waits for the station and the PLC.

.venv/bin/python scripts/measure_plc.py --role client --seconds 20

The PLC is a simulated one in a process of its own, on loopback; the station answers at once. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.clock import SystemClock
from agent.line.modbus_client import ModbusClientLine
from agent.line.modbus_line import ModbusLine
from agent.line.modbus_server import ModbusServerLine
from agent.line.settings import ModbusSettings
from agent.line.trigger import Answer, StationState, Trigger
from agent.simulator.plc import PlcSettings, SimulatedPlc
from tests.support.ports import free_port
from wire.inspection import Reason, Route, Verdict


def run_plc(pipe: Connection, role: str, port: int, count_file: Path, pitch_s: float) -> None:
    """Be the PLC: pass parts between the words `go` and `stop`."""
    plc = SimulatedPlc(
        PlcSettings(role="client" if role == "server" else "server", port=port, count_file=count_file, tells_age=False)
    )
    plc.start()
    pipe.send(plc.port)
    while (word := pipe.recv()) != "end":
        while word == "go" and not pipe.poll(pitch_s):
            plc.photo_eye()
    plc.wait_until_settled()
    plc.stop()
    pipe.send("done")


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def serve(line: ModbusLine, seconds: float) -> list[float]:
    """Answer each part at once; return how long each waited between being read and being taken, in ms."""
    waits = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        line.set_state(StationState(ready=True))
        event = line.take(0.2)
        if isinstance(event, Trigger):
            now_ns = time.monotonic_ns()
            waits.append((now_ns - event.at_ns) / 1e6)
            answer = Answer(
                trigger=event,
                inspection_id="x",
                verdict=Verdict.OK,
                reason=Reason.NONE,
                route=Route.ACCEPT,
                recipe="default",
                judged_ns=now_ns,
            )
            line.answer(answer)
    return waits


def spread(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=1000) if len(values) > 1 else values * 999
    return {"p50": round(cuts[499], 2), "p99": round(cuts[989], 2), "max": round(max(values), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=["client", "server"], default="client", help="of the agent")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--cycle-ms", type=float, default=10.0)
    parser.add_argument("--pitch-ms", type=float, default=50.0)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="measure-plc-"))
    count_file = folder / "plc.jsonl"
    pipe, other = multiprocessing.Pipe()
    port = free_port() if args.role == "server" else 0
    process = multiprocessing.get_context("spawn").Process(
        target=run_plc, args=(other, args.role, port, count_file, args.pitch_ms / 1e3)
    )
    process.start()
    port = pipe.recv()
    settings = ModbusSettings(role=args.role, address=f"127.0.0.1:{port}", cycle_ms=args.cycle_ms)
    kind = ModbusClientLine if args.role == "client" else ModbusServerLine
    line = kind(settings, SystemClock(), "measured")
    serve(line, 2.0)
    before = cpu_s()
    serve(line, args.seconds)
    idle = (cpu_s() - before) / args.seconds
    pipe.send("go")
    before = cpu_s()
    waits = serve(line, args.seconds)
    busy = (cpu_s() - before) / args.seconds
    pipe.send("stop")
    serve(line, 1.0)
    pipe.send("end")
    pipe.recv()
    account = line.account()
    line.close()
    process.join(10)
    lines = [json.loads(text) for text in count_file.read_text(encoding="utf-8").splitlines()]
    answers = [one["after_ms"] for one in lines if one["event"] == "result"]
    found = {
        "schema": "lineside.measure-plc/1",
        "role": args.role,
        "cycle_ms": args.cycle_ms,
        "parts": sum(one["event"] == "part" for one in lines),
        "taken": account.taken,
        "missed": account.missed,
        "results": len(answers),
        "cpu_share_idle": round(idle, 4),
        "cpu_share_with_parts": round(busy, 4),
        "read_to_taken_ms": spread(waits),
        "photo_eye_to_result_ms": spread(answers),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
