"""`run.py bench shadow`: what a candidate of the same size costs the active version, in one run, alternating.

The agent runs as installed, on a clip, once without and once with a candidate that is meant to see every part: the same
model under another release. Cases:
- paced: a line at a steady pace, one station thread: the usual case, a core is idle;
- paced_1_core: the same with the whole agent bound to one core: only the time between two parts is left;
- full_1: one station thread as fast as it can, so that one core is always busy;
- full_all: a station thread for each core, as fast as they can: there is nothing to lend.
Ratios are medians of the rounds' own. Prints one JSON object on its last line. Needs the shared models and clips and
mosquitto.
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
FRAMES_PER_S = {"fast": 10.0, "slow": 2.0}
MEASURED_S = 10.0
SETTLED_S = 2.0
CLIP_ROUNDS = {"fast": 14, "slow": 4}


def main() -> int:
    """Measure all cases and print the figures."""
    parser = argparse.ArgumentParser(
        prog="run.py bench shadow", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=sorted(bench_agent.MODELS), default=["fast", "slow"])
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=list(CASES))
    args = parser.parse_args()
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
    """Run each case with and without a candidate, in turn, `rounds` times."""
    from tests.support import shared_packages

    found: dict[str, dict[str, Any]] = {}
    for model in args.models:
        bench_agent.CLIP_ROUNDS = CLIP_ROUNDS[model]
        bench_agent.make_clip(folder / bench_agent.CLIP_NAME)
        package = shared_packages.assemble(bench_agent.MODELS[model], bench_agent.SHARED, folder)
        twin = _twin(package)
        runs: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {case: [] for case in args.cases}
        for number in range(args.rounds):
            for case in args.cases:
                order = (None, twin) if number % 2 == 0 else (twin, None)
                pair = {bool(candidate): run(folder, broker, package, candidate, model, case) for candidate in order}
                runs[case].append((pair[False], pair[True]))
                print(f"{model} round {number + 1} {case}: {pair[False]} | {pair[True]}", file=sys.stderr, flush=True)
        found[model] = {case: _summary(rounds) for case, rounds in runs.items()}
    return {
        "schema": "lineside.bench-shadow/1",
        "rounds": args.rounds,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "models": found,
    }


def run(
    folder: Path, broker: bench_agent.Broker, package: Path, candidate: Path | None, model: str, case: str
) -> dict[str, Any]:
    """Run `lineside run` on the clip for a while, and look at the parts it judged once the candidate ran."""
    options = CASES[case]
    pace = FRAMES_PER_S[model] if options.get("paced") else None
    data = Path(tempfile.mkdtemp(dir=folder))
    config = bench_agent.prepare(data, package, broker.port, options["threads"], pace)
    text = config.read_text(encoding="utf-8").replace('kind = "each_frame"', 'kind = "each_frame"\nmode = "production"')
    config.write_text(text, encoding="utf-8")
    _ask_for(data, package, candidate)
    broker.records.clear()
    command = [sys.executable, "-m", "agent.cli", "run", "--config", str(config), "--log-level", "WARNING"]
    if options.get("one_core"):
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        _wait(lambda: bool(broker.records), 60)
        _wait(lambda: candidate is None or _shadow_of(data) is not None, 60)
        time.sleep(SETTLED_S)
        first = len(broker.records)
        time.sleep(MEASURED_S)
        account = _shadow_of(data)
    finally:
        process.terminate()
        process.wait(20)
    return _figures(broker.records[first:], account)


def _figures(records: list[dict[str, Any]], account: dict[str, Any] | None) -> dict[str, Any]:
    judged = [datetime.fromisoformat(record["judged_at"]).timestamp() for record in records]
    grabbed = [datetime.fromisoformat(record["views"][0]["frame_at"]).timestamp() for record in records]
    laps = sorted((done - seen) * 1000 for done, seen in zip(judged, grabbed, strict=True))
    found = {
        "parts": len(records),
        "parts_per_s": round((len(records) - 1) / (max(judged) - min(judged)), 2),
        "p50_ms": round(laps[len(laps) // 2], 2),
        "p99_ms": round(laps[min(len(laps) - 1, int(len(laps) * 0.99))], 2),
        "run_p50_ms": round(statistics.median(record["views"][0]["timings_ms"]["run"] for record in records), 2),
    }
    if account is not None:
        found |= {"chosen": account["chosen"], "compared": account["compared"], "skipped": account["skipped"]}
    return found


def _summary(rounds: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    figures = ("parts_per_s", "p50_ms", "p99_ms", "run_p50_ms")
    spread = [without["p99_ms"] for without, _ in rounds]
    compared = [with_["compared"] / max(1, with_["chosen"]) for _, with_ in rounds]
    return {
        "without": {name: statistics.median(without[name] for without, _ in rounds) for name in figures},
        "with": {name: statistics.median(with_[name] for _, with_ in rounds) for name in figures},
        "ratio": {
            name: statistics.median(with_[name] / without[name] for without, with_ in rounds) for name in figures
        },
        "p99_without_least_and_most_ms": [min(spread), max(spread)],
        "compared_of_chosen": statistics.median(compared),
        "skipped": rounds[-1][1]["skipped"],
    }


def table(figures: dict[str, Any]) -> str:
    """Return the figures for a person."""
    lines = [f"{'model, case':24} {'rate':>6} {'p50':>6} {'p99':>6} {'run':>6}  compared"]
    for model, cases in figures["models"].items():
        for case, found in cases.items():
            ratio = found["ratio"]
            lines.append(
                f"{model + ' ' + case:24} {ratio['parts_per_s']:6.3f} {ratio['p50_ms']:6.3f} {ratio['p99_ms']:6.3f} "
                f"{ratio['run_p50_ms']:6.3f}  {found['compared_of_chosen']:.2f}"
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


def _ask_for(data: Path, active: Path, candidate: Path | None) -> None:
    """Leave the desired document, and the candidate's bytes and passed self-test, as earlier days would have."""
    from agent.deploy.shadow_memory import ShadowMemory
    from agent.deploy.shadow_plan import Remembered, Word
    from agent.deploy.store import Store
    from agent.vision.runtime import RUNTIME_VERSION
    from wire import codec
    from wire import package as packages
    from wire.desired import Desired, DesiredModel

    running = packages.read_folder(active)
    shadow = packages.read_folder(candidate) if candidate is not None else None
    entry = DesiredModel(
        model=running.manifest.name,
        active=running.digest,
        release=1,
        deployment_id="00000000-0000-7000-8000-000000000001",
        shadow=shadow.digest if shadow is not None else None,
        shadow_rate=1.0,
    )
    document = Desired(device=bench_agent.DEVICE, revision=1, models=(entry,))
    (data / "desired.json").write_bytes(codec.encode(document))
    if shadow is None or candidate is None:
        return
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


def _shadow_of(data: Path) -> dict[str, Any] | None:
    try:
        status = json.loads((data / "status.json").read_bytes())
    except (OSError, ValueError):
        return None
    shadows = [shadow for station in status["stations"] for shadow in station["health"]["shadows"]]
    return shadows[0] if shadows else None


def _wait(true: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise TimeoutError("the agent does not come to judge, or the candidate does not run")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
