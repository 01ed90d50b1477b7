"""`lineside enroll`: exchange a claim token for this device's own credential."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("enroll", help="enrol this device with the fleet")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="settings (TOML)")
    parser.add_argument("--data-dir", metavar="DIR", help="overrides [device] data_dir")
    parser.add_argument("--token", required=True, help="claim token, or - to read it from standard input")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Enrol and keep the credential."""
    import platform

    from agent import identity, settings
    from agent.uplink.fleet_api import FleetApi
    from agent.version import VERSION
    from wire.enrolment import MAX_TOKEN_CHARS, MIN_TOKEN_CHARS, EnrolmentRequest
    from wire.errors import LinesideError

    config = settings.load(args.config, data_dir=args.data_dir)
    token = sys.stdin.readline().strip() if args.token == "-" else args.token  # noqa: S105  (a dash, not a secret)
    if not MIN_TOKEN_CHARS <= len(token) <= MAX_TOKEN_CHARS:
        raise LinesideError(
            "claim.invalid",
            "That is no claim token.",
            f"Take what this prints, as a whole: lineside-fleet claim create --device {config.device.id}",
        )
    identity.reserve(config.data_dir)  # before the token is used up: it works only once
    api = FleetApi(config.fleet.url, config.device.id, None)
    enrolment = api.enrol(
        EnrolmentRequest(
            claim_token=token,
            device=config.device.id,
            agent_version=VERSION,
            architecture=platform.machine(),
        )
    )
    path = identity.write(config.data_dir, enrolment)
    print(f"{config.device.id} is enrolled; its credential is in {path}.")
    return 0
