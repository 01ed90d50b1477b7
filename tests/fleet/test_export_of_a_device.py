"""What a real outbox exports is carried to the fleet by hand, and comes by MQTT later: each row once, all settled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agent import status
from agent.clock import SystemClock
from agent.uplink.outbox import Outbox
from fleet.ingest.worker import Ingest
from tests.fleet.test_exports import counts
from tests.fleet.test_local_deployments import FOREIGN, LOCAL, report
from tests.fleet.test_shadow import NG, OK, pair
from tests.support import brokers, records
from tests.support.fake_device import FakeDevice
from tests.support.fleet_stand import START, Stand
from wire import codec
from wire.deployment import DeploymentState, Origin
from wire.messages import Batch, Event, Lane, Severity

REPO = Path(__file__).resolve().parents[2]


def fill(outbox: Outbox) -> None:
    for number in range(1, 121):
        outbox.put_inspection(records.inspection(sequence=number), line_run="r")
    outbox.emit_counters()
    for sequence, state in enumerate((DeploymentState.DOWNLOADING, DeploymentState.SUCCEEDED), start=1):
        told = report(LOCAL, FOREIGN, state, sequence, origin=Origin.DEVICE, by="anna", inferring_digest=FOREIGN)
        outbox.put(Lane.DEPLOYMENTS, told)
    outbox.put(Lane.EVENTS, Event(at=START, name="model.activated", severity=Severity.NOTE, text="release 3"))
    outbox.put(Lane.SHADOW, pair(OK, NG))


def test_carried_by_hand_twice_and_then_by_mqtt_each_record_is_one_row_and_settled(
    stand: Stand, tmp_path: Path
) -> None:
    stand.enrol("cell-1")
    data = tmp_path / "data"
    data.mkdir()
    outbox = Outbox(data / "outbox.db", SystemClock(), device="cell-1")
    fill(outbox)
    status.write(
        data,
        status.Status(
            device="cell-1",
            pid=1,
            at=START,
            agent_version="0.1.0",
            connected=False,
            mqtt_protocol=None,
            desired_revision=1,
            outbox_unsettled=0,
            outbox_dropped=0,
            pictures_waiting=0,
        ),
    )
    file = tmp_path / "cell-1.export"
    arguments = ["export", str(file), "--data-dir", str(data)]
    ran = subprocess.run([sys.executable, "-m", "agent.cli", *arguments], cwd=REPO, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    first, again = (stand.send("POST", "/devices/cell-1/exports", content=file.read_bytes()).json() for _ in range(2))
    assert (first["trouble"], first["batches"]) == ("", first["expected"])
    assert {lane: one["new"] for lane, one in first["lanes"].items()} == {
        "inspections": 120,
        "counters": first["lanes"]["counters"]["records"],
        "deployments": 2,
        "events": 1,
        "shadow": 1,
    }
    assert {one["new"] for one in again["lanes"].values()} == {0}
    rows = counts(stand)
    assert (rows["InspectionRow"], rows["Deployment"], rows["ShadowPairRow"]) == (120, 1, 1)

    broker = brokers.mosquitto(tmp_path).start()
    ingest = Ingest(stand.engine, ("127.0.0.1", broker.port))
    ingest.start()
    try:
        assert ingest.wait_connected(10)
        with FakeDevice("cell-1", ("127.0.0.1", broker.port)) as device:
            for line in file.read_bytes().splitlines()[1:]:
                device.send(codec.decode(line, Batch).lane.value, line)
            expected = outbox.stats().unsettled
            device.wait(lambda one: sum(_length(ack) for ack in one.acks) >= expected)
            for ack in device.acks:
                outbox.settle(ack.epoch, ack.lane, ack.ranges)
        assert ingest.status()["duplicate"] == expected, "none of it was new"
    finally:
        ingest.stop()
        broker.stop()
    assert outbox.stats().unsettled == 0
    outbox.close()
    assert counts(stand) == rows


def _length(ack: object) -> int:
    return sum(part.last - part.first + 1 for part in ack.ranges)  # type: ignore[attr-defined]
