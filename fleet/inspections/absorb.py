"""What ingest brings: inspection records and counter cells become rows, each once, however often they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects import sqlite
from sqlmodel import Session

from fleet.absorb import Absorbed, Received, Refused
from fleet.inspections import moments
from fleet.inspections.tables import CounterCell, InspectionRow
from wire import codec
from wire.inspection import Inspection
from wire.messages import Counter

_INSPECTION: Final = InspectionRow.__table__  # type: ignore[attr-defined]
_CELL: Final = CounterCell.__table__  # type: ignore[attr-defined]
_INSERT_INSPECTION: Final = sqlite.insert(_INSPECTION).on_conflict_do_nothing(index_elements=["id"])
_DEVICE_OF_ID: Final = select(_INSPECTION.c.id, _INSPECTION.c.device).where(
    _INSPECTION.c.id.in_(bindparam("ids", expanding=True))
)
_insert_cell = sqlite.insert(_CELL)
_UPSERT_CELL: Final = _insert_cell.on_conflict_do_update(
    index_elements=list(_CELL.primary_key.columns),
    set_={"count": func.max(_CELL.c.count, _insert_cell.excluded.count)},
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
        rows = [row_of(message) for message in messages]
        # Not `executemany(...RETURNING)`: the count of inserted rows is enough as long as nothing was there before.
        inserted = session.connection().execute(_INSERT_INSPECTION, rows).rowcount
        if inserted == len(rows):
            return Absorbed(accepted=len(rows))
        owners = _owners(session, [row["id"] for row in rows])
        foreign = tuple(
            Refused(
                message=message,
                code="message.foreign_id",
                text=f"Inspection {message.body.id} is already recorded by another device.",
            )
            for message, row in zip(messages, rows, strict=True)
            if owners[row["id"]] != message.device
        )
        accepted = len(rows) - len(foreign)
        return Absorbed(accepted=accepted, refused=foreign, duplicates=max(0, accepted - inserted))


class CounterSlice:
    """Takes the lane `counters`: absolute figures, so the largest ever sent stands, in whatever order they come."""

    def absorb(self, session: Session, messages: Sequence[Received]) -> Absorbed:
        """Raise the cells to the figures sent."""
        if messages:
            session.connection().execute(_UPSERT_CELL, [_cell_of(message) for message in messages])
        return Absorbed(accepted=len(messages))


def row_of(message: Received) -> dict[str, Any]:
    """Return the columns of an inspection record, as the table keeps them."""
    record: Inspection = message.body
    return {
        "id": moments.id_bytes(record.id),
        "device": record.device,
        "epoch": message.epoch,
        "seq": message.seq,
        "station": record.station,
        "recipe": record.recipe,
        "recipe_revision": record.recipe_revision,
        "verdict": record.verdict.value,
        "reason": record.reason.value,
        "rule_fired": record.rule_fired,
        "score": record.score,
        "mode": record.mode.value,
        "kept": record.sampling.kept,
        "model_digest": record.views[0].model_digest if record.views else None,
        "picture_digest": next((view.picture_digest for view in record.views if view.picture_digest), None),
        "part_id": record.part_id,
        "lot": record.lot,
        "trigger_id": record.trigger_id,
        "trigger_run": _run_of(record),
        "trigger_sequence": record.trigger_sequence,
        "triggered_at_us": moments.to_us(record.triggered_at),
        "judged_at_us": moments.to_us(record.judged_at),
        "received_at_us": moments.to_us(message.received_at),
        "time_source": record.time_source.value,
        "record": codec.encode(record).decode(),
    }


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
