"""`lineside-fleet why-not`: why a device has not got a version, as one chain of facts."""

from __future__ import annotations

import argparse
from typing import Any

from fleet.commands import client, table
from wire import command_line


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("why-not", help="tell why a device has not got a version, or that it has")
    parser.add_argument("device", metavar="DEVICE")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--release", type=int, metavar="N", help="default: the one the device is asked to run")
    client.add_arguments(parser)
    client.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain one device and one version."""
    params = {"release": str(args.release)} if args.release is not None else {}
    with client.Client(args) as api:
        found = api.send("GET", f"/devices/{args.device}/models/{args.model}/explain", params=params).json()
    if args.json:
        client.print_json("explain", found)
        return 0
    rows = [[fact["at"] or "-", fact["source"], fact["text"]] for fact in found["facts"]]
    table.print_table(("AT", "SOURCE", "FACT"), rows)
    print()
    command_line.show(found["answer"])
    return 0
