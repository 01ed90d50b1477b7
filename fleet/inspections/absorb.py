"""What ingest brings: inspection records and counter cells become rows, each once, however often they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection
from sqlmodel import Session

from fleet.absorb import Absorbed, Received, Refused
from fleet.inspections import clocks, moments
from fleet.inspections.tables import CounterCell, InspectionRow
from wire import codec
from wire.inspection import Inspection
from wire.messages import Counter

_INSPECTION: Final = InspectionRow.__table__  # type: ignore[attr-defined]
_CELL: Final = CounterCell.__table__  # type: ignore[attr-defined]
_COLUMNS: Final = tuple(column.name for column in _INSPECTION.columns if column.name != "row")
_ONE_ROW: Final = f"({', '.join('?' * len(_COLUMNS))})"
# Compiled once and given plain tuples: per row, SQLAlchemy's own preparation costs more than SQLite's insert.
_INSERT_INSPECTION: Final = str(
    sqlite.insert(_INSPECTION)
    .values({name: bindparam(name) for name in _COLUMNS})
    .on_conflict_do_nothing(index_elements=["id"])
    .compile(dialect=sqlite.dialect(paramstyle="qmark"))
)
# Many rows in one statement: the driver gives the interpreter away once for each statement, and not once for each row,
# and may have to wait for the thread that reads from the broker to get it back.
_ROWS_IN_ONE: Final = (200, 20)
_INSERT_MANY: Final = {
    count: _INSERT_INSPECTION.replace(_ONE_ROW, ", ".join([_ONE_ROW] * count)) for count in _ROWS_IN_ONE
}
_DEVICE_OF_ID: Final = select(_INSPECTION.c.id, _INSPECTION.c.device).where(
    _INSPECTION.c.id.in_(bindparam("ids", expanding=True))
)
_insert_cell = sqlite.insert(_CELL)
_UPSERT_CELL: Final = _insert_cell.on_conflict_do_update(
    index_elements=list(_CELL.primary_key.columns),
    set_={"count": _insert_cell.excluded["count"]},
    where=_insert_cell.excluded["count"] > _CELL.c["count"],
)
_IDS_PER_QUERY: Final = 500


class InspectionSlice:
    """Takes the lane `inspections`: one row per id, the first to come; a device cannot touch another's record."""

    def absorb(self, session: Session, messages: Sequence[Received]) -> Absorbed:
        """Insert the records that are new.

        Returns:
            All accepted, but those whose id is a row of another device: refused as `message.foreign_id`.
        """
        if not messages:
            return Absorbed(accepted=0)
        rows = []
        received_at, received_at_us = None, 0
        for message in messages:
            if message.received_at is not received_at:  # all of one batch came at once
                received_at, received_at_us = message.received_at, moments.to_us(message.received_at)
            rows.append(_values_of(message, received_at_us))
        inserted = _insert(session.connection(), rows)
        if inserted == len(rows):
            return Absorbed(accepted=len(rows))
        owners = _owners(session, [row[0] for row in rows])
        foreign = tuple(
            Refused(
                message=message,
                code="message.foreign_id",
                text=f"Inspection {message.body.id} is already recorded by another device.",
            )
            for message, row in zip(messages, rows, strict=True)
            if owners[row[0]] != message.device
        )
        accepted = len(rows) - len(foreign)
        return Absorbed(accepted=accepted, refused=foreign, duplicates=max(0, accepted - inserted))


class CounterSlice:
    """Takes the lane `counters`: absolute figures, so the largest ever sent stands, in whatever order they come."""

    def absorb(self, session: Session, messages: Sequence[Received]) -> Absorbed:
        """Raise the cells to the figures sent; one that raises none is told as a duplicate."""
        if not messages:
            return Absorbed(accepted=0)
        raised = session.connection().execute(_UPSERT_CELL, [_cell_of(message) for message in messages]).rowcount
        return Absorbed(accepted=len(messages), duplicates=max(0, len(messages) - raised))


def _values_of(message: Received, received_at_us: int) -> tuple[Any, ...]:
    """Return the values of an inspection's row, in the order of the table's columns."""
    record: Inspection = message.body
    triggered_at_us, judged_at_us = moments.to_us(record.triggered_at), moments.to_us(record.judged_at)
    return (
        moments.id_bytes(record.id),
        record.device,
        message.epoch,
        message.seq,
        record.station,
        record.recipe,
        record.recipe_revision,
        record.verdict.value,
        record.reason.value,
        record.rule_fired,
        record.score,
        record.mode.value,
        record.sampling.kept,
        record.views[0].model_digest if record.views else None,
        _picture_of(record),
        record.part_id,
        record.lot,
        record.trigger_id,
        _run_of(record),
        record.trigger_sequence,
        triggered_at_us,
        judged_at_us,
        received_at_us,
        record.time_source.value,
        clocks.is_suspect(record.time_source, triggered_at_us, judged_at_us, received_at_us),
        _text_of(message),
    )


def _insert(connection: Connection, rows: list[tuple[Any, ...]]) -> int:
    """Insert rows, passing over ids that are there; return how many were new."""
    new, at = 0, 0
    for count in _ROWS_IN_ONE:
        while len(rows) - at >= count:
            values = tuple(chain.from_iterable(rows[at : at + count]))
            new += connection.exec_driver_sql(_INSERT_MANY[count], values).rowcount
            at += count
    if at < len(rows):
        new += connection.exec_driver_sql(_INSERT_INSPECTION, rows[at:]).rowcount
    return new


def _picture_of(record: Inspection) -> str | None:
    for view in record.views:
        if view.picture_digest is not None:
            return view.picture_digest
    return None


def _text_of(message: Received) -> str:
    """Return the record as the device wrote it, with what a newer agent adds to it; else as we understood it."""
    try:
        return bytes(codec.encode(message.body) if message.text is None else message.text).decode()
    except UnicodeDecodeError:  # in a field we do not know, where the decoder does not look
        return codec.encode(message.body).decode()


def _run_of(record: Inspection) -> str | None:
    """Return the run of the line's controller, which a trigger id of the form `<run>-<sequence>` begins with."""
    ending = f"-{record.trigger_sequence}"
    return record.trigger_id.removesuffix(ending) if record.trigger_id.endswith(ending) else None


def _cell_of(message: Received) -> dict[str, Any]:
    cell: Counter = message.body
    return {
        "device": message.device,
        "epoch": message.epoch,
        "minute_us": moments.to_us(cell.minute),
        "station": cell.station,
        "recipe": cell.recipe,
        "model_digest": cell.model_digest or "",
        "verdict": cell.verdict.value,
        "stratum": cell.stratum,
        "count": cell.count,
    }


def _owners(session: Session, ids: list[bytes]) -> dict[bytes, str]:
    """Return which device each recorded id belongs to."""
    connection = session.connection()
    owners: dict[bytes, str] = {}
    for start in range(0, len(ids), _IDS_PER_QUERY):
        found = connection.execute(_DEVICE_OF_ID, {"ids": ids[start : start + _IDS_PER_QUERY]})
        owners.update((row.id, row.device) for row in found)
    return owners
