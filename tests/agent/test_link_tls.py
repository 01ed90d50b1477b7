"""The link encrypted with real certificates, and compressed."""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.uplink.connection import Tls
from agent.uplink.link import Link, LinkSettings
from agent.uplink.outbox import Outbox
from tests.support import brokers, certificates, ports, records, require
from tests.support.certificates import Certificates
from tests.support.fake_fleet import FakeFleet
from wire import codec
from wire.messages import Batch


def encrypted(folder: Path, made: Certificates) -> tuple[brokers.RunningBroker, int]:
    """A broker with an open listener for the fleet, and one that wants a certificate for the device."""
    port = ports.free_port()
    extra = (
        f"listener {port} 127.0.0.1\ncafile {made.ca_file}\ncertfile {made.certificate('broker')}\n"
        f"keyfile {made.key('broker')}\nrequire_certificate true\nallow_anonymous true\n"
    )
    return brokers.mosquitto(folder, extra=extra).start(), port


def link_to(box: Outbox, port: int, **more: Any) -> Link:
    settings = LinkSettings(
        device="cell-1", host="127.0.0.1", port=port, boot=1, reconnect_first_s=0.05, reconnect_most_s=0.3, **more
    )
    return Link(settings, box, SystemClock(), on_wake=lambda: None, on_command=lambda _command: None)


def until(condition: Any, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "still waiting"
        time.sleep(0.01)


def test_records_go_encrypted_with_the_devices_own_certificate(tmp_path: Path) -> None:
    require.program("openssl")
    made = certificates.make(tmp_path / "certificates", "broker", "cell-1")
    broker, port = encrypted(tmp_path, made)
    box = Outbox(tmp_path / "o.db", SystemClock(), device="cell-1", resend_after_s=5)
    tls = Tls(ca_file=made.ca_file, certificate_file=made.certificate("cell-1"), key_file=made.key("cell-1"))
    link = link_to(box, port, tls=tls)
    try:
        with FakeFleet(broker) as fleet:
            link.start()
            for n in range(1, 3001):
                box.put_inspection(records.inspection(sequence=n), line_run="run7")
            until(lambda: box.stats().unsettled == 0)
            assert fleet.seqs() == set(range(1, 3001))
            assert max(fleet.deliveries.values()) == 1, "an answer waited in the decrypted bytes until the time-out"
    finally:
        link.stop()
        box.close()
        broker.stop()


@pytest.mark.parametrize("fault", ["another authority", "no certificate", "no such file"])
def test_what_does_not_prove_itself_gets_nothing_and_loses_nothing(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    require.program("openssl")
    made = certificates.make(tmp_path / "certificates", "broker", "cell-1")
    other = certificates.make(tmp_path / "others", "cell-1")
    broker, port = encrypted(tmp_path, made)
    box = Outbox(tmp_path / "o.db", SystemClock(), device="cell-1", resend_after_s=5)
    tls = {
        "another authority": Tls(ca_file=other.ca_file),
        "no certificate": Tls(ca_file=made.ca_file),
        "no such file": Tls(ca_file=str(tmp_path / "absent.pem")),
    }[fault]
    link = link_to(box, port, tls=tls)
    try:
        box.put_inspection(records.inspection(), line_run=None)
        with FakeFleet(broker) as fleet:
            link.start()
            until(lambda: any(record.levelname in {"ERROR", "WARNING"} for record in caplog.records))
            time.sleep(0.5)
            assert not fleet.arrivals
            assert box.stats().unsettled == 1
    finally:
        link.stop()
        box.close()
        broker.stop()


def test_compressed_batches_are_smaller_and_become_the_same_rows(tmp_path: Path) -> None:
    broker = brokers.mosquitto(tmp_path).start()
    box = Outbox(tmp_path / "o.db", SystemClock(), device="cell-1", resend_after_s=5)
    link = link_to(box, broker.port, compress=True)
    try:
        with FakeFleet(broker) as fleet:
            for n in range(1, 501):
                box.put_inspection(records.inspection(sequence=n), line_run="run7")
            link.start()
            until(lambda: box.stats().unsettled == 0)
            assert fleet.seqs() == set(range(1, 501))
            _, batch = fleet.arrivals[0]
            assert isinstance(batch, Batch)
            plain = codec.encode(batch)
            assert min(fleet.sizes) < len(plain) / 3
            assert len(zlib.compress(plain, 1)) in fleet.sizes
    finally:
        link.stop()
        box.close()
        broker.stop()
