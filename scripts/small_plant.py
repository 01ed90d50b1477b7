"""A plant for faults: real mosquitto, `lineside-fleet ingest` and `serve` as processes, many small devices and lines.

Everything can be killed and started again on its own. What counts at the end is `accounts`: the lines' own count files
against the rows of the database, read with nothing but sqlite3.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from scripts.plant import PlantError, Process, free_port, wait_for
from scripts.small_device import verdict_of

ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The lines' count files beside the rows.

    Args:
        triggers: parts the lines counted.
        answered: parts the lines had a verdict for in time.
        uninspected: parts that no device ever began to judge, by its own note.
        rows: inspections in the database.
        lost: triggers without a row.
        twice: rows beyond the first of a trigger.
        invented: rows without a trigger.
        unsaid: uninspected parts whose row does not say NO_VERDICT(agent_down).
        contradicted: rows that differ from what the line was told, or from what any device says of that sequence.
        by_reason: rows without a verdict, by reason.
        counted_wrong: devices whose exact counters differ from their rows.
        quarantined: messages that ingest refused.
    """

    triggers: int
    answered: int
    uninspected: int
    rows: int
    lost: int
    twice: int
    invented: int
    unsaid: int
    contradicted: int
    by_reason: dict[str, int] = field(default_factory=dict)
    counted_wrong: int = 0
    quarantined: int = 0

    def faults(self) -> dict[str, int]:
        """Return what must be 0 and is not."""
        names = ("lost", "twice", "invented", "unsaid", "contradicted", "counted_wrong", "quarantined")
        return {name: value for name in names if (value := asdict(self)[name])}


class SmallDeviceProcess(Process):
    """A small device with its folder and its line."""

    def __init__(self, name: str, folder: Path, line_file: Path, arguments: Sequence[str]) -> None:
        self.command = [sys.executable, str(ROOT / "scripts" / "small_device.py"), *arguments]
        super().__init__(name, self.command, folder.with_name(f"{name}.log"))
        self.folder = folder
        self.line_file = line_file

    def status(self) -> dict[str, Any]:
        """What it said last; empty before it said anything."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def events(self) -> list[dict[str, Any]]:
        """Return its line's own account."""
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in self.line_file.read_text(encoding="utf-8").splitlines()]
        return []

    def taken(self) -> set[str]:
        """Return the triggers it began to judge."""
        with contextlib.suppress(FileNotFoundError):
            return set(self.folder.with_name(f"{self.name}.taken").read_text(encoding="ascii").split())
        return set()


class SmallPlant:
    """A broker, an ingest, a fleet, and devices with their lines; use it in a `with` statement.

    Args:
        folder: for everything; made here.
        devices: how many.
        rate: parts per second of each line.
        serves: whether `lineside-fleet serve` runs too.
        broker_options: more lines for mosquitto's configuration.
        device_options: more arguments for `small_device.py`.
        prepare: called with each device before it starts for the first time.
        wire: gives the port at which devices and ingest find the broker, from who asks ("devices" or "ingest") and the
            broker's own port.
    """

    def __init__(
        self,
        folder: Path,
        *,
        devices: int = 1,
        rate: float = 20.0,
        seed: int = 1,
        serves: bool = False,
        broker_options: str = "",
        device_options: Sequence[str] = (),
        prepare: Callable[[SmallDeviceProcess], None] | None = None,
        wire: Callable[[str, int], int] | None = None,
    ) -> None:
        from fleet.broker import mosquitto

        program = mosquitto.find()
        if program is None:
            raise PlantError("mosquitto is not installed (apt install mosquitto).")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.broker_port, self.http_port = free_port(), free_port()
        ports = {who: wire(who, self.broker_port) if wire else self.broker_port for who in ("devices", "ingest")}
        self._names = [f"small-{number}" for number in range(devices)]
        self._rate, self._seed, self._prepare = rate, seed, prepare
        command = mosquitto.command(program, folder / "broker", "127.0.0.1", self.broker_port)
        with (folder / "broker" / "mosquitto.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(broker_options)
        self.broker = Process("broker", command, folder / "broker.log")
        fleet_cli = [sys.executable, "-m", "fleet.cli", "--data-dir", str(folder / "fleet")]
        mqtt = ["--mqtt-port", str(ports["ingest"])]
        self.ingest = Process("ingest", [*fleet_cli, "ingest", *mqtt], folder / "ingest.log")
        serve = ["serve", "--port", str(self.http_port), "--broker", "external", "--ingest", "elsewhere", *mqtt]
        self.fleet = Process("fleet", [*fleet_cli, *serve], folder / "fleet.log") if serves else None
        self._device_options = [*device_options, "--mqtt-port", str(ports["devices"])]
        self._lines: subprocess.Popen[str] | None = None
        self.devices: list[SmallDeviceProcess] = []

    def __enter__(self) -> SmallPlant:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.devices, self.fleet, self.ingest, self.broker]:
            if process is not None:
                process.kill()
        if self._lines is not None:
            self._lines.kill()
            self._lines.wait()

    @property
    def database(self) -> Path:
        return self.folder / "fleet" / "fleet.db"

    def start_broker(self) -> None:
        """Start the broker and wait until it listens."""
        self.broker.start()
        wait_for("the broker listens", lambda: _listens(self.broker_port), 20)

    def wait_ingest(self, timeout_s: float = 60.0) -> None:
        """Wait until the ingest that runs now has its subscription."""
        begun = self._ingest_log_bytes

        def listens() -> bool:
            if not self.ingest.running:
                raise PlantError(f"ingest ended:\n{self.ingest.tail()}")
            return b"Ingest listens" in (self.folder / "ingest.log").read_bytes()[begun:]

        wait_for("ingest listens", listens, timeout_s)

    def start_ingest(self) -> None:
        """Start ingest; `wait_ingest` waits for it."""
        log = self.folder / "ingest.log"
        self._ingest_log_bytes = log.stat().st_size if log.exists() else 0
        self.ingest.start()

    def halt_lines(self) -> None:
        """Stop the belts; the controllers stay."""
        self._tell_lines("halt")

    def triggers(self) -> int:
        """Return how many parts the lines have counted so far."""
        return sum(event["event"] == "trigger" for device in self.devices for event in device.events())

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Read the fleet's database."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=20)) as database:
            return database.execute(sql, values).fetchall()

    def settle(self, timeout_s: float = 90.0) -> None:
        """Wait until each trigger has a row and the counters have arrived; what then differs, `accounts` tells."""
        wanted = self.triggers()

        def drained() -> bool:
            statuses = [(device.status(), device.pid) for device in self.devices]
            return all(status.get("pid") == pid and status["unsettled"] == 0 for status, pid in statuses)

        def complete() -> bool:
            ((rows, triggers),) = self.rows("SELECT count(*), count(DISTINCT trigger_id) FROM inspection")
            ((counted,),) = self.rows("SELECT coalesce(sum(count), 0) FROM counter_cell")
            return bool(triggers >= wanted and counted >= rows and drained())

        with contextlib.suppress(PlantError):
            wait_for("all is delivered", complete, timeout_s)

    def accounts(self) -> Accounts:
        """Hold the lines' files against the rows."""
        stored = self.rows("SELECT trigger_id, device, verdict, reason, trigger_sequence FROM inspection")
        triggers: set[str] = set()
        answered: dict[str, str] = {}
        taken: set[str] = set()
        for device in self.devices:
            taken |= device.taken()
            for event in device.events():
                name = f"{event['run']}-{event['sequence']}"
                if event["event"] == "trigger":
                    triggers.add(name)
                elif event["event"] == "verdict":
                    answered[name] = event["verdict"]
        found = {row[0]: (row[2], row[3]) for row in stored}
        uninspected = triggers - taken
        wrong = {name for name, told in answered.items() if name in found and found[name][0] != told}
        wrong |= {row[0] for row in stored if row[2] not in ("NO_VERDICT", verdict_of(row[4] or 0).value)}
        counted = Counter(
            dict(self.rows("SELECT device || verdict, sum(count) FROM counter_cell GROUP BY device, verdict"))
        )
        by_device = Counter(row[1] + row[2] for row in stored)
        return Accounts(
            triggers=len(triggers),
            answered=len(answered),
            uninspected=len(uninspected),
            rows=len(stored),
            lost=len(triggers - found.keys()),
            twice=len(stored) - len(found),
            invented=len(found.keys() - triggers),
            unsaid=sum(found.get(name, ("NO_VERDICT", "agent_down")) != ("NO_VERDICT", "agent_down")
                       for name in uninspected),
            contradicted=len(wrong),
            by_reason=dict(Counter(row[3] for row in stored if row[2] == "NO_VERDICT")),
            counted_wrong=sum(counted[key] != by_device[key] for key in counted.keys() | by_device.keys()),
            quarantined=int(self.rows("SELECT count(*) FROM quarantine")[0][0]),
        )  # fmt: skip

    def _start(self) -> None:
        enrol(self.folder / "fleet", self._names)
        self.start_broker()
        self.start_ingest()
        if self.fleet is not None:
            self.fleet.start()
        command = [sys.executable, str(ROOT / "scripts" / "bare_lines.py"), "--folder", str(self.folder)]
        command += ["--lines", str(len(self._names)), "--rate", str(self._rate), "--seed", str(self._seed)]
        self._lines = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ports = json.loads(self._lines.stdout.readline()) if self._lines.stdout else []
        for number, (name, port) in enumerate(zip(self._names, ports, strict=True)):
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            arguments = ["--folder", str(folder), "--device", name, "--line-port", str(port), *self._device_options]
            self.devices.append(SmallDeviceProcess(name, folder, self.folder / f"line-{number}.jsonl", arguments))
        self.wait_ingest()
        for device in self.devices:
            if self._prepare is not None:
                self._prepare(device)
            device.start()
        wait_for("the belts move", lambda: all(device.events() for device in self.devices), 30)

    def _tell_lines(self, word: str) -> None:
        if self._lines is not None and self._lines.stdin is not None:
            self._lines.stdin.write(f"{word}\n")
            self._lines.stdin.flush()
            time.sleep(0.7)  # their deadline: the last parts are answered or diverted


def enrol(data_dir: Path, names: Sequence[str]) -> None:
    """Make the fleet's database with these devices in it."""
    from sqlmodel import Session

    from fleet import db
    from fleet.devices.tables import Device
    from fleet.migrations import runner
    from wire import ids

    data_dir.mkdir(parents=True, exist_ok=True)
    engine = db.open_engine(data_dir / "fleet.db")
    try:
        runner.upgrade(engine)
        with Session(engine) as session:
            session.add_all(
                Device(
                    id=name,
                    shard=ids.shard_of(name),
                    credential_lookup=name,
                    credential_hash="",
                    enrolled_at=datetime.now(UTC),
                    architecture="",
                    agent_version="",
                )
                for name in names
            )
            session.commit()
    finally:
        engine.dispose()


def _listens(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True
