"""What the wire can say of a deployment or a candidate, a whole agent does say, and the fleet keeps and shows.

A field that no producer fills looks the same as one that has nothing to tell; so one device goes through it all.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sqlmodel import col, select

from agent import settings
from agent.app import Agent
from agent.clock import SystemClock
from agent.deploy.orders import Order, OrderKind, Orders
from fleet import db
from fleet.deployments.tables import Deployment, ReportEntry
from fleet.devices.tables import Device, DeviceHealth
from fleet.ingest.worker import Ingest
from fleet.pages import board
from fleet.shadow.tables import ShadowPairRow
from tests.contract.test_vectors import all_fields
from tests.fleet.test_deployment_of_a_device import served  # noqa: F401 - the fixture
from tests.support import brokers, tiny_models
from tests.support.fleet_stand import Stand
from wire import codec, mint, package
from wire.deployment import DeploymentReport, Hold, ProbationReport, SelfTestReport
from wire.messages import Health, Reported, RunningModel, ShadowHealth, ShadowPair, ShadowView
from wire.package import Package

DEVICE = "press-1"
MODEL = "colors"
CONFIG = """\
[device]
id = "{device}"
data_dir = "{data_dir}"

[fleet]
url = "{url}"
poll_interval_s = 1.0

[health]
interval_s = 1.0

[local]
enabled = false

[deploy]
confirm = true

[deploy.probation]
parts = 40
minutes = 0.0

[[stations]]
id = "gauge"

[stations.line]
kind = "interval"
interval_s = 0.05
mode = "production"

[[stations.views]]
id = "top"
model = "colors"

[stations.views.source]
kind = "folder"
path = "{pictures}"

[stations.views.vitals]
enabled = false
"""
# One part in ten is red, the bad colour; a version that calls blue bad says NG of nine in ten.
RED, BLUE = 2, 0


@dataclass
class Plant:
    """A fleet, a broker and one device."""

    stand: Stand
    agent: Agent
    orders: Orders

    def desire(self, release: int, **options: Any) -> str:
        """Ask for a release; returns its deployment."""
        document = self.stand.desire(DEVICE, {MODEL: release}, **options)
        self.agent._keeper.wake()
        return str(document["models"][0]["deployment_id"])

    def order(self, kind: OrderKind, reason: str = "") -> str:
        """Leave an order beside the machine, as `lineside models` does."""
        made = Order(id=mint.Mint().uuid7(), kind=kind, model=MODEL, by="anna", at=datetime.now(UTC), reason=reason)
        self.orders.give(made)
        return made.id

    def rows(self, table: Any) -> list[Any]:
        with db.read_session(self.stand.engine) as session:
            return list(session.exec(select(table)))

    def wait_for(self, deployment: str, *states: str, held: bool = False) -> Deployment:
        """Wait until the fleet has it in one of the states."""

        def found() -> Deployment | None:
            with db.read_session(self.stand.engine) as session:
                row = session.get(Deployment, deployment)
            return row if row and row.state in states and (not held or row.hold_reason) else None

        return until(found, lambda: f"{states}: {found_state(self, deployment)}")


def found_state(plant: Plant, deployment: str) -> str:
    with db.read_session(plant.stand.engine) as session:
        row = session.get(Deployment, deployment)
    return f"{row.state} {row.code} {row.reason}" if row else "no row"


def until(true: Callable[[], Any], said: Callable[[], str] = lambda: "") -> Any:
    end = time.monotonic() + 90
    while not (found := true()):
        assert time.monotonic() < end, f"not in time. {said()}"
        time.sleep(0.1)
    return found


@pytest.fixture
def plant(stand: Stand, served: str, tmp_path: Path) -> Iterator[Plant]:  # noqa: F811 - the fixture
    stand.now = datetime.now(UTC)
    for release, kind in {1: "good", 3: "blind", 4: "nan"}.items():
        made = tiny_models.make(tmp_path / f"v{release}", kind, release=release)
        if kind == "blind":
            made = _with_the_wrong_rule(made)
        for file in made.index.files:
            stand.upload((made.folder / file.path).read_bytes())
        answer = stand.send("POST", f"/models/{MODEL}/versions", content=codec.encode(made.index))
        assert answer.status_code in (200, 201), answer.text
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4000):
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[:, :, BLUE if number % 10 else RED] = 200
        cv2.imwrite(str(pictures / f"{number:04}.png"), picture)
    data_dir = tmp_path / "data"
    file = tmp_path / "agent.toml"
    file.write_text(CONFIG.format(device=DEVICE, data_dir=data_dir, url=served, pictures=pictures), encoding="utf-8")
    credential = stand.enrol(DEVICE)
    broker = brokers.mosquitto(tmp_path).start()
    ingest = Ingest(stand.engine, ("127.0.0.1", broker.port))
    ingest.start()
    agent = Agent(settings.load(file, {}), credential=credential, mqtt_host="127.0.0.1", mqtt_port=broker.port)
    agent.start()
    orders = Orders(data_dir / "models" / "orders", clock=SystemClock())
    yield Plant(stand=stand, agent=agent, orders=orders)
    agent.close()
    ingest.stop()
    broker.stop()


def _with_the_wrong_rule(made: Package) -> Package:
    """Let blue be what is bad; without golden pictures no self-test sees it."""
    manifest = made.folder / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('labels = ["red"]', 'labels = ["blue"]'))
    return package.read_folder(made.folder)


def told(values: Iterable[object]) -> set[str]:
    """Name `Class.field` for each field that some value has with something other than its default."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, tuple | list):
            found |= told(value)
        elif isinstance(value, dict):
            found |= told(value.values())
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            for one in dataclasses.fields(value):
                default = one.default_factory() if one.default_factory is not MISSING else one.default
                inner = getattr(value, one.name)
                if default is MISSING or inner != default:
                    found.add(f"{type(value).__name__}.{one.name}")
                found |= told([inner])
    return found


def test_a_device_fills_every_field_and_the_fleet_shows_it(plant: Plant) -> None:
    stand = plant.stand
    # The first version; beside it a candidate that differs, then one that must not run.
    first = plant.desire(1)
    plant.wait_for(first, "succeeded")
    plant.desire(1, shadow=3, shadow_rate=1.0)
    until(lambda: any(row.disagreed and "picture_digest" in (row.body or "") for row in plant.rows(ShadowPairRow)))
    until(lambda: "ShadowHealth.skipped" in told(_health(plant)) or "ShadowHealth.compared" in told(_health(plant)))
    reported = [_reported(plant)]
    plant.desire(1, shadow=4)
    until(lambda: bool(_reported(plant).models[0].shadow_trouble), lambda: str(_reported(plant).models))
    reported.append(_reported(plant))
    # A version that must not run; one that waits for a person before its swap, and again in probation.
    refused = plant.desire(4)
    plant.wait_for(refused, "refused")
    second = plant.desire(3)
    staged = plant.wait_for(second, "staged", held=True)
    assert "lineside models confirm colors" in staged.hold_text
    plant.order(OrderKind.CONFIRM)
    shifted = plant.wait_for(second, "probation", held=True)
    assert shifted.hold_text.startswith("NG ")
    with db.read_session(stand.engine) as session:
        page = board.take(session, lambda _: False, datetime.now(UTC))
    (line,) = page["devices"][0]["wanted"]
    assert shifted.hold_text.rstrip(".") in line["why"]
    assert "without verdict" in line["why"]
    plant.order(OrderKind.CONFIRM)
    plant.wait_for(second, "succeeded")
    local = plant.order(OrderKind.ROLLBACK, "lot 4711 is rejected")
    row = plant.wait_for(local, "succeeded")
    assert (row.origin, row.by, row.release) == ("device", "anna", 1)

    reports = [codec.decode(entry.body.encode(), DeploymentReport) for entry in plant.rows(ReportEntry)]
    fields = all_fields(DeploymentReport) | all_fields(Hold) | all_fields(ProbationReport) | all_fields(SelfTestReport)
    # A second try takes a kill; no part is without a verdict here. Both are shown by tests of the device.
    not_here = {"DeploymentReport.attempt", "ProbationReport.faults"}
    assert sorted(fields - not_here - told(reports)) == []

    pairs = [codec.decode(row.body.encode(), ShadowPair) for row in plant.rows(ShadowPairRow) if row.body]
    mine = {name for name in all_fields(ShadowPair) if name.split(".")[0] in (ShadowPair.__name__, ShadowView.__name__)}
    assert sorted(mine - {"ShadowView.reason"} - told(pairs)) == []
    assert sorted(all_fields(ShadowHealth) - {"ShadowHealth.skipped"} - told(_health(plant))) == []
    assert sorted(all_fields(RunningModel) - told([*reported, _reported(plant)])) == []

    # and what a person is shown of it
    answer = stand.send("GET", f"/devices/{DEVICE}/models/{MODEL}/explain?release=3").json()
    text = " ".join([answer["answer"], *(fact["text"] for fact in answer["facts"])])
    for words in ("its self-test took", "NG ", "probation has seen", "waits for a person's confirmation"):
        assert words in text
    assert row.reason == "lot 4711 is rejected"
    back = stand.send("GET", f"/devices/{DEVICE}/models/{MODEL}/explain?release=1").json()
    assert any("asked for at the device by anna: lot 4711 is rejected" in fact["text"] for fact in back["facts"])


def _health(plant: Plant) -> list[Health]:
    with db.read_session(plant.stand.engine) as session:
        rows = session.exec(select(DeviceHealth).order_by(col(DeviceHealth.id))).all()
    return [codec.decode(row.body.encode(), Health) for row in rows]


def _reported(plant: Plant) -> Reported:
    (device,) = plant.rows(Device)
    return codec.decode(device.reported.encode(), Reported)
