"""`lineside simulate --plc`: a PLC that anybody can start, in both roles, against the line of an agent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.simulator.plc import PlcSettings, SimulatedPlc
from tests.support.plc_stand import Role, Station, line_at
from tests.support.ports import free_port
from wire.errors import LinesideError


@pytest.mark.alone("a part every 50 ms, of which at most one may be missed")
@pytest.mark.parametrize("role", ["server", "client"])
def test_its_parts_reach_the_station_and_their_results_come_back(tmp_path: Path, role: Role) -> None:
    port, count_file = free_port(), tmp_path / "plc.jsonl"
    command = [sys.executable, "-m", "agent.cli", "simulate", "--plc", role, "--port", str(port), "--recipe", "2"]
    command += ["--count-file", str(count_file), "--parts", "6", "--rate", "20"]
    line = line_at("client" if role == "server" else "server", port)
    station = Station(line)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    finally:
        line.close()
        station.end()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"PLC 127.0.0.1:{port}\n"
    account = [json.loads(row) for row in count_file.read_text().splitlines()]
    assert [row["sequence"] for row in account if row["event"] == "part"] == [1, 2, 3, 4, 5, 6]
    assert [row["sequence"] for row in account if row["event"] == "result"] == station.sequences
    assert len(station.sequences) >= 5, "a part may be missed where the machine is busy"
    assert station.recipe == 2


def test_a_taken_port_is_told_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        plc = SimulatedPlc(PlcSettings(port=taken.getsockname()[1], count_file=tmp_path / "plc.jsonl"))
        before = time.monotonic()
        with pytest.raises(LinesideError) as caught:
            plc.start()
        plc.stop()
    assert caught.value.code == "storage.in_use"
    assert time.monotonic() - before < 5.0


@pytest.mark.parametrize(
    "more", [["--plc", "client", "--count-file", "c"], ["--plc", "server"], ["--count-file", "c", "--rate", "0"]]
)
def test_what_it_cannot_do_is_said(more: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent.cli", "simulate", *more]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path, env={"PYTHONPATH": str(root)}
    )
    assert done.returncode == 2
    assert "usage.invalid" in done.stderr
