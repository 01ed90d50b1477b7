"""A database of an earlier version, with rows in it, comes to the newest schema with all of them, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from fleet import db
from fleet.migrations import runner
from tests.fleet.test_local_deployments import FOREIGN, LOCAL
from wire.errors import LinesideError

DIGEST, FORMER = "a" * 64, "b" * 64
AT = "2026-03-01 12:00:00.000000"
DEVICE = (
    "INSERT INTO device (id, shard, credential_lookup, credential_hash, enrolled_at, architecture, agent_version,"
    f" online, boot, state_revision) VALUES ('cell-1', '00', 'x', 'y', '{AT}', 'x86_64', '0.1', 1, 1, 1)"
)
MODEL = f"INSERT INTO model (name, created_at) VALUES ('parts', '{AT}')"
VERSION = (
    "INSERT INTO model_version (digest, model, release, task, bytes, index_json, manifest_json, created_at, created_by)"
    " VALUES ('{digest}', 'parts', {release}, 'classify', 1, '', '', '" + AT + "', 'operator:eva')"
)
DEPLOYMENT = (
    "INSERT INTO deployment (id, device, model, digest, release, state, sequence, attempt, code, reason, irregular,"
    " created_at, created_by, updated_at, ended_at) VALUES"
    " ('{id}', 'cell-1', 'parts', '{digest}', {release}, '{state}', 7, 1, '', '', 0, '" + AT + "', 'operator:eva',"
    " '" + AT + "', '" + AT + "')"
)
REPORT = (
    "INSERT INTO deployment_report (deployment_id, sequence, state, at, received_at, irregular, body)"
    " VALUES ('d-1', 7, 'succeeded', '" + AT + "', '" + AT + "', 0, '{}')"
)


@pytest.fixture
def old(tmp_path: Path) -> Engine:
    """A database of the schema 0002 with a deployment and its report."""
    engine = db.open_engine(tmp_path / "fleet.db")
    runner.upgrade(engine, "0002")
    with engine.begin() as connection:
        for statement in (
            DEVICE,
            MODEL,
            VERSION.format(digest=DIGEST, release=2),
            VERSION.format(digest=FORMER, release=1),
            DEPLOYMENT.format(id="d-1", digest=DIGEST, release=2, state="succeeded"),
            DEPLOYMENT.format(id="d-2", digest=FORMER, release=1, state="refused"),
        ):
            connection.execute(text(statement))
        connection.exec_driver_sql(REPORT)
    return engine


def test_rows_of_the_schema_0002_are_all_there_after_the_upgrade(old: Engine) -> None:
    assert runner.upgrade(old) == ("0002", runner.head())
    with old.begin() as connection:
        rows = connection.exec_driver_sql(
            'SELECT id, release, origin, "by", hold_text, probation, installed_at FROM deployment ORDER BY id'
        ).fetchall()
        assert [tuple(row) for row in rows] == [
            ("d-1", 2, "fleet", "", "", None, AT),
            ("d-2", 1, "fleet", "", "", None, None),
        ]
        assert connection.exec_driver_sql("SELECT count(*) FROM deployment_report").scalar() == 1
        # a version that the registry does not know may be deployed now, and still only on a device that it knows
        local = DEPLOYMENT.format(id=LOCAL, digest=FOREIGN, release="NULL", state="succeeded")
        connection.execute(text(local))
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    with pytest.raises(IntegrityError), old.begin() as connection:
        connection.execute(text(local.replace(LOCAL, "d-3").replace("cell-1", "nobody")))
    with pytest.raises(IntegrityError), old.begin() as connection:
        connection.exec_driver_sql("DELETE FROM deployment WHERE id = 'd-1'")  # its report refers to it
    runner.downgrade(old, "0002")
    with old.connect() as connection:
        assert connection.exec_driver_sql("SELECT id FROM deployment ORDER BY id").fetchall() == [("d-1",), ("d-2",)]
    old.dispose()


def test_an_upgrade_that_would_leave_broken_rows_changes_nothing(old: Engine) -> None:
    raw = old.raw_connection()
    raw.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
    raw.driver_connection.execute("UPDATE deployment_report SET deployment_id = 'gone'")  # type: ignore[union-attr]
    raw.driver_connection.execute("PRAGMA foreign_keys=ON")  # type: ignore[union-attr]
    raw.close()
    with pytest.raises(LinesideError, match="nothing was changed") as refused:
        runner.upgrade(old)
    assert refused.value.code == "storage.corrupt"
    assert runner.current(old) == "0002"
    old.dispose()
