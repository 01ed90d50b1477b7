"""What ingest needs of the slices: who takes which lane, who takes states, and who is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from fleet.absorb import Slice
from fleet.ingest.route import Standing
from wire.messages import Lane, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """Where decoded messages go.

    Args:
        lanes: the slice of each lane.
        absorb_state: takes a birth, a will or a reported document.
        standing_of: tells of each named device whether it is known; devices left out are unknown.
    """

    lanes: Mapping[Lane, Slice]
    absorb_state: Callable[[Session, State, datetime], object]
    standing_of: Callable[[Session, Iterable[str]], Mapping[str, Standing]]


def of_the_fleet() -> Seams:
    """Return the seams of a real fleet."""
    from fleet.deployments import service as deployments
    from fleet.devices import service as devices
    from fleet.inspections import service as inspections
    from fleet.shadow import absorb as shadow

    return Seams(
        lanes={
            Lane.INSPECTIONS: inspections.InspectionSlice(),
            Lane.COUNTERS: inspections.CounterSlice(),
            Lane.DEPLOYMENTS: deployments.ReportSlice(),
            Lane.EVENTS: devices.EventSlice(),
            Lane.HEALTH: devices.HealthSlice(),
            Lane.SHADOW: shadow.ShadowSlice(),
        },
        absorb_state=devices.absorb_state,
        standing_of=_standing_of,
    )


def _standing_of(session: Session, names: Iterable[str]) -> Mapping[str, Standing]:
    from fleet.devices.tables import Device

    rows = session.exec(select(Device.id, Device.revoked_at).where(col(Device.id).in_(list(names))))
    return {name: Standing.KNOWN if revoked_at is None else Standing.REVOKED for name, revoked_at in rows}
