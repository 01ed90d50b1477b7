"""`lineside simulate`: a production line of known truth, for trials, demonstrations and tests."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("simulate", help="run a simulated line: belt, controller and camera")
    parser.add_argument("--belt", type=Path, metavar="FILE", help="a belt with several cameras and a PLC, from a file")
    parser.add_argument(
        "--plc",
        choices=("server", "client"),
        help="a PLC alone, for cameras of your own: it holds the Modbus registers at --port, or connects to an agent "
        "that holds them there",
    )
    parser.add_argument("--recipe", type=int, default=0, metavar="NUMBER", help="with --plc: RecipeRequest")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 picks a free one and prints it")
    parser.add_argument("--count-file", type=Path, metavar="FILE", help="the line's own count (JSONL)")
    parser.add_argument("--parts", type=int, default=0, help="parts to pass; 0 runs until stopped")
    parser.add_argument("--rate", type=float, default=3.0, help="parts per second")
    parser.add_argument("--defect-rate", type=float, default=0.2, help="share of defective parts")
    parser.add_argument("--deadline-ms", type=float, default=500.0, help="a later verdict is no use to the line")
    parser.add_argument("--seed", type=int, default=1, help="seed of the parts")
    parser.add_argument("--start-at-once", action="store_true", help="do not wait for a station to be ready")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the line until its parts have passed or a signal comes."""
    import signal
    import threading

    from agent import log
    from agent.simulator.line import LineSettings, SimulatedLine
    from wire.errors import LinesideError

    if (args.belt is None) == (args.count_file is None) or (args.belt is not None and args.plc is not None):
        raise LinesideError(
            "usage.invalid",
            "A simulated line or --plc needs --count-file FILE; --belt FILE goes alone.",
            "See lineside simulate --help.",
        )
    if args.rate <= 0 or not 0 <= args.port <= 65_535 or not 0 <= args.recipe <= 65_535:
        raise LinesideError(
            "usage.invalid", "--rate must be above 0, --port and --recipe from 0 to 65535.", "Correct the value."
        )
    log.start()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if args.belt is not None:
        from agent.simulator import belt_process

        return belt_process.run(belt_process.read(args.belt), stop)
    if args.plc is not None:
        return _run_plc(args, stop)
    line = SimulatedLine(
        LineSettings(
            port=args.port,
            count_file=args.count_file,
            seed=args.seed,
            part_count=args.parts,
            parts_per_s=args.rate,
            defect_rate=args.defect_rate,
            deadline_ms=args.deadline_ms,
            wait_for_ready=not args.start_at_once,
        )
    )
    print(f"127.0.0.1:{line.port}", flush=True)
    sys.stderr.write(f"Simulated line {line.run_id} listens on 127.0.0.1:{line.port}.\n")
    line.serve(stop)
    return 0


def _run_plc(args: argparse.Namespace, stop: threading.Event) -> int:
    from agent.simulator import plc_process
    from agent.simulator.plc import PlcSettings
    from wire.errors import LinesideError

    if args.plc == "client" and not args.port:
        raise LinesideError("usage.invalid", "--plc client needs the agent's --port.", "Give the port of its address.")
    return plc_process.run(
        PlcSettings(role=args.plc, port=args.port, count_file=args.count_file, deadline_ms=args.deadline_ms),
        stop,
        part_count=args.parts,
        parts_per_s=args.rate,
        recipe=args.recipe,
        at_once=args.start_at_once,
    )
