"""The device's side of the uplink: an outbox and its link at a broker."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.clock import SystemClock
from agent.uplink.link import Link, LinkSettings
from agent.uplink.outbox import Outbox
from tests.support import records
from tests.support.brokers import RunningBroker
from wire.messages import Command, Severity

DEVICE = "cell-1"


@dataclass
class Side:
    """The device's side of a test."""

    outbox: Outbox
    link: Link
    wakes: list[float] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    told: list[tuple[str, Severity, str]] = field(default_factory=list)

    def inspect(self, count: int, pause_s: float = 0.0, start: int = 1) -> None:
        """Record inspections that follow each other."""
        for n in range(start, start + count):
            self.outbox.put_inspection(records.inspection(sequence=n), line_run="run7")
            time.sleep(pause_s)


@contextmanager
def device(
    folder: Path, broker: RunningBroker, *, resend_after_s: float = 1.0, start: bool = True, **settings: Any
) -> Iterator[Side]:
    """A link over an outbox in `folder`, both ended with the block; `settings` are those of the link."""
    outbox = Outbox(folder / "outbox.db", SystemClock(), device=DEVICE, resend_after_s=resend_after_s)
    options: dict[str, Any] = {"boot": 1, "reconnect_first_s": 0.05, "reconnect_most_s": 0.5, **settings}
    wakes: list[float] = []
    commands: list[Command] = []
    told: list[tuple[str, Severity, str]] = []
    link = Link(
        LinkSettings(device=DEVICE, host=broker.host, port=broker.port, **options),
        outbox,
        SystemClock(),
        on_wake=lambda: wakes.append(time.monotonic()),
        on_command=commands.append,
        tell=lambda *event: told.append(event),
        rng=random.Random(5),
    )
    side = Side(outbox=outbox, link=link, wakes=wakes, commands=commands, told=told)
    if start:
        link.start()
    try:
        yield side
    finally:
        link.stop(5)
        assert not any(thread.name == "uplink" and thread is link._thread for thread in threading.enumerate())
        outbox.close()


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "still waiting"
        time.sleep(0.01)
