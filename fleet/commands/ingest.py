"""`lineside-fleet ingest`: takes in what devices send, in a process of its own, until it is told to stop."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from typing import Any

from fleet.commands import local


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("ingest", help="take in what devices send, beside `serve --ingest elsewhere`")
    parser.add_argument("--mqtt-host", metavar="HOST", help="address of the broker (default: 127.0.0.1)")
    parser.add_argument("--mqtt-port", type=int, metavar="PORT", help="default: 1883")
    parser.add_argument(
        "--worker", metavar="I/K", default="1/1", help="take the I-th of K shares of the devices (default: 1/1, all)"
    )
    parser.add_argument("--verbose", action="store_true", help="log more")
    local.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Take messages in until SIGINT or SIGTERM; a broker that is away is waited for."""
    from fleet import collector, log
    from fleet.ingest import claim, shards
    from fleet.ingest.worker import Ingest

    settings = local.settings_of(args, mqtt_host=args.mqtt_host, mqtt_port=args.mqtt_port)
    share = shards.parse(args.worker)
    log.set_up(verbose=args.verbose)
    told = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: told.set())
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(local.current_database(args))
        stack.enter_context(claim.hold(settings.data_dir, share))
        # The broker may be any: one that `serve` started, or one of the house.
        ingest = Ingest(engine, (settings.mqtt_host, settings.mqtt_port), "auto", share=share)
        stack.callback(ingest.stop)
        ingest.start()
        collector.relax()
        sys.stderr.write(
            f"Lineside ingest: share {share}, broker at {settings.mqtt_host}:{settings.mqtt_port}\n"
            f"Data: {settings.data_dir}\n"
        )
        sys.stderr.flush()
        told.wait()
    return 0
