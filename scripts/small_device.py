"""A device without cameras and models, for fault tests: the agent's own line, ledger, mint, outbox and link, in 0.2 s.

The verdict is a function of the trigger's sequence (`verdict_of`), so that a row with another's content is seen.
Before a part is judged its trigger is appended to a file of its own, which outlives kill -9 as a finished write does:
what is not in there was not inspected, whoever says so. Faults come from outside; only the wall clock can be told to
jump (`clock-offset-s` in the folder), since a machine has one for all its processes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.clock import SystemClock
from agent.inspection.ledger import Ledger
from agent.line.simulated import SimulatedController
from agent.line.trigger import Answer, LinePosition, StationState, Trigger
from agent.uplink import ending
from agent.uplink.ending import Ending
from agent.uplink.link import Link, LinkSettings
from agent.uplink.outbox import Outbox
from agent.uplink.picture_spool import PictureSpool
from wire import mint
from wire.errors import LinesideError
from wire.inspection import Box, Finding, Inspection, Reason, Route, TimeSource, Timings, Verdict, ViewRecord
from wire.messages import Event, Lane, Severity
from wire.sampling import Draw

STATION: Final = "gauge"
HIGH_WATER_KEY: Final = "mint_high_water_ms"
EVENT_OF_ENDING: Final = {Ending.KILLED: "agent.killed", Ending.POWER_CUT: "agent.power_lost"}
TOLD_EVERY_S: Final = 0.25
_MIB: Final = 1024 * 1024


def verdict_of(sequence: int) -> Verdict:
    """Return what every device here says of a trigger."""
    return Verdict.NG if sequence % 7 == 0 else Verdict.OK


def record_of(device: str, trigger_id: str, sequence: int | None, inspection_id: str, at: datetime) -> Inspection:
    """Return an inspection of the size that a station with one view and one finding makes."""
    finding = Finding(label="scratch", score=0.31, box=Box(x1_px=32.5, y1_px=24.1, x2_px=96.9, y2_px=72.3))
    verdict = verdict_of(sequence or 0)
    view = ViewRecord(
        view="top",
        camera="cam-0",
        verdict=verdict,
        score=0.31,
        frame_number=sequence,
        frame_at=at,
        width_px=1280,
        height_px=720,
        model="parts",
        model_digest="a" * 64,
        findings=(finding,),
        timings_ms=Timings(retrieve=3.1, preprocess=0.3, run=22.4, decode=0.2, judge=0.05),
    )
    return Inspection(
        id=inspection_id,
        device=device,
        station=STATION,
        recipe="default",
        recipe_revision=3,
        trigger_id=trigger_id,
        trigger_sequence=sequence,
        triggered_at=at,
        judged_at=at,
        time_source=TimeSource.FREE_RUNNING,
        verdict=verdict,
        score=0.31,
        views=(view,),
        sampling=Draw(plan_revision=1, stratum="all", pi=0.05, u=0.7, kept=False),
        total_ms=27.0,
    )


class JumpingClock(SystemClock):
    """The system's clock, off by what the file says just now."""

    def __init__(self, offset: Path) -> None:
        self._offset = offset

    def offset_s(self) -> float:
        """Return by how many seconds the wall clock is off."""
        try:
            return float(self._offset.read_text(encoding="ascii") or 0)
        except (OSError, ValueError):
            return 0.0

    def now_utc(self) -> datetime:
        """Return the wrong time."""
        return datetime.now(UTC) + timedelta(seconds=self.offset_s())


class SmallDevice:
    """The parts of an agent between the line and the broker, on one thread beside theirs."""

    def __init__(self, args: argparse.Namespace) -> None:
        folder: Path = args.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._args = args
        self._clock = JumpingClock(folder / "clock-offset-s")
        mint.clock_ms = lambda: time.time_ns() // 1_000_000 + int(self._clock.offset_s() * 1000)
        self._outbox = Outbox(
            folder / "outbox.db",
            self._clock,
            device=args.device,
            max_bytes=args.max_mb * _MIB,
            resend_after_s=args.resend_after_s,
        )
        if args.pictures_mb:
            self._outbox.borrow_from(PictureSpool(folder / "pictures", max_bytes=args.pictures_mb * _MIB))
        boot = max(int(self._outbox.meta_get("boot") or 0) + 1, mint.clock_ms() // 1000)
        self._outbox.meta_set("boot", str(boot))
        former = ending.begin(self._outbox, args.boot_id)
        self._mint = mint.Mint(int(self._outbox.meta_get(HIGH_WATER_KEY) or 0))
        self._ledger = Ledger(STATION, self._outbox, self._missed, _unrecorded)
        self._line = SimulatedController("127.0.0.1", args.line_port, self._clock, STATION)
        self._link = Link(
            LinkSettings(
                device=args.device,
                host="127.0.0.1",
                port=args.mqtt_port,
                protocol=args.protocol,
                boot=boot,
                keepalive_s=args.keepalive_s,
                connect_timeout_s=3.0,
                reconnect_most_s=1.0,
            ),
            self._outbox,
            self._clock,
            on_wake=lambda: None,
            on_command=lambda _command: None,
        )
        taken = folder.with_name(f"{folder.name}.taken")  # beside the folder, whose disk may be full
        self._taken = os.open(taken, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if former in EVENT_OF_ENDING:
            self._tell(EVENT_OF_ENDING[former])

    def run(self, stop: threading.Event) -> None:
        """Judge what the line triggers until told to stop; then leave in good order."""
        self._link.start()
        self._line.set_state(StationState(ready=True))
        told_ns = 0
        while not stop.is_set():
            match self._line.take(0.1):
                case LinePosition(run=run, sequence=sequence):
                    self._quietly(functools.partial(self._ledger.meet, run, sequence))
                case Trigger() as trigger:
                    self._judge(trigger)
                case _:
                    pass
            if self._clock.monotonic_ns() - told_ns > TOLD_EVERY_S * 1e9:
                told_ns = self._clock.monotonic_ns()
                self._keep()
        self._line.close()
        self._keep()
        self._link.stop()
        self._quietly(lambda: ending.end(self._outbox))
        self._outbox.close()

    def _judge(self, trigger: Trigger) -> None:
        if trigger.sequence is None or self._ledger.is_repeat(trigger.run, trigger.sequence):
            return
        os.write(self._taken, f"{trigger.id}\n".encode())
        now = self._clock.now_utc()
        inspection = record_of(self._args.device, trigger.id, trigger.sequence, self._mint.uuid7(), now)
        recorded = self._ledger.write(inspection, trigger.run)
        said = inspection if recorded else _unrecorded(inspection)
        self._line.answer(
            Answer(
                trigger=trigger,
                inspection_id=said.id if recorded else "",
                verdict=said.verdict,
                reason=said.reason,
                route=Route.DIVERT,
                recipe=said.recipe,
                judged_ns=self._clock.monotonic_ns(),
            )
        )

    def _keep(self) -> None:
        """What the agent's reporter does now and then; and the figures a test waits for."""
        self._quietly(self._outbox.emit_counters)
        self._quietly(lambda: self._outbox.meta_set(HIGH_WATER_KEY, str(self._mint.high_water_ms)))
        stats, counts = self._outbox.stats(), self._link.counts()
        status = {
            "pid": os.getpid(),
            "connected": self._link.connected,
            "last": self._outbox.last_trigger(STATION),
            **{name: getattr(stats, name) for name in ("epoch", "unsettled", "bytes", "dropped")},
            **dataclasses.asdict(counts),
        }
        part = self._args.folder / "status.part"
        with contextlib.suppress(OSError):
            part.write_text(json.dumps(status), encoding="utf-8")
            part.replace(self._args.folder / "status.json")

    def _missed(self, run: str, sequence: int, reason: Reason) -> Inspection:
        now = self._clock.now_utc()
        record = record_of(self._args.device, f"{run}-{sequence}", sequence, self._mint.uuid7(), now)
        return dataclasses.replace(
            record, verdict=Verdict.NO_VERDICT, reason=reason, time_source=TimeSource.SUSPECT, views=(), score=0.0
        )

    def _tell(self, name: str) -> None:
        event = Event(at=self._clock.now_utc(), name=name, severity=Severity.ALARM, text="As the marks say.")
        self._quietly(lambda: self._outbox.put(Lane.EVENTS, event))

    def _quietly(self, action: Callable[[], object]) -> None:
        try:
            action()
        except LinesideError as error:
            logging.getLogger("small_device").warning("%s", error)


def _unrecorded(inspection: Inspection) -> Inspection:
    return dataclasses.replace(inspection, verdict=Verdict.NO_VERDICT, reason=Reason.NOT_RECORDED, route=Route.DIVERT)


def main() -> int:
    """Run one device until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--line-port", type=int, required=True)
    parser.add_argument("--mqtt-port", type=int, required=True)
    parser.add_argument("--protocol", default="auto")
    parser.add_argument("--keepalive-s", type=int, default=20)
    parser.add_argument("--resend-after-s", type=float, default=2.0)
    parser.add_argument("--max-mb", type=int, default=256)
    parser.add_argument("--pictures-mb", type=int, default=0)
    parser.add_argument("--boot-id", help="of the machine; the kernel's own by default")
    args = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    SmallDevice(args).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
