"""A child of test_power_cut.py: writes a journal of deployments forty times, and says of each when it was done."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from agent.clock import SystemClock
from agent.deploy.attempt import Attempt
from agent.deploy.journal import Journal


def main() -> None:
    """Write, and say so."""
    journal = Journal(Path(sys.argv[1]), SystemClock())
    said = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in range(1, 41):
        journal.write(
            Attempt(
                deployment_id=f"01932f5e-7a10-7abc-8def-01234567{number:04x}",
                model="parts",
                digest="a" * 64,
                release=number,
                at=datetime.now(UTC),
            )
        )
        os.write(said, b"done\n")


if __name__ == "__main__":
    main()
