"""The database: its schema is what the tables say, an old or new one is refused, writers wait for each other."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import text
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.exc import StatementError
from sqlmodel import select
from starlette.testclient import TestClient

from fleet import db, web
from fleet.audit import service as audit
from fleet.audit.tables import AuditEntry
from fleet.migrations import runner, tables
from fleet.registry.tables import Model
from tests.support.fleet_stand import START, Stand
from wire.errors import LinesideError


def test_the_migrations_make_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    engine = db.open_engine(tmp_path / "fleet.db")
    assert runner.upgrade(engine) == (None, runner.head())
    assert runner.upgrade(engine) == (runner.head(), runner.head())
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
    engine.dispose()


def test_every_table_module_is_known_to_the_migrations() -> None:
    root = Path(db.__file__).parent
    found = {path.parent.name for path in root.glob("*/tables.py")} - {"migrations"}
    assert found == {module.__name__.split(".")[1] for module in tables.MODULES}


def test_a_database_with_another_schema_is_refused_in_words(tmp_path: Path) -> None:
    engine = db.open_engine(tmp_path / "fleet.db")
    with pytest.raises(LinesideError, match="is empty") as empty:
        runner.require_current(engine)
    assert empty.value.code == "database.not_current"
    assert "db upgrade" in empty.value.next_step
    runner.upgrade(engine)
    runner.require_current(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LinesideError, match="newer version"):
        runner.require_current(engine)
    engine.dispose()


def test_the_application_does_not_start_over_an_old_schema(stand: Stand) -> None:
    with stand.engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    with pytest.raises(LinesideError, match="is empty"), TestClient(stand.app):
        pass


def test_what_is_committed_survives_a_power_cut(stand: Stand) -> None:
    with stand.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_block_that_fails_leaves_nothing(stand: Stand) -> None:
    def fail() -> None:
        with db.write_session(stand.engine) as session:
            session.add(Model(name="parts", created_at=START))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with db.read_session(stand.engine) as session:
        assert session.exec(select(Model)).all() == []


def test_writers_from_many_threads_wait_for_each_other(stand: Stand) -> None:
    """Each reads the last number and writes the next: one that did not hold the lock would write a number twice."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(10):
                with db.write_session(stand.engine) as session:
                    numbers = [int(name) for name in session.exec(select(Model.name)).all()]
                    session.add(Model(name=str(max(numbers, default=0) + 1), created_at=START))
        except BaseException as error:  # noqa: BLE001 - the test shows it
            problems.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    with db.read_session(stand.engine) as session:
        assert sorted(int(name) for name in session.exec(select(Model.name)).all()) == list(range(1, 61))


def test_a_reader_is_not_held_up_by_a_writer(stand: Stand) -> None:
    with db.write_session(stand.engine) as writer:
        writer.add(Model(name="parts", created_at=START))
        writer.flush()
        with db.read_session(stand.engine) as reader:
            assert reader.exec(select(Model)).all() == []


def test_more_requests_than_threads_all_get_their_turn(stand: Stand) -> None:
    """A route that waits for the write lock must not keep its holder from ending."""
    stand.token()
    devices = [f"cell-{n}" for n in range(60)]
    claims = {device: stand.claim(device) for device in devices}
    statuses: list[int] = []

    def run(device: str) -> None:
        body = {
            "claim_token": claims[device],
            "device": device,
            "agent_version": "1",
            "architecture": "x",
        }
        statuses.append(stand.send("POST", "/enrolments", by=None, json=body).status_code)

    with stand.client:
        threads = [threading.Thread(target=run, args=(device,)) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [201] * 60


def test_a_route_takes_its_turn_to_write_after_everything_else(stand: Stand) -> None:
    """A body that comes slowly must not keep other writers waiting."""
    writing = 0
    for route in routes_of(stand.app):
        calls = [dependency.call for dependency in route.dependant.dependencies]
        if web._writing in calls:
            writing += 1
            assert calls[-1] is web._writing, route.path
    assert writing >= 6


def routes_of(app: FastAPI) -> list[APIRoute]:
    found: list[APIRoute] = []

    def walk(routes: Sequence[Any]) -> None:
        for route in routes:
            if isinstance(route, APIRoute):
                found.append(route)
            else:
                walk(getattr(getattr(route, "original_router", None), "routes", []))

    walk(app.routes)
    return found


def test_times_come_back_as_they_went_in_and_naive_ones_are_refused(stand: Stand) -> None:
    moment = datetime(2026, 3, 1, 14, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    with db.write_session(stand.engine) as session:
        audit.record(session, actor="local:test", action="a.b", subject="time", at=moment)
    with db.read_session(stand.engine) as session:
        stored = session.exec(select(AuditEntry).where(AuditEntry.subject == "time")).one()
    assert stored.at == moment
    assert stored.at.tzinfo is UTC

    def write_naive() -> None:
        with db.write_session(stand.engine) as session:
            audit.record(session, actor="x", action="a.b", subject="x", at=datetime(2026, 1, 1))  # noqa: DTZ001

    with pytest.raises(StatementError, match="no time zone"):
        write_naive()


@pytest.mark.parametrize(
    ("at", "stored"),
    [
        ("0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_a_time_that_utc_cannot_hold_becomes_the_nearest(at: str, stored: str) -> None:
    dialect = sqlite_dialect()
    bound = db.UtcTime().process_bind_param(datetime.fromisoformat(at), dialect)
    back = db.UtcTime().process_result_value(bound, dialect)
    assert back == datetime.fromisoformat(stored)


def test_inserting_what_is_there_already_is_passed_over(stand: Stand) -> None:
    rows = [{"name": f"m-{n}", "created_at": START} for n in range(20_000)]
    with db.write_session(stand.engine) as session:
        assert db.insert_ignoring(session, Model, rows) == 20_000
        assert db.insert_ignoring(session, Model, [*rows[:5], {"name": "new", "created_at": START}]) == 1
        assert db.insert_ignoring(session, Model, []) == 0


def test_the_file_is_a_plain_sqlite_database(stand: Stand) -> None:
    raw = sqlite3.connect(stand.settings.database_path)
    assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
