"""A whole agent, one of whose versions ends the process: `python -m tests.support.spoiled_agent CONFIG DIGEST LOOKS`.

The device's own crash handling is what is shown; the product has no switch for this.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from agent import settings
from agent.app import Agent
from tests.support import faulty_sessions, ports


def main(config: str, digest: str, looks: str) -> None:
    faulty_sessions.spoil({digest: faulty_sessions.crash_at(int(looks))})
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    agent = Agent(
        settings.load(Path(config), {}),
        credential="x" * 32,
        mqtt_host="127.0.0.1",
        mqtt_port=ports.free_port(),
    )
    agent.start()
    try:
        stop.wait()
    finally:
        agent.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
