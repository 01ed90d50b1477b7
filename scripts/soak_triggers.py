"""`run.py soak triggers`: how long from trigger to verdict, over PLC, HTTP and MQTT, and how often it is too late.

A real `lineside run` with three stations, one for each kind, all at once, on a model of 4 ms that this script makes; a
real fleet takes their records, a real mosquitto is the line's broker, a simulated PLC speaks Modbus/TCP. The sides that
trigger are processes of their own (scripts/trigger_senders.py) and do the timing: theirs is what a line would see.
Frames come from a clip, one for each trigger, so that no camera's pace is in the figures.

Afterwards each trigger's verdict is held against its record in the fleet's database. The last line is one JSON object;
exit status 1 where the accounts do not agree. Deadline misses are counted, not judged: see docs/performance.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.plant import Plant, PlantError, Process, free_port, wait_for  # noqa: E402

DEVICE: Final = "soak-1"
MODEL: Final = "soak-4ms"
KINDS: Final = ("plc", "http", "mqtt")
TOPIC: Final = "soak/trigger"
DEADLINE_MS: Final = 100.0
MODEL_MS: Final = 4.0
CYCLE_MS: Final = 2.0
CLIP_SIDE_PX: Final = 96
GOAL_MISSES: Final = 1e-5


def main() -> int:
    """Run it and print what was found."""
    parser = argparse.ArgumentParser(
        prog="run.py soak triggers", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--triggers", type=int, default=100_000, help="in all (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=30.0, help="of each kind, a second (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--keep", type=Path, help="a folder that stays, with all logs and each verdict")
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    args = parser.parse_args()
    mosquitto = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if mosquitto is None:
        print("error: this soak needs mosquitto (apt install mosquitto).", file=sys.stderr)
        return 3
    if args.keep is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
        found = run(args.keep, mosquitto, args)
    else:
        with tempfile.TemporaryDirectory(prefix="lineside-soak-") as folder:
            found = run(Path(folder), mosquitto, args)
    if not args.json:
        print(table(found))
    print(json.dumps(found))
    return 1 if found["discrepancies"] else 0


def run(folder: Path, mosquitto: str, args: argparse.Namespace) -> dict[str, Any]:
    """Start everything, send all triggers, wait until all is delivered, and hold the accounts against each other."""
    kinds = tuple(args.kinds)
    count = -(-args.triggers // len(kinds))
    model_ms = make_model(folder / MODEL)
    make_clip(folder / "clip.mp4", count + 200)
    say(f"The model takes {model_ms:.2f} ms alone; {count} triggers of each kind, {args.rate:g} a second.")
    ports = {kind: free_port() for kind in KINDS}
    broker = _broker(folder, mosquitto, ports["mqtt"])
    plant = Plant(folder=folder / "plant")
    senders: list[Process] = []
    agent: Process | None = None
    try:
        broker.start()
        plant.start_fleet()
        plant.push(folder / MODEL)
        config = folder / "agent.toml"
        config.write_text(_settings(folder, plant.url, kinds, ports), encoding="utf-8")
        agent = plant.enrolled_agent(DEVICE, config, folder / "agent.log")
        agent.start()
        plant.fleet_cli("desired", "set", DEVICE, "--model", f"{MODEL}=1", "--url", plant.url)
        status = wait_for("the stations are ready", lambda: _ready(folder, kinds), 60)
        addresses = {"http": status["local_address"], "mqtt": f"127.0.0.1:{ports['mqtt']}"}
        load_before, started = os.getloadavg()[0], time.monotonic()
        for kind in kinds:
            address = addresses.get(kind, f"127.0.0.1:{ports[kind]}")
            senders.append(_sender(folder, kind, address, count, args.rate))
            senders[-1].start()
        await_all(senders, agent, count / args.rate * 1.5 + 120)
        soak_s = time.monotonic() - started
        wait_for("the device has delivered everything", lambda: _drained(folder), 120)
        status = _status(folder) or {}
        told = {kind: _told(folder / f"{kind}.jsonl") for kind in kinds}
        records = _records(plant.fleet_dir / "fleet.db")
    finally:
        for process in [*senders, *([agent] if agent is not None else [])]:
            process.stop()
        plant.close()
        broker.stop()
    return report(kinds, count, told, records, status) | {
        "model_ms": round(model_ms, 2),
        "rate_per_kind": args.rate,
        "deadline_ms": DEADLINE_MS,
        "soak_s": round(soak_s, 1),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(load_before, 2),
    }


def await_all(senders: list[Process], agent: Process, timeout_s: float) -> None:
    """Wait for the senders; the agent must not end before them."""

    def done() -> bool:
        if not agent.running:
            raise PlantError(f"the agent ended:\n{agent.tail()}")
        return not any(sender.running for sender in senders)

    wait_for("all triggers are sent", done, timeout_s)


def report(
    kinds: tuple[str, ...],
    count: int,
    told: dict[str, list[list[Any]]],
    records: dict[str, tuple[str, str]],
    status: dict[str, Any],
) -> dict[str, Any]:
    """Put the figures of each kind together, and say where the two accounts differ."""
    problems: list[str] = []
    rows = {}
    for kind in kinds:
        if len(told[kind]) != count:
            problems.append(f"{kind}: {count} triggers were to be sent, {len(told[kind])} have an end")
        for trigger, _, verdict, _, _ in told[kind]:
            record = records.get(trigger)
            if record is None:
                problems.append(f"{kind} {trigger}: no record")
            elif (verdict or "NO_VERDICT") != record[0]:
                problems.append(f"{kind} {trigger}: told {verdict or 'nothing'}, recorded {record[0]} {record[1]}")
        rows[kind] = figures(told[kind])
    triggers = sum(len(one) for one in told.values())
    if len(records) != triggers:
        problems.append(f"{triggers} triggers, {len(records)} records")
    misses = sum(row["misses"] for row in rows.values())
    stations = [one for one in status.get("stations", []) if one["health"]["station"] in kinds]
    return {
        "schema": "lineside.soak-triggers/1",
        "triggers": triggers,
        "misses": misses,
        "misses_per_100_000": round(misses / triggers * 1e5, 2) if triggers else None,
        "goal_met": triggers >= 1 / GOAL_MISSES and misses <= triggers * GOAL_MISSES,
        "kinds": rows,
        "steps_ms": {one["health"]["station"]: one["steps_ms"] for one in stations},
        "discrepancies": len(problems),
        "first_discrepancies": problems[:10],
    }


def figures(told: list[list[Any]]) -> dict[str, Any]:
    """Return the distribution of one kind. A miss is a trigger whose verdict did not come within the deadline, and was
    therefore NO_VERDICT or nothing; `told_late` came with a verdict after more than the deadline."""
    took = sorted(ms for _, ms, *_ in told if ms is not None)
    verdicts = Counter(f"{verdict} {reason}".strip() for _, _, verdict, reason, _ in told)

    def at(share: float) -> float | None:
        return round(took[min(len(took) - 1, int(share * len(took)))], 2) if took else None

    return {
        "triggers": len(told),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "p99_9_ms": at(0.999),
        "p99_99_ms": at(0.9999),
        "max_ms": round(took[-1], 2) if took else None,
        "misses": sum(ms is None or verdict == "NO_VERDICT" for _, ms, verdict, *_ in told),
        "told_late": sum(
            ms is not None and ms > DEADLINE_MS and verdict != "NO_VERDICT" for _, ms, verdict, *_ in told
        ),
        "without_answer": sum(ms is None for _, ms, *_ in told),
        "verdicts": dict(verdicts),
    }


def table(found: dict[str, Any]) -> str:
    """Return the figures for a person."""
    head = f"{'':6}{'triggers':>9}{'p50':>8}{'p99':>8}{'p99.9':>8}{'max':>9}{'misses':>8}  ms"
    rows = [
        f"{kind:6}{row['triggers']:>9}{row['p50_ms']:>8}{row['p99_ms']:>8}{row['p99_9_ms']:>8}{row['max_ms']:>9}"
        f"{row['misses']:>8}"
        for kind, row in found["kinds"].items()
    ]
    return "\n".join([head, *rows, f"accounts that differ: {found['discrepancies']}"])


def make_model(folder: Path) -> float:
    """Write a package whose graph takes about `MODEL_MS` on this machine, on one thread; return what it took."""
    import onnx
    from onnx import helper, numpy_helper

    from tests.support import tiny_models
    from wire import package

    tiny_models.make(folder, model=MODEL, latency_p95_ms=1000.0)
    plain = onnx.load(folder / "model.onnx")
    rng = _rng()
    one_ms, took_ms, repeats = 0.0, 0.0, 8
    for _ in range(4):
        model = onnx.ModelProto()
        model.CopyFrom(plain)
        graph = model.graph
        graph.node[-1].output[0] = "plain_scores"
        layers = [("picture", 3)] + [(f"layer_{number}", 64) for number in range(repeats)]
        for number, ((source, channels), (target, width)) in enumerate(itertools.pairwise(layers)):
            weights = rng.standard_normal((width, channels, 3, 3)).astype("float32") * 0.05
            graph.initializer.append(numpy_helper.from_array(weights, f"weights_{number}"))
            graph.node.append(
                helper.make_node("Conv", [source, f"weights_{number}"], [f"sum_{number}"], pads=[1, 1, 1, 1])
            )
            graph.node.append(helper.make_node("Relu", [f"sum_{number}"], [target]))
        graph.initializer.append(numpy_helper.from_array(rng.standard_normal(()).astype("float32") * 0, "zero"))
        graph.node.append(helper.make_node("ReduceMax", [layers[-1][0]], ["most"], keepdims=0))
        graph.node.append(helper.make_node("Mul", ["most", "zero"], ["nothing"]))
        graph.node.append(helper.make_node("Add", ["plain_scores", "nothing"], ["scores"]))
        onnx.save(model, folder / "model.onnx")
        took_ms = _time_of(folder / "model.onnx")
        one_ms = took_ms / repeats
        if abs(took_ms - MODEL_MS) < 0.3:
            break
        repeats = max(1, round(MODEL_MS / one_ms))
    package.read_folder(folder)
    return took_ms


def make_clip(path: Path, frames: int) -> None:
    """Write a small clip whose frames all differ."""
    import cv2
    import numpy as np

    rng = _rng()
    ground = cv2.resize(rng.integers(40, 200, (12, 12, 3), dtype=np.uint8), (CLIP_SIDE_PX, CLIP_SIDE_PX))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (CLIP_SIDE_PX, CLIP_SIDE_PX))
    for number in range(frames):
        frame = np.roll(ground, (number * 5) % CLIP_SIDE_PX, axis=1)
        frame[(number * 7) % 80 : (number * 7) % 80 + 16, 40:56] = (30, 30, 30 + number % 200)
        writer.write(frame)
    writer.release()


def _rng() -> Any:
    import numpy as np

    return np.random.default_rng(4)


def _time_of(path: Path) -> float:
    """The time of one run alone, in ms: the least of many, since this machine may be busy."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    picture = np.zeros([1, 3, *taken.shape[2:]], dtype=np.float32)
    times = []
    for _ in range(150):
        started = time.perf_counter()
        session.run(None, {taken.name: picture})
        times.append((time.perf_counter() - started) * 1000)
    return min(times)


def _broker(folder: Path, program: str, port: int) -> Process:
    configuration = folder / "line-broker.conf"
    configuration.write_text(
        f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n"
    )
    return Process("the line's broker", [program, "-c", str(configuration)], folder / "line-broker.log")


def _sender(folder: Path, kind: str, address: str, count: int, rate: float) -> Process:
    name = {"http": "http", "mqtt": TOPIC, "plc": "plc"}[kind]
    return Process(
        f"sender {kind}",
        [
            sys.executable, str(ROOT / "scripts" / "trigger_senders.py"), kind, "--address", address, "--name", name,
            "--count", str(count), "--rate", str(rate), "--seed", str(KINDS.index(kind) + 1),
            "--output", str(folder / f"{kind}.jsonl"),
        ],
        folder / f"{kind}.log",
    )  # fmt: skip


def _settings(folder: Path, url: str, kinds: tuple[str, ...], ports: dict[str, int]) -> str:
    lines = {
        "plc": f'kind = "modbus"\nmodbus = {{ address = "127.0.0.1:{ports["plc"]}", cycle_ms = {CYCLE_MS} }}',
        "http": 'kind = "http"',
        "mqtt": f'kind = "mqtt"\nmqtt = {{ address = "127.0.0.1:{ports["mqtt"]}", topic = "{TOPIC}", '
        f'verdict_topic = "{TOPIC}/verdict" }}',
    }
    head = f"""\
[device]
id = "{DEVICE}"
data_dir = "{folder / "data"}"

[fleet]
url = "{url}"

[deploy.probation]
parts = 0
minutes = 0

[local]
port = 0
"""
    return head + "".join(
        f"""
[[stations]]
id = "{kind}"
deadline_ms = {DEADLINE_MS}

[stations.line]
{lines[kind]}

[[stations.views]]
id = "top"
model = "{MODEL}"
source = {{ kind = "video", path = "{folder / "clip.mp4"}" }}
"""
        for kind in kinds
    )


def _status(folder: Path) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = json.loads((folder / "data" / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return answer


def _ready(folder: Path, kinds: tuple[str, ...]) -> dict[str, Any] | None:
    status = _status(folder)
    if status is None or not status.get("local_address"):
        return None
    # A station of a PLC that is not there yet is ready all the same; the PLC's sender waits for its word.
    ready = {one["health"]["station"] for one in status["stations"] if one["ready"]}
    return status if set(kinds) <= ready else None


def _drained(folder: Path) -> bool:
    status = _status(folder)
    return status is not None and status["outbox_unsettled"] == 0


def _told(path: Path) -> list[list[Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _records(database: Path) -> dict[str, tuple[str, str]]:
    """Verdict and reason of each record in the fleet's database, by its trigger."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as opened:
        rows = [json.loads(row[0]) for row in opened.execute("SELECT record FROM inspection")]
    return {row["trigger_id"]: (row["verdict"], row["reason"]) for row in rows}


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
