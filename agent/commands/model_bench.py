"""`lineside model bench`: what a package costs on this device, and how many threads to give it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wire import package
from wire.errors import LinesideError

if TYPE_CHECKING:
    from agent.vision.bench import Benched

SCHEMA: Final = "lineside.model-bench/1"
_MAX_THREADS_TRIED: Final = 16


def add_verb(verbs: Any) -> None:
    """Mount the verb."""
    parser = verbs.add_parser(
        "bench",
        help="measure a package on this device",
        description="Measure a package on this device: time per run and per whole look, memory, and the best number of "
        "threads, tried from 1 to the cores this process may use (affinity and control group).",
        epilog="Exit status: 0 measured; 6 the package is refused. Other load on the machine makes all numbers worse.",
    )
    parser.add_argument("package", type=Path, metavar="PACKAGE", help="folder of a model package")
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N", help="rounds in turn (default: 5)")
    parser.add_argument("--looks", type=_positive, default=20, metavar="N", help="pictures per round (default: 20)")
    parser.add_argument("--threads", metavar="N,N", help="numbers of threads to compare (default: 1 to the cores)")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="picture to look at (default: golden ones, or noise)"
    )
    parser.add_argument("--json", action="store_true", help=f"write the result as JSON ({SCHEMA})")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the package in a child process, then measure it in others."""
    from agent.health import cores
    from agent.vision import bench, check

    found = package.read_folder(args.package)
    result = check.check_file(args.package)
    if not result.ok:
        raise LinesideError(result.code, result.reason, result.next_step)
    usable = max(1, int(cores.usable()))
    threads = _numbers(args.threads) if args.threads else tuple(range(1, min(usable, _MAX_THREADS_TRIED) + 1))
    sys.stderr.write(f"{args.rounds} rounds of {args.looks} looks with {', '.join(map(str, threads))} threads ...\n")
    plan = bench.Plan(folder=args.package, threads=threads, rounds=args.rounds, looks=args.looks, picture=args.picture)
    benched = bench.measure(plan, usable)
    if args.json:
        document = {"schema": SCHEMA, "model": found.manifest.name, "digest": found.digest}
        print(json.dumps(document | dataclasses.asdict(benched), indent=2))
    else:
        _print(found, benched)
    return 0


def _print(found: package.Package, benched: Benched) -> None:
    print(f"model       {found.manifest.name}, release {found.manifest.release} ({found.digest[:12]})")
    print(f"device      {benched.cores} usable cores, {benched.provider}")
    print(
        f"{'threads':<12}{'run p50':>9}{'p95':>9}{'p99':>9}{'look p50':>10}{'p95':>9}{'p99':>9}{'cpu':>9}{'memory':>10}"
    )
    for one in benched.measured:
        run, look = one.run_ms, one.look_ms
        print(
            f"{one.threads:<12}{run.p50:>9.2f}{run.p95:>9.2f}{run.p99:>9.2f}"
            f"{look.p50:>10.2f}{look.p95:>9.2f}{look.p99:>9.2f}{one.cpu_ms:>9.2f}{one.memory_mb:>7.1f} MB"
        )
    print(f"best        {benched.why}")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or not all(1 <= number <= 64 for number in numbers) or len(numbers) > _MAX_THREADS_TRIED:
        raise LinesideError("usage.invalid", f"--threads {text!r} is no list of numbers.", "For example: --threads 1,2")
    return numbers


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 10000")
    return number
