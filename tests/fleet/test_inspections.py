"""Inspections and exact counts: absorbed once, listed by keyset, found by what people know of a part."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from fleet import db
from fleet.inspections import clocks, moments, service
from tests.support import records
from tests.support.fleet_stand import Stand
from wire.inspection import Mode, TimeSource, Verdict
from wire.messages import Lane

OTHER = "b" * 64


def _absorb(stand: Stand, device: str, *bodies: Any, first: int = 1) -> Any:
    return stand.absorb(service.InspectionSlice(), device, Lane.INSPECTIONS, bodies, first=first)


def _count(stand: Stand, *bodies: Any, device: str = "cell-1") -> None:
    stand.absorb(service.CounterSlice(), device, Lane.COUNTERS, bodies)


def test_a_record_sent_again_stays_one_row_and_is_told_as_a_duplicate(stand: Stand) -> None:
    first, second = records.inspection(sequence=1), records.inspection(sequence=2)
    assert _absorb(stand, "cell-1", first).duplicates == 0
    again = _absorb(stand, "cell-1", first, second, second)
    assert (again.accepted, again.duplicates, again.refused) == (3, 2, ())
    assert len(stand.send("GET", "/inspections").json()["items"]) == 2


def test_an_id_of_another_device_is_refused_and_the_first_record_stands(stand: Stand) -> None:
    mine = records.inspection(part_id="mine")
    _absorb(stand, "cell-1", mine)
    answer = _absorb(stand, "cell-2", records.inspection(device="cell-2", id=mine.id), records.inspection("cell-2"))
    assert (answer.accepted, [one.code for one in answer.refused]) == (1, ["message.foreign_id"])
    assert stand.send("GET", f"/inspections/{mine.id}").json()["inspection"]["part_id"] == "mine"


def test_one_inspection_is_shown_with_its_whole_record(stand: Stand) -> None:
    record = records.inspection(sequence=7)
    _absorb(stand, "cell-1", record, first=41)
    shown = stand.send("GET", f"/inspections/{record.id}").json()
    assert shown["record"]["views"][0]["findings"][0]["label"] == "scratch"
    assert (shown["seq"], shown["inspection"]["trigger_sequence"]) == (41, 7)
    assert shown["inspection"]["triggered_at"] == "2026-03-01T12:00:07Z"
    with db.read_session(stand.engine) as session:
        row = service.one(session, record.id)
        assert row is not None
        assert (row.trigger_run, row.kept) == ("run7", False)


@pytest.mark.parametrize("path", ["/inspections/00000000-0000-7000-8000-000000000000", "/inspections/nonsense"])
def test_what_is_not_there_is_a_problem_and_not_a_fault(stand: Stand, path: str) -> None:
    answer = stand.send("GET", path)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_pages_cover_everything_once_while_rows_are_added(stand: Stand) -> None:
    made = [records.inspection(sequence=n) for n in range(25)]
    _absorb(stand, "cell-1", *made)
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": "10"} | ({"cursor": cursor} if cursor else {})
        page = stand.send("GET", "/inspections", params=query).json()
        seen += [item["id"] for item in page["items"]]
        _absorb(stand, "cell-1", records.inspection(sequence=100 + len(seen)))
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [record.id for record in reversed(made)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {"plain", "ng", "setup", "serial", "other"}),
        ({"verdict": "NG"}, {"ng"}),
        ({"mode": "setup"}, {"setup"}),
        ({"part_id": "SN-1"}, {"serial"}),
        ({"lot": "L7"}, {"setup", "serial"}),
        ({"lot": "L7", "mode": "setup"}, {"setup"}),
        ({"recipe": "wide"}, {"ng"}),
        ({"clock_suspect": "true"}, {"other"}),
        ({"clock_suspect": "false", "device": "cell-1"}, {"plain", "ng", "setup", "serial"}),
        ({"device": "cell-2"}, {"other"}),
        ({"model_digest": OTHER}, {"other"}),
        ({"station": "s9"}, set()),
        ({"trigger_id": "run7-2"}, {"ng"}),
        ({"from": "2026-03-01T12:00:04Z"}, {"serial", "other"}),
        ({"to": "2026-03-01T13:00:02+01:00"}, {"plain"}),
        ({"device": "cell-1", "from": "2026-03-01T12:00:02Z", "to": "2026-03-01T12:00:04Z"}, {"ng", "setup"}),
    ],
)
def test_filters_find_what_people_ask_for(stand: Stand, query: dict[str, str], expected: set[str]) -> None:
    made = {
        "plain": records.inspection(sequence=1),
        "ng": records.inspection(sequence=2, verdict=Verdict.NG, recipe="wide"),
        "setup": records.inspection(sequence=3, mode=Mode.SETUP, lot="L7"),
        "serial": records.inspection(sequence=4, part_id="SN-1", lot="L7"),
        "other": records.inspection(
            "cell-2", sequence=5, views=(records.view(model_digest=OTHER),), time_source=TimeSource.SUSPECT
        ),
    }
    _absorb(stand, "cell-1", *[record for record in made.values() if record.device == "cell-1"])
    _absorb(stand, "cell-2", made["other"])
    names = {record.id: name for name, record in made.items()}
    answer = stand.send("GET", "/inspections", params=query)
    assert answer.status_code == 200, answer.text
    assert {names[item["id"]] for item in answer.json()["items"]} == expected


@pytest.mark.parametrize(
    "query",
    [{"cursor": "WyJ4Il0"}, {"cursor": "!"}, {"from": "2026-03-01T12:00:00"}, {"verdict": "?"}, {"model": "parts"}],
)
def test_a_wrong_question_is_named_as_such(stand: Stand, query: dict[str, str]) -> None:
    answer = stand.send("GET", "/inspections", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")


@pytest.mark.parametrize("path", ["/inspections", "/counters", "/quarantine", "/ingest", "/outboxes"])
def test_nobody_reads_without_a_credential(stand: Stand, path: str) -> None:
    assert stand.send("GET", path, by=None).status_code == 401
    assert stand.send("GET", path, by=stand.enrol("cell-7")).status_code == 403
    assert stand.send("GET", path).status_code == 200


def test_a_cell_keeps_the_largest_figure_and_sums_over_outbox_files(stand: Stand) -> None:
    _count(stand, records.counter(5), records.counter(9), records.counter(7))
    body = records.counter(4)
    with db.write_session(stand.engine) as session:
        from fleet.absorb import Received

        later = Received(device="cell-1", epoch="f" * 16, lane=Lane.COUNTERS, seq=1, body=body, received_at=stand.now)
        service.CounterSlice().absorb(session, [later])
    (cell,) = stand.send("GET", "/counters").json()["items"]
    assert cell["count"] == 13, "9 of the first outbox file, 4 of the second"


def test_counters_are_listed_in_pages_and_by_minute(stand: Stand) -> None:
    for index in range(7):
        minute = records.NOON + timedelta(minutes=index)
        _count(stand, records.counter(index, minute=minute), records.counter(1, minute=minute, verdict=Verdict.NG))
    found: list[tuple[str, str, int]] = []
    cursor = None
    while True:
        query = {"limit": "4", "from": "2026-03-01T12:02:00Z", "to": "2026-03-01T12:06:00Z", "device": "cell-1"}
        page = stand.send("GET", "/counters", params=query | ({"cursor": cursor} if cursor else {})).json()
        found += [(cell["minute"], cell["verdict"], cell["count"]) for cell in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [
        (f"2026-03-01T12:0{index}:00Z", verdict, count)
        for index in range(2, 6)
        for verdict, count in (("NG", 1), ("OK", index))
    ]


def test_a_suspect_clock_is_stored_and_never_refused(stand: Stand) -> None:
    for year in (1, 1970, 9999):
        at = datetime(year, 1, 1, tzinfo=UTC)
        assert _absorb(stand, "cell-1", records.inspection(triggered_at=at, judged_at=at)).accepted == 1
    answer = stand.send("GET", "/inspections", params={"clock_suspect": "true"}).json()
    assert len(answer["items"]) == 3, "and each is marked"
    years = {item["triggered_at"][:4] for item in stand.send("GET", "/inspections").json()["items"]}
    assert years == {"0001", "1970", "9999"}


@pytest.mark.parametrize(
    ("late", "source", "suspect"),
    [
        (timedelta(0), TimeSource.SYNCHRONISED, False),
        (timedelta(weeks=2), TimeSource.FREE_RUNNING, False),
        (timedelta(minutes=-1), TimeSource.SYNCHRONISED, False),
        (timedelta(minutes=-3), TimeSource.SYNCHRONISED, True),
        (timedelta(0), TimeSource.SUSPECT, True),
        (timedelta(days=365 * 60), TimeSource.SYNCHRONISED, True),
    ],
)
def test_a_clock_is_suspect_by_its_own_word_from_the_future_or_from_before_lineside(
    late: timedelta, source: TimeSource, suspect: bool
) -> None:
    received_us = moments.to_us(records.NOON)
    assert (
        clocks.is_suspect(source, received_us - late // timedelta(microseconds=1), received_us, received_us) is suspect
    )


def test_moments_keep_every_microsecond() -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC)
    assert moments.from_us(moments.to_us(moment)) == moment
    assert moments.from_us(10**18) == datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (service.Filter(), "sqlite_autoindex_inspection_1"),
        (service.Filter(device="cell-1"), "ix_inspection_device_id"),
        (service.Filter(verdict="NG"), "ix_inspection_verdict_id"),
        (service.Filter(part_id="SN-1"), "ix_inspection_part_id"),
        (service.Filter(model_digest=OTHER), "ix_inspection_model_digest_id"),
        (service.Filter(lot="L7"), "ix_inspection_lot"),
        (service.Filter(clock_suspect=True), "ix_inspection_clock_suspect"),
    ],
)
def test_a_search_reads_an_index_and_sorts_nothing(stand: Stand, wanted: service.Filter, index: str) -> None:
    asked: list[tuple[str, Any]] = []
    event.listen(stand.engine, "before_cursor_execute", lambda *call: asked.append((call[2], call[3])))
    with db.read_session(stand.engine) as session:
        service.page(session, wanted, limit=10)
        statement, values = next(one for one in asked if one[0].startswith("SELECT"))
        plan = str(session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all())
    assert index in plan
    assert "TEMP B-TREE" not in plan
