"""Which health and events of a device are kept, and which health is its newest.

Records of one outbox are ordered by their number, not by when they arrive: a backlog drains beside live records, and
files that a person brings may come in any order. Another outbox has another epoch; the one that was heard last counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlmodel import Session, SQLModel, and_, col, delete, func, select

from fleet.absorb import Received
from fleet.devices.tables import Device, DeviceHealth

PRUNE_EVERY: Final = 64


def newest_health(session: Session, devices: Sequence[str]) -> dict[str, DeviceHealth]:
    """Return the newest health of each device, in one statement that reads two index entries for each."""
    epoch = (
        select(DeviceHealth.epoch)
        .where(col(DeviceHealth.device) == col(Device.id))
        .order_by(col(DeviceHealth.id).desc())
        .limit(1)
        .correlate(Device)
        .scalar_subquery()
    )
    of_epoch = and_(col(DeviceHealth.device) == col(Device.id), col(DeviceHealth.epoch) == epoch)
    newest = select(func.max(DeviceHealth.seq)).where(of_epoch).correlate(Device).scalar_subquery()
    rows = session.exec(
        select(DeviceHealth)
        .join(Device, and_(of_epoch, col(DeviceHealth.seq) == newest))
        .where(col(Device.id).in_(devices))
    )
    return {row.device: row for row in rows}


def worth_keeping(
    session: Session, table: type[SQLModel], messages: Sequence[Received], most: int
) -> Sequence[Received]:
    """Return the messages that the next pruning would not drop at once: it has dropped their like before."""
    floors = {
        (device, epoch): _floor(session, table, device, epoch, min(one.seq for one in messages), most)
        for device, epoch in {(message.device, message.epoch) for message in messages}
    }
    return [message for message in messages if message.seq >= floors[message.device, message.epoch]]


def prune(session: Session, table: type[SQLModel], messages: Sequence[Received], most: int) -> None:
    """Delete all but the newest rows of each device, now and then, so that storage per device stays constant."""
    rows: Any = table
    for device in sorted({message.device for message in messages if message.seq % PRUNE_EVERY == 0}):
        epochs = session.exec(
            select(rows.epoch, func.count())
            .where(rows.device == device)
            .group_by(rows.epoch)
            .order_by(func.max(rows.id).desc())
        ).all()
        room = most
        for epoch, count in epochs:
            if count > room:
                _drop(session, table, device, epoch, room)
            room = max(0, room - count)


def _floor(session: Session, table: type[SQLModel], device: str, epoch: str, lowest: int, most: int) -> int:
    """Return the lowest number that is taken of an outbox."""
    rows: Any = table
    kept = session.exec(select(func.min(rows.seq)).where(rows.device == device).where(rows.epoch == epoch)).one()
    if kept is None or lowest >= kept:
        return 0  # the common case: it goes on
    counted = select(func.count()).where(rows.device == device)
    heard_last = select(rows.epoch).where(rows.device == device).order_by(rows.id.desc()).limit(1)
    if session.exec(heard_last).one() == epoch:
        counted = counted.where(rows.epoch == epoch)  # what is there of other outboxes makes room for it
    return int(kept) if session.exec(counted).one() >= most else 0


def _drop(session: Session, table: type[SQLModel], device: str, epoch: str, room: int) -> None:
    rows: Any = table
    statement = delete(rows).where(rows.device == device).where(rows.epoch == epoch)
    if room:
        edge = select(rows.seq).where(rows.device == device).where(rows.epoch == epoch)
        statement = statement.where(rows.seq <= edge.order_by(rows.seq.desc()).offset(room).limit(1).scalar_subquery())
    session.exec(statement)
