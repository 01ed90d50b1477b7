"""kill -9 of the broker, the fleet or an agent in mid-run: every trigger has exactly one row, or shows as missed."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.plant import Device, Plant, wait_for
from scripts.story import stored_inspections, wait_until_runs
from tests.support import require

ROOT = Path(__file__).resolve().parent.parent.parent
SEED = 20261121
PARTS_PER_S = 4.0
BROKERS = ("mosquitto", "embedded")


@pytest.fixture(params=BROKERS)
def plant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Plant]:
    if request.param == "mosquitto":
        require.program("mosquitto")
    running = Plant(folder=tmp_path / "plant", broker=request.param)
    try:
        running.start_fleet()
        running.push(ROOT / "models" / "demo-parts-2")
        for number in (1, 2):
            device = running.add_device(f"press-{number}", seed=number, parts_per_s=PARTS_PER_S, floor_rate=0.05)
            running.desire(device, 2)
            device.agent.start()
        for device in running.devices:
            wait_until_runs(running, device, 2)
        yield running
    finally:
        running.close()


def broker_process(plant: Plant) -> psutil.Process:
    """Return the broker: the fleet's own child that listens on the MQTT port."""

    def find() -> psutil.Process | None:
        for child in psutil.Process(plant.fleet.pid).children(recursive=True):
            listens = [connection.laddr.port for connection in child.net_connections() if connection.laddr]
            if plant.mqtt_port in listens:
                return child
        return None

    return wait_for("the broker listens", find, 20)


def kill(plant: Plant, victim: str, rng: random.Random) -> None:
    """Kill one part of the plant the hard way and start it again, as its keeper on a real machine would."""
    if victim == "broker":
        broker_process(plant).kill()  # the fleet starts it again by itself
        return
    process = plant.fleet if victim == "fleet" else rng.choice(plant.devices).agent
    process.kill()
    time.sleep(rng.uniform(0.0, 0.8))
    process.start()
    if victim == "fleet":
        plant.wait_until_served()


def is_back(device: Device) -> bool:
    """Whether the agent that runs now is judging and connected."""
    status = device.status()
    return (
        status is not None
        and status["pid"] == device.agent.pid
        and bool(status["connected"])
        and all(station["ready"] for station in status["stations"])
    )


def counted(plant: Plant) -> Counter[tuple[str, str]]:
    """Sum the devices' counters as the database holds them, by device and verdict."""
    with sqlite3.connect(f"file:{plant.fleet_dir / 'fleet.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT device, verdict, SUM(count) FROM counter_cell GROUP BY device, verdict")
        return Counter({(device, verdict): int(count) for device, verdict, count in rows})


def rows_by_verdict(inspections: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter((inspection["device"], inspection["verdict"]) for inspection in inspections)


@pytest.mark.timeout(240)
def test_every_trigger_is_accounted_for_through_kills_of_any_part(plant: Plant) -> None:
    rng = random.Random(SEED)
    rounds = 3 if plant.broker == "mosquitto" else 1
    victims = ["broker", "fleet", "agent", "agent"] * rounds
    rng.shuffle(victims)
    for victim in victims:
        time.sleep(rng.uniform(0.3, 2.0))
        kill(plant, victim, rng)

    for device in plant.devices:
        wait_for(f"{device.name} is back", lambda device=device: is_back(device), 60)
        device.line.stop()
    for device in plant.devices:
        plant.wait_until_drained(device, 60)
    wait_for(
        "the counters and the rows agree",
        lambda: counted(plant) == rows_by_verdict(stored_inspections(plant)),
        30,
    )

    stored = stored_inspections(plant)
    by_trigger = {inspection["trigger_id"]: inspection for inspection in stored}
    triggers = {f"{event['run']}-{event['sequence']}" for device in plant.devices for event in device.triggers()}
    assert len(triggers) > 40, "the belts hardly moved"
    assert len(by_trigger) == len(stored), "a trigger has two rows"
    assert triggers - by_trigger.keys() == set(), "triggers were lost"
    assert by_trigger.keys() - triggers == set(), "rows were invented"

    down = {trigger for trigger, inspection in by_trigger.items() if inspection["reason"] == "agent_down"}
    assert down, "an agent was killed while its belt ran, so some parts must show as missed"
    assert {by_trigger[trigger]["verdict"] for trigger in down} == {"NO_VERDICT"}
    answered = {
        f"{event['run']}-{event['sequence']}": event["verdict"]
        for device in plant.devices
        for event in device.count_events()
        if event["event"] == "verdict"
    }
    assert {trigger: by_trigger[trigger]["verdict"] for trigger in answered} == answered, (
        "a verdict that reached the line differs from its record"
    )
