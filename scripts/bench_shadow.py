"""`run.py bench shadow`: what a candidate of the same size costs the active version.

The agent runs on a clip, with a candidate loaded: the same model under another release. In short turns the candidate is
meant to see every part, or none; parts judged in the ones are compared with those in the others, so that other work on
the machine meets both alike. Cases:
- paced: a line at a steady pace, one station thread: the usual case, a core is idle;
- paced_1_core: the same with the whole agent bound to one core: only the time between two parts is left;
- full_1: one station thread as fast as it can, so that one core is always busy;
- full_all: a station thread for each core, as fast as they can: there is nothing to lend.
Prints one JSON object on its last line. Needs the shared models and clips, and mosquitto.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import bench_agent  # noqa: E402  (scripts are run from anywhere)

CASES: Final[dict[str, dict[str, Any]]] = {
    "paced": {"threads": 1, "paced": True},
    "paced_1_core": {"threads": 1, "paced": True, "one_core": True},
    "full_1": {"threads": 1},
    "full_all": {"threads": None},
}
FRAMES_PER_S = {"fast": 20.0, "slow": 3.0}
TURN_S = {"fast": 1.0, "slow": 3.0}
TURNS = {"fast": 32, "slow": 16}
# Of each turn: what was begun in the one before may still be on its way.
LEFT_OUT_S = 0.3
SEEN_BY_NONE = 1e-12
CLIP_ROUNDS = {"fast": 16, "slow": 4}


def main() -> int:
    """Measure all cases and print the figures."""
    parser = argparse.ArgumentParser(
        prog="run.py bench shadow", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=sorted(bench_agent.MODELS), default=["fast", "slow"])
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mqtt-port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        return child(args.child, args.mqtt_port, args.models[0])
    broker = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if broker is None or not bench_agent.SOURCE_CLIP.exists():
        print("error: this bench needs the shared models and clips, and mosquitto.", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as name:
        folder = Path(name)
        with bench_agent.Broker(broker, folder) as running:
            figures = measure(folder, running, args)
    if not args.json:
        print(table(figures))
    print(json.dumps(figures))
    return 0


def measure(folder: Path, broker: bench_agent.Broker, args: argparse.Namespace) -> dict[str, Any]:
    """Run each case `rounds` times."""
    from tests.support import shared_packages

    found: dict[str, dict[str, Any]] = {}
    for model in args.models:
        bench_agent.CLIP_ROUNDS = CLIP_ROUNDS[model]
        bench_agent.make_clip(folder / bench_agent.CLIP_NAME)
        package = shared_packages.assemble(bench_agent.MODELS[model], bench_agent.SHARED, folder)
        twin = _twin(package)
        runs: dict[str, list[dict[str, Any]]] = {case: [] for case in args.cases}
        for number in range(args.rounds):
            for case in args.cases:
                runs[case].append(run(folder, broker, package, twin, model, case))
                print(f"{model} round {number + 1} {case}: {_summary(runs[case][-1:])}", file=sys.stderr, flush=True)
        found[model] = {case: _summary(rounds) for case, rounds in runs.items()}
    return {
        "schema": "lineside.bench-shadow/1",
        "rounds": args.rounds,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "models": found,
    }


def run(
    folder: Path, broker: bench_agent.Broker, package: Path, candidate: Path, model: str, case: str
) -> dict[str, Any]:
    """Run the agent in a process of its own, and sort the parts it judged by whose turn it was."""
    options = CASES[case]
    pace = FRAMES_PER_S[model] if options.get("paced") else None
    data = Path(tempfile.mkdtemp(dir=folder))
    config = bench_agent.prepare(data, package, broker.port, options["threads"], pace)
    text = config.read_text(encoding="utf-8").replace('kind = "each_frame"', 'kind = "each_frame"\nmode = "production"')
    config.write_text(text, encoding="utf-8")
    _ask_for(data, package, candidate)
    broker.records.clear()
    command = [sys.executable, __file__, "--child", str(config), "--mqtt-port", str(broker.port), "--models", model]
    if options.get("one_core"):
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    shutil.rmtree(data)
    return {
        "turns": [(seen, *_in_turn(broker.records, begin, end)) for seen, begin, end in told["turns"]],
        "chosen": told["chosen"],
        "compared": told["compared"],
        "skipped": told["skipped"],
    }


def child(config: Path, mqtt_port: int, model: str) -> int:
    """Be the agent, and take turns: shown every part, shown none."""
    from agent import settings
    from agent.app import Agent

    agent = Agent(settings.load(config, {}), credential="x" * 32, mqtt_host="127.0.0.1", mqtt_port=mqtt_port)
    agent.start()
    shadows, keeper = agent._shadows, agent._candidates  # noqa: SLF001
    try:
        until = time.monotonic() + 60
        while not (running := [name for name in agent._models.models if shadows.running(name) is not None]):  # noqa: SLF001
            if time.monotonic() > until:
                raise TimeoutError("the candidate does not run")
            time.sleep(0.02)
        keeper.step = lambda *_: False  # type: ignore[method-assign]  # the rate is ours from now on
        keeper.tend = lambda *_: False  # type: ignore[method-assign]
        turns = []
        for number in range(TURNS[model]):
            seen = number % 4 in (1, 2)  # none, all, all, none: a drift meets both alike
            shadows.set_rate(running[0], 1.0 if seen else SEEN_BY_NONE)
            began = time.time()
            time.sleep(TURN_S[model])
            turns.append((seen, began + LEFT_OUT_S, time.time()))
        (account,) = shadows.health("bench")
        time.sleep(1.0)
    finally:
        agent.close()
    told = {"turns": turns, "chosen": account.chosen, "compared": account.compared, "skipped": account.skipped}
    print(json.dumps(told))
    return 0


def _in_turn(records: list[dict[str, Any]], begin: float, end: float) -> tuple[float, list[float]]:
    """Return the parts a second of a turn, and for each part the milliseconds from its frame to its verdict."""
    laps = []
    for record in records:
        judged = datetime.fromisoformat(record["judged_at"]).timestamp()
        if begin <= judged < end:
            laps.append((judged - datetime.fromisoformat(record["views"][0]["frame_at"]).timestamp()) * 1000)
    return len(laps) / (end - begin), laps


def _summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Take medians over the turns, and ratios over four in a row: a stall of the machine spoils only its own."""
    rates, middles, fours = [], [], []
    for one in rounds:
        turns = [turn for turn in one["turns"] if turn[2]]
        for at in range(0, len(turns) - 3, 4):
            without = [turn for turn in turns[at : at + 4] if not turn[0]]
            seen = [turn for turn in turns[at : at + 4] if turn[0]]
            if len(without) == len(seen) == 2:
                rates.append(sum(turn[1] for turn in seen) / sum(turn[1] for turn in without))
                middles.append(_middle(seen) / _middle(without))
                fours.append((without, seen))
    pooled = [sorted(lap for four in fours for turn in four[which] for lap in turn[2]) for which in (0, 1)]
    p99 = [laps[int(0.99 * (len(laps) - 1))] for laps in pooled]
    p50 = [statistics.median(laps) for laps in pooled]
    speed = [statistics.median(turn[1] for four in fours for turn in four[which]) for which in (0, 1)]
    return {
        "parts": [len(laps) for laps in pooled],
        "parts_per_s": [round(one, 2) for one in speed],
        "p50_ms": [round(one, 2) for one in p50],
        "p99_ms": [round(one, 2) for one in p99],
        "ratio": {
            "parts_per_s": statistics.median(rates),
            "p50_ms": statistics.median(middles),
            "p99_ms": p99[1] / p99[0],
        },
        "compared_of_chosen": statistics.median(one["compared"] / max(1, one["chosen"]) for one in rounds),
        "skipped": rounds[-1]["skipped"],
    }


def _middle(turns: list[Any]) -> float:
    return float(statistics.median(lap for turn in turns for lap in turn[2]))


def table(figures: dict[str, Any]) -> str:
    """Return the figures for a person."""
    lines = [f"{'model, case':24} {'rate':>6} {'p50':>6} {'p99':>6}  compared"]
    for model, cases in figures["models"].items():
        for case, found in cases.items():
            ratio = found["ratio"]
            lines.append(
                f"{model + ' ' + case:24} {ratio['parts_per_s']:6.3f} {ratio['p50_ms']:6.3f} {ratio['p99_ms']:6.3f}  "
                f"{found['compared_of_chosen']:.2f}"
            )
    return "\n".join(lines)


def _twin(package: Path) -> Path:
    twin = package.with_name(f"{package.name}-next")
    if not twin.exists():
        shutil.copytree(package, twin)
        manifest = twin / "manifest.toml"
        text = manifest.read_text(encoding="utf-8")
        manifest.write_text(text.replace("release = 1", "release = 2"), encoding="utf-8")
    return twin


def _ask_for(data: Path, active: Path, candidate: Path) -> None:
    """Leave the desired document, and the candidate's bytes and passed self-test, as earlier days would have."""
    from agent.deploy.shadow_memory import ShadowMemory
    from agent.deploy.shadow_plan import Remembered, Word
    from agent.deploy.store import Store
    from agent.vision.runtime import RUNTIME_VERSION
    from wire import codec
    from wire import package as packages
    from wire.desired import Desired, DesiredModel

    running = packages.read_folder(active)
    shadow = packages.read_folder(candidate)
    entry = DesiredModel(
        model=running.manifest.name,
        active=running.digest,
        release=1,
        deployment_id="00000000-0000-7000-8000-000000000001",
        shadow=shadow.digest,
        shadow_rate=1.0,
    )
    document = Desired(device=bench_agent.DEVICE, revision=1, models=(entry,))
    (data / "desired.json").write_bytes(codec.encode(document))
    store = Store(data / "models")
    for digest, source in [(file.digest, candidate / file.path) for file in shadow.index.files]:
        if not store.blob_path(digest).exists():
            shutil.copyfile(source, store.incoming_path(digest))
            store.adopt(digest)
    store.incoming_path(shadow.digest).write_bytes(packages.index_bytes(shadow.index))
    store.adopt(shadow.digest)
    store.materialise(shadow.digest, shadow.index)
    tested = Remembered(digest=shadow.digest, word=Word.TESTED, memory_mb=50.0, runtime_version=RUNTIME_VERSION)
    ShadowMemory(data / "models").write(running.manifest.name, tested)


if __name__ == "__main__":
    sys.exit(main())
