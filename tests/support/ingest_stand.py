"""A stand for ingest: a real broker, a real SQLite file, the real inspection slices, and devices known by a dict."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text
from sqlmodel import Session, SQLModel

from fleet import db
from fleet.absorb import Absorbed, Slice
from fleet.broker import embedded, supervisor
from fleet.ingest import seams
from fleet.ingest.route import Standing
from fleet.ingest.tables import IngestWorkerRow, QuarantineRow
from fleet.ingest.worker import Ingest
from fleet.inspections import service
from fleet.inspections.tables import CounterCell, InspectionRow
from tests.support import ports, require
from wire.messages import Lane, State


class Swallow:
    """A slice that takes everything and keeps nothing."""

    def absorb(self, _session: Session, messages: Any) -> Absorbed:
        return Absorbed(accepted=len(messages))


@dataclass
class Stand:
    """What a test works with; `lanes` and `standings` may be changed before `ingest()`."""

    engine: Engine
    broker: supervisor.Broker
    standings: dict[str, Standing] = field(
        default_factory=lambda: {"cell-1": Standing.KNOWN, "cell-2": Standing.KNOWN, "cell-9": Standing.REVOKED}
    )
    states: list[State] = field(default_factory=list)
    lanes: dict[Lane, Slice] = field(
        default_factory=lambda: {
            Lane.INSPECTIONS: service.InspectionSlice(),
            Lane.COUNTERS: service.CounterSlice(),
            Lane.DEPLOYMENTS: Swallow(),
            Lane.EVENTS: Swallow(),
            Lane.HEALTH: Swallow(),
        }
    )

    @contextlib.contextmanager
    def ingest(self, **options: Any) -> Iterator[Ingest]:
        """Run an ingest that is connected."""
        ingest = Ingest(self.engine, self.broker.address, self.broker.protocol, fleet_seams=self.seams(), **options)
        ingest.start()
        try:
            assert ingest.wait_connected(10)
            yield ingest
        finally:
            ingest.stop()

    def seams(self) -> seams.Seams:
        def absorb_state(_session: Session, state: State, _now: datetime) -> None:
            self.states.append(state)

        def standing_of(_session: Session, _names: Iterable[str]) -> Mapping[str, Standing]:
            return self.standings

        return seams.Seams(lanes=self.lanes, absorb_state=absorb_state, standing_of=standing_of)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with db.read_session(self.engine) as session:
            return [tuple(row) for row in session.connection().execute(text(sql))]


def tables() -> list[Any]:
    """Return the tables of ingest and of inspections."""
    return [table.__table__ for table in (InspectionRow, CounterCell, QuarantineRow, IngestWorkerRow)]


@contextlib.contextmanager
def stand(folder: Path, kind: str = "mosquitto") -> Iterator[Stand]:
    """Start a broker and open a database in `folder`."""
    if kind == "mosquitto":
        require.program("mosquitto")
    elif not embedded.is_installed():
        require.missing("amqtt is not installed (the extra embedded-broker).")

    @dataclass(frozen=True)
    class Settings:
        broker: Any = kind
        mqtt_host: str = "127.0.0.1"
        mqtt_port: int = ports.free_port()
        broker_dir: Path = folder / "broker"

    engine = db.open_engine(folder / "fleet.db")
    SQLModel.metadata.create_all(engine, tables=tables())
    broker = supervisor.choose(Settings())
    broker.start()
    try:
        yield Stand(engine=engine, broker=broker)
    finally:
        broker.stop()
        engine.dispose()
