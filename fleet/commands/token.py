"""`lineside-fleet token`: tokens of people and programs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fleet.commands import local

_ROLES = ("viewer", "reviewer", "operator", "releaser", "admin")


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("token", help="let a person or program in")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    create = verbs.add_parser("create", help="make a token, and print it this once")
    create.add_argument("--name", required=True, help="whose it is; the audit shows it")
    create.add_argument("--role", required=True, choices=_ROLES, help="each may do all that those before it may")
    create.add_argument("--valid-days", type=int, metavar="N", help="default: for ever")
    local.add_arguments(create)
    create.set_defaults(run=run_create)


def run_create(args: argparse.Namespace) -> int:
    """Make a token."""
    from datetime import timedelta

    from fleet import clock, db
    from fleet.auth import service
    from fleet.auth.actor import Role
    from wire.errors import LinesideError

    now = clock.utc_now()
    if args.valid_days is not None and not 1 <= args.valid_days <= 3650:
        raise LinesideError("usage.invalid", f"--valid-days {args.valid_days} is not allowed.", "Choose 1 to 3650.")
    expires_at = now + timedelta(days=args.valid_days) if args.valid_days is not None else None
    with local.current_database(args) as engine, db.write_session(engine) as session:
        plain = service.create_token(
            session, name=args.name, role=Role(args.role), by=local.local_actor(), now=now, expires_at=expires_at
        )
    sys.stderr.write(f"Token {args.name} with the role {args.role}; it is not shown again.\n")
    print(plain)
    return 0
