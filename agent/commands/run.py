"""`lineside run`: judge parts until stopped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("run", help="run the agent until it is stopped (Ctrl-C or SIGTERM)")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="settings (TOML)")
    parser.add_argument("--data-dir", metavar="DIR", help="overrides [device] data_dir")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until a signal comes; 0 after a clean stop."""
    import signal
    import threading

    from agent import app, log, settings

    log.start(args.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    app.run(settings.load(args.config, data_dir=args.data_dir), stop)
    return 0
