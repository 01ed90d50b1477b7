"""What devices say of themselves: births, wills, reports, health, events; and how they are listed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlmodel import func, select

from agent.uplink.presence import Presence
from fleet import db
from fleet.devices import presence, service
from fleet.devices.service import EventSlice, HealthSlice
from fleet.devices.tables import DeviceHealth
from tests.support.fleet_stand import START, Stand
from wire import codec
from wire.messages import Event, Health, Lane, Reported, RunningModel, Severity, State

DIGEST = "a" * 64
OTHER = "b" * 64


def state(boot: int, revision: int, *, online: bool = True, digest: str | None = None) -> State:
    reported = None
    if online:
        models = (RunningModel(model="parts", digest=digest),) if digest is not None else ()
        reported = Reported(
            desired_revision=0, agent_version=f"0.{boot}", runtime_version="1", architecture="x", models=models
        )
    return State(device="cell-1", boot=boot, revision=revision, online=online, reported=reported)


def health(cpu: float = 0.5) -> Health:
    return Health(
        at=START,
        uptime_s=1.0,
        cpu_fraction=cpu,
        rss_bytes=1,
        disk_free_bytes=1,
        disk_free_fraction=0.5,
        outbox_unsettled=0,
        outbox_bytes=0,
        outbox_dropped=0,
    )


@pytest.mark.parametrize(
    ("known", "coming", "expected"),
    [
        ((0, 0, False), state(1, 1_000_001), (1, 1_000_001, True)),
        ((1, 3, True), state(1, 4), (1, 4, True)),
        ((1, 3, True), state(1, 3), None),  # a retained duplicate
        ((1, 3, True), state(1, 2), None),
        ((1, 3, True), state(2, 1), (2, 1, True)),
        ((1, 3, True), state(1, 9, online=False), (1, 9, False)),  # a will is the last of its own connection
        ((1, 9, False), state(1, 9, online=False), None),
        ((1, 9, False), state(1, 4), None),
        ((1, 9, False), state(1, 11), (1, 11, True)),  # the next connection
        ((1, 11, True), state(1, 9, online=False), None),  # the will of the connection before comes late
        ((2, 1, True), state(1, 9, online=False), None),  # and that of the boot before
        ((2, 1, True), state(1, 9), None),
        ((1, 3, True), state(2, 0, online=False), (2, 0, False)),
        ((2, 0, False), state(2, 1), (2, 1, True)),
    ],
)
def test_a_state_is_news_or_it_is_not(
    known: tuple[int, int, bool], coming: State, expected: tuple[int, int, bool] | None
) -> None:
    result = presence.after(presence.Known(boot=known[0], revision=known[1], online=known[2]), coming)
    assert (None if result is None else (result.boot, result.revision, result.online)) == expected


def test_the_states_an_agent_makes_are_ordered_as_the_fleet_reads_them() -> None:
    made = Presence("cell-1", 3)
    first_will = codec.decode(made.will(), State)
    births = [codec.decode(made.online(START, None), State) for _ in range(3)]
    second_will = codec.decode(made.will(), State)
    reborn = codec.decode(made.online(START, None), State)
    left = codec.decode(made.leave(START), State)
    known = presence.Known(boot=2, revision=5_000_000, online=False)
    told = []
    for one in [*births, first_will, reborn, first_will, births[0], left, second_will]:
        following = presence.after(known, one)
        told.append(following.online if following is not None else None)
        known = following or known
    assert told == [True, True, True, False, True, None, None, False, None]


def absorb(stand: Stand, *states: State) -> list[bool]:
    with db.write_session(stand.engine) as session:
        return [service.absorb_state(session, one, stand.now) for one in states]


def test_a_birth_shows_the_device_online_with_what_it_reports(stand: Stand) -> None:
    stand.enrol("cell-1")
    assert stand.send("GET", "/devices/cell-1").json()["online"] is False
    assert absorb(stand, state(1, 1, digest=DIGEST)) == [True]
    shown = stand.send("GET", "/devices/cell-1").json()
    assert (shown["online"], shown["agent_version"], shown["boot"]) == (True, "0.1", 1)
    assert shown["reported"]["models"][0]["digest"] == DIGEST
    assert shown["last_seen_at"].startswith("2026-03-01T12:00:00")


def test_a_late_will_of_the_last_boot_leaves_the_device_online(stand: Stand) -> None:
    stand.enrol("cell-1")
    assert absorb(stand, state(1, 1), state(2, 1), state(1, 9, online=False)) == [True, True, False]
    assert stand.send("GET", "/devices/cell-1").json()["online"] is True


def test_a_will_keeps_what_the_device_last_reported(stand: Stand) -> None:
    stand.enrol("cell-1")
    absorb(stand, state(1, 1, digest=DIGEST), state(1, 9, online=False))
    shown = stand.send("GET", "/devices/cell-1").json()
    assert shown["online"] is False
    assert shown["reported"]["models"][0]["digest"] == DIGEST


def test_a_state_of_an_unknown_device_is_nothing(stand: Stand) -> None:
    assert absorb(stand, state(1, 1)) == [False]


def test_health_is_stored_once_however_often_it_comes(stand: Stand) -> None:
    stand.enrol("cell-1")
    for _ in range(2):
        assert stand.absorb(HealthSlice(), "cell-1", Lane.HEALTH, [health(0.1), health(0.2)]).accepted == 2
    items = stand.send("GET", "/devices/cell-1/health").json()["items"]
    assert [item["health"]["cpu_fraction"] for item in items] == [0.2, 0.1]
    assert stand.send("GET", "/devices/cell-1").json()["last_seen_at"] is not None


def test_only_the_newest_health_of_each_device_is_kept(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HEALTH_KEPT", 100)
    stand.enrol("cell-1")
    stand.enrol("cell-2")
    stand.absorb(HealthSlice(), "cell-2", Lane.HEALTH, [health()] * 50)
    for start in range(1, 640, 64):
        stand.absorb(HealthSlice(), "cell-1", Lane.HEALTH, [health()] * 64, first=start)
    with db.read_session(stand.engine) as session:
        counts = dict(session.exec(select(DeviceHealth.device, func.count()).group_by(DeviceHealth.device)).all())
        newest = session.exec(select(func.max(DeviceHealth.seq)).where(DeviceHealth.device == "cell-1")).one()
    assert counts == {"cell-1": 100, "cell-2": 50}
    assert newest == 640


def test_events_are_listed_the_newest_first(stand: Stand) -> None:
    stand.enrol("cell-1")
    events = [
        Event(at=START + timedelta(seconds=n), name="model.activated", severity=Severity.NOTE, text=f"event {n}")
        for n in range(3)
    ]
    for _ in range(2):
        stand.absorb(EventSlice(), "cell-1", Lane.EVENTS, events)
    items = stand.send("GET", "/devices/cell-1/events").json()["items"]
    assert [item["text"] for item in items] == ["event 2", "event 1", "event 0"]


def test_drift_shows_when_another_version_runs_than_was_installed(stand: Stand) -> None:
    from fleet.deployments.service import ReportSlice
    from wire.deployment import DeploymentReport, DeploymentState

    stand.enrol("cell-1")
    digest = stand.push("parts", 1)
    deployment = stand.desire("cell-1", {"parts": 1})["models"][0]["deployment_id"]
    absorb(stand, state(1, 1, digest=OTHER))
    assert stand.send("GET", "/devices/cell-1").json()["drift"] == []  # it is still on its way
    report = DeploymentReport(
        deployment_id=deployment,
        model="parts",
        digest=digest,
        state=DeploymentState.SUCCEEDED,
        sequence=1,
        at=START,
        inferring_digest=digest,
    )
    stand.absorb(ReportSlice(), "cell-1", Lane.DEPLOYMENTS, [report])
    absorb(stand, state(1, 2, digest=digest))
    assert stand.send("GET", "/devices/cell-1").json()["drift"] == []
    absorb(stand, state(1, 3, digest=OTHER))
    assert stand.send("GET", "/devices").json()["items"][0]["drift"] == ["parts"]


def test_a_list_stays_whole_while_devices_are_added(stand: Stand) -> None:
    for n in range(0, 10, 2):
        stand.enrol(f"cell-{n}")
    seen: list[str] = []
    cursor = None
    for added in ("cell-1", "cell-3", "cell-9"):
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = stand.send("GET", "/devices", params=query).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is not None:
            stand.enrol(added)  # one before the place reached, one right after it, one at the end
    while cursor is not None:
        page = stand.send("GET", "/devices", params={"limit": "2", "cursor": cursor}).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == sorted(set(seen))
    assert {f"cell-{n}" for n in range(0, 10, 2)} <= set(seen)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "cursor=x",
        "cursor=bm9uc2Vuc2U",
        "cursor=WzEsMiwzXQ",
        "cursor=WzkyMjMzNzIwMzY4NTQ3NzU4MDhd",
    ],
)
@pytest.mark.parametrize("path", ["/devices", "/audit", "/deployments"])
def test_a_page_that_cannot_be_is_refused(stand: Stand, path: str, query: str) -> None:
    answer = stand.send("GET", f"{path}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
