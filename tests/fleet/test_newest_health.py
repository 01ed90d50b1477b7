"""Of the health and the events of a device the newest are kept and shown, in whatever order they arrive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from sqlmodel import select

from fleet import db
from fleet.absorb import Absorbed, Received
from fleet.devices import service
from fleet.devices.service import EventSlice, HealthSlice
from fleet.devices.tables import DeviceEvent, DeviceHealth
from fleet.pages import board
from fleet.shadow import service as shadow
from tests.support.fleet_stand import EPOCH, START, Stand
from wire.messages import Event, Health, Lane, Severity, ShadowHealth, StationHealth

OTHER = "fedcba9876543210"


def health(seq: int) -> Health:
    candidate = ShadowHealth(model="parts", digest="a" * 64, chosen=seq, compared=seq, disagreed=0)
    station = StationHealth(
        station="st-1",
        triggers=0,
        verdicts=0,
        frames_in=0,
        frames_used=0,
        frames_not_triggered=0,
        frames_dropped=0,
        shadows=(candidate,),
    )
    return Health(
        at=START,
        uptime_s=1.0,
        cpu_fraction=0.1,
        rss_bytes=1,
        disk_free_bytes=1,
        disk_free_fraction=0.5,
        outbox_unsettled=seq,
        outbox_bytes=0,
        outbox_dropped=0,
        stations=(station,),
    )


def absorb(stand: Stand, seqs: Iterable[int], *, epoch: str = EPOCH, events: bool = False) -> Absorbed:
    taken = []
    for seq in seqs:
        body: Any = health(seq)
        if events:
            body = Event(at=START, name="agent.started", severity=Severity.NOTE, text=str(seq))
        lane = Lane.EVENTS if events else Lane.HEALTH
        taken.append(Received(device="cell-1", epoch=epoch, lane=lane, seq=seq, body=body, received_at=stand.now))
    with db.write_session(stand.engine) as session:
        return (EventSlice() if events else HealthSlice()).absorb(session, taken)


def shown(stand: Stand) -> list[int]:
    """Return the newest record as the outboxes, the page and the shadow's evidence have it."""
    (outbox,) = stand.send("GET", "/outboxes").json()["items"]
    with db.read_session(stand.engine) as session:
        (line,) = board.take(session, lambda _: False, stand.now)["devices"]
        (told,) = shadow.evidence(session, "parts", "a" * 64, "cell-1")
    return [outbox["unsettled"], int(line["backlog"].split()[0]), told.chosen]


def kept(stand: Stand, table: type[DeviceHealth] | type[DeviceEvent] = DeviceHealth) -> list[tuple[str, int]]:
    with db.read_session(stand.engine) as session:
        return sorted(session.exec(select(table.epoch, table.seq)).all())


def test_a_backlog_beside_live_records_does_not_show_as_the_newest(stand: Stand) -> None:
    stand.enrol("cell-1")
    absorb(stand, range(1, 11))
    absorb(stand, [100])
    assert shown(stand) == [100, 100, 100]
    absorb(stand, range(11, 50))
    assert shown(stand) == [100, 100, 100]
    absorb(stand, [1, 2], epoch=OTHER)
    assert shown(stand) == [2, 2, 2], "the records of another outbox come later"


def test_what_was_pruned_does_not_come_back_as_the_newest(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HEALTH_KEPT", 5)
    monkeypatch.setattr(service, "EVENTS_KEPT", 5)
    stand.enrol("cell-1")
    newest = [(EPOCH, seq) for seq in range(124, 129)]
    for events, table in ((False, DeviceHealth), (True, DeviceEvent)):
        assert absorb(stand, range(1, 129), events=events).accepted == 128
        late = absorb(stand, range(1, 65), events=events)
        assert (late.accepted, late.duplicates) == (64, 64)
        assert kept(stand, table) == newest
    assert shown(stand) == [128, 128, 128]


def test_below_the_bound_older_records_are_kept_too(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HEALTH_KEPT", 100)
    stand.enrol("cell-1")
    absorb(stand, range(101, 129))
    assert absorb(stand, range(1, 65)).duplicates == 0
    assert len(kept(stand)) == 92
    assert absorb(stand, range(65, 101)).duplicates == 0
    absorb(stand, [192])
    assert kept(stand) == [(EPOCH, seq) for seq in [*range(30, 129), 192]]


def test_the_records_of_an_outbox_that_is_no_more_go_first(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HEALTH_KEPT", 10)
    stand.enrol("cell-1")
    absorb(stand, range(1001, 1011), epoch=OTHER)
    absorb(stand, range(1, 5))
    absorb(stand, [64])
    assert kept(stand) == [*[(EPOCH, seq) for seq in (1, 2, 3, 4, 64)], *[(OTHER, seq) for seq in range(1006, 1011)]]
    absorb(stand, range(65, 129))
    assert kept(stand) == [(EPOCH, seq) for seq in range(119, 129)]
