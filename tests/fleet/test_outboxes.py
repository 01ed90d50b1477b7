"""The outboxes as the fleet knows them, what it holds and what it refused, and databases of an earlier version."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from fleet import db
from fleet.devices import service as devices
from fleet.ingest import quarantine
from fleet.ingest.route import Place, Reject
from fleet.migrations import runner
from tests.support.fleet_stand import EPOCH, Stand
from wire.messages import Health, Lane, SeqRange


def _health(stand: Stand, **changes: int) -> Health:
    figures = {"outbox_unsettled": 0, "outbox_bytes": 4096, "outbox_dropped": 0} | changes
    return Health(
        at=stand.now, uptime_s=1.0, cpu_fraction=0.1, rss_bytes=1, disk_free_bytes=1, disk_free_fraction=0.5, **figures
    )


def _reject(device: str, code: str, seq: int) -> Reject:
    return Reject(
        topic=f"t/{device}",
        device=device,
        place=Place(device=device, epoch=EPOCH, lane=Lane.INSPECTIONS),
        seqs=SeqRange(first=seq, last=seq),
        code=code,
        text="",
        excerpt=b"x",
        payload_bytes=1,
    )


def test_each_device_shows_the_newest_word_of_its_outbox(stand: Stand) -> None:
    for name in ("cell-1", "cell-2", "cell-3"):
        stand.enrol(name)
    stand.send("POST", "/devices/cell-3/revocation")
    for seq, unsettled in enumerate((900, 40), start=1):
        body = _health(stand, outbox_unsettled=unsettled, outbox_dropped=7)
        stand.absorb(devices.HealthSlice(), "cell-1", Lane.HEALTH, [body], first=seq)
    with db.write_session(stand.engine) as session:
        rejects = [_reject("cell-1", "internal.unexpected", 1), _reject("cell-1", "message.undecodable", 2)]
        quarantine.keep(session, rejects, stand.now)
    first, second = stand.send("GET", "/outboxes").json()["items"]
    assert (first["device"], first["unsettled"], first["dropped"], first["bytes"]) == ("cell-1", 40, 7, 4096)
    assert (first["held"], first["refused"]) == (1, 1)
    assert (second["device"], second["unsettled"], second["told_at"], second["held"]) == ("cell-2", None, None, 0)
    (only,) = stand.send("GET", "/outboxes", params={"device": "cell-2"}).json()["items"]
    assert only == second


def test_the_quarantine_tells_what_is_held_until_its_device_is_known(stand: Stand) -> None:
    with db.write_session(stand.engine) as session:
        codes = ("message.unknown_device", "internal.unexpected", "message.undecodable")
        quarantine.keep(session, [_reject("cell-1", code, 1) for code in codes], stand.now)

    def held() -> dict[str, bool]:
        return {item["code"]: item["held"] for item in stand.send("GET", "/quarantine").json()["items"]}

    assert held() == {"message.unknown_device": True, "internal.unexpected": True, "message.undecodable": False}
    stand.enrol("cell-1")
    assert held()["message.unknown_device"] is False, "the device sends them again, and they are taken"


def test_what_an_unknown_device_sends_widens_one_row(stand: Stand) -> None:
    with db.write_session(stand.engine) as session:
        for seq in (50, 10, 90, 50):
            quarantine.keep(session, [_reject("new", "message.unknown_device", seq)], stand.now)
    (row,) = stand.send("GET", "/quarantine").json()["items"]
    assert (row["first_seq"], row["last_seq"], row["times"]) == (10, 90, 4)


def test_a_database_of_the_first_schema_is_brought_up_with_its_rows(tmp_path: Path) -> None:
    engine = db.open_engine(tmp_path / "fleet.db")
    config = Config()
    config.set_main_option("script_location", str(runner.FOLDER))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for number, source in enumerate(("synchronised", "suspect")):
            connection.execute(
                text(
                    "INSERT INTO inspection (id, device, epoch, seq, station, recipe, recipe_revision, verdict, reason,"
                    " rule_fired, score, mode, kept, trigger_id, triggered_at_us, judged_at_us, received_at_us,"
                    " time_source, record) VALUES (:id, 'cell-1', 'e', :seq, 's', 'r', 0, 'OK', 'none', '', 0.0,"
                    " 'production', 0, 't', 0, 0, 0, :source, '{}')"
                ),
                {"id": bytes([number] * 16), "seq": number, "source": source},
            )
    assert runner.upgrade(engine) == ("0001", runner.head())
    with db.read_session(engine) as session:
        marks = session.connection().execute(text("SELECT clock_suspect FROM inspection ORDER BY seq"))
        assert [bool(mark) for (mark,) in marks] == [False, True]
    engine.dispose()


def test_new_databases_have_pages_that_hold_several_records(tmp_path: Path) -> None:
    engine = db.open_engine(tmp_path / "fleet.db")
    runner.upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA page_size")).scalar() == db.PAGE_BYTES
    engine.dispose()


@pytest.mark.parametrize("cursor", ["WyJ4IiwieSJd", "!"])
def test_a_wrong_cursor_is_named(stand: Stand, cursor: str) -> None:
    answer = stand.send("GET", "/outboxes", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
