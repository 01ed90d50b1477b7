"""`lineside-fleet claim`: one-use tokens that devices enrol with."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fleet.commands import local


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("claim", help="let a device enrol")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    create = verbs.add_parser("create", help="make a claim token, and print it this once")
    create.add_argument("--device", required=True, metavar="ID", help="small letters, digits and hyphens")
    create.add_argument("--valid-minutes", type=int, default=60, metavar="N", help="default: 60")
    local.add_arguments(create)
    create.set_defaults(run=run_create)


def run_create(args: argparse.Namespace) -> int:
    """Make a claim."""
    from datetime import timedelta

    from fleet import clock, db
    from fleet.devices import enrolment

    valid = timedelta(minutes=min(args.valid_minutes, 10**6))
    with local.current_database(args) as engine, db.write_session(engine) as session:
        plain = enrolment.create_claim(
            session, device=args.device, by=local.local_actor(), now=clock.utc_now(), valid=valid
        )
    sys.stderr.write(
        f"Claim for {args.device}, valid once within {args.valid_minutes} minutes. On the device:\n"
        "  lineside enroll --config FILE --token CLAIM\n"
    )
    print(plain)
    return 0
