"""Peers that know nothing of our table: bare pymodbus at the addresses the documents state, in both roles."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pymodbus", reason="the extra modbus is not installed")

from pymodbus.client import ModbusTcpClient
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import ModbusException
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from agent.line.modbus_line import ModbusLine
from agent.line.trigger import Trigger
from tests.support.plc_stand import Station, line_at, until
from tests.support.ports import free_port

REPO = Path(__file__).resolve().parents[2]
UNIT = 7
BASE = 1000
RUN = [0, 5]


class BarePlc:
    """Registers on a thread of their own, and a note of each function asked for; some functions may be unknown."""

    def __init__(self, unknown: frozenset[int] = frozenset(), first: int = BASE) -> None:
        self.port = 0
        self.functions: list[int] = []
        self._unknown = unknown
        self._first = first
        self._started = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._server: ModbusTcpServer
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def read(self, offset: int, count: int = 1) -> list[int]:
        values = asyncio.run_coroutine_threadsafe(
            self._server.async_getValues(UNIT, 3, self._first + offset, count), self._loop
        ).result(5)
        return [int(value) for value in values]

    def write(self, offset: int, *values: int) -> None:
        asyncio.run_coroutine_threadsafe(
            self._server.async_setValues(UNIT, 22, self._first + offset, list(values)), self._loop
        ).result(5)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        registers = SimData(self._first, count=100, values=0, datatype=DataType.REGISTERS)
        self._server = ModbusTcpServer(
            SimDevice(id=UNIT, simdata=[registers], action=self._note), address=("127.0.0.1", 0)
        )
        await self._server.serve_forever(background=True)
        self.port = self._server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self._started.set()
        await self._stop.wait()
        await self._server.shutdown()

    async def _note(
        self, function: int, start: int, address: int, count: int, registers: list[int], values: object
    ) -> ExcCodes | None:
        self.functions.append(function)
        return ExcCodes.ILLEGAL_FUNCTION if function in self._unknown else None


@pytest.fixture
def lines() -> Iterator[list[ModbusLine]]:
    opened: list[ModbusLine] = []
    yield opened
    for line in opened:
        line.close()


@pytest.mark.parametrize("unknown", [frozenset(), frozenset({23})], ids=["function-23", "functions-3-and-16"])
def test_one_part_through_a_plc_that_holds_the_registers(unknown: frozenset[int], lines: list[ModbusLine]) -> None:
    plc = BarePlc(unknown)
    lines.append(line_at("client", plc.port, unit=UNIT, base=BASE, fail_safe_ms=0))
    station = Station(lines[0])
    plc.write(2, *RUN)
    assert until(lambda: plc.read(67) == [1]), "TriggerReady"
    assert plc.read(64) == [1], "MapVersion"
    first_beat = plc.read(66)
    assert until(lambda: plc.read(66) != first_beat, 1), "HeartbeatCount"
    plc.write(12, 0x412D, 0x3100)  # PartId "A-1"
    plc.write(0, 0, 3)
    plc.write(44, 0, 3)
    assert until(lambda: plc.read(85) == [1]), "ResultValid"
    assert plc.read(81, 4) == [0, 3, *RUN], "ResultSeq and ResultRun"
    assert plc.read(86, 3) == [2, 2, 12], "NG, reject, rule_fired"
    assert plc.read(91, 2) == [0, 3], "ResultSeqEnd"
    assert plc.read(70, 6) == [0, 3, 0, 2, 0, 0], "TriggerAck, MissedTrigger, Overrun"
    plc.write(8, 0, 3)  # ResultAck
    assert until(lambda: plc.read(85) == [0])
    (trigger,) = [event for event in station.events if isinstance(event, Trigger)]
    assert (trigger.part_id, trigger.sequence) == ("A-1", 3)
    station.end()
    lines[0].close()
    assert plc.read(64, 29) == [0] * 29, "the fail-safe state"
    assert (16 in plc.functions) == (23 in unknown)
    assert 23 not in unknown or plc.functions.count(23) == 1, "what the PLC does not know is asked for once"
    plc.stop()


def test_one_part_through_a_plc_that_connects_to_us(lines: list[ModbusLine]) -> None:
    port = free_port()
    lines.append(line_at("server", port, unit=UNIT, base=BASE, fail_safe_ms=0))
    station = Station(lines[0])
    plc = ModbusTcpClient("127.0.0.1", port=port, timeout=2)
    assert until(plc.connect)

    def read(offset: int, count: int = 1) -> list[int]:
        return list(plc.read_holding_registers(BASE + offset, count=count, device_id=UNIT).registers)

    def write(offset: int, *values: int) -> None:
        assert not plc.write_registers(BASE + offset, list(values), device_id=UNIT).isError()

    assert read(67, 3) == [0, 0, 2], "not ready before the block was written"
    write(0, *([0] * 2), *RUN, *([0] * 42))
    assert until(lambda: read(67) == [1])
    for offset, low in ((0, 3), (44, 3)):  # one register at a time: the copy at the end comes last
        plc.write_register(BASE + offset + 1, low, device_id=UNIT)
    assert until(lambda: read(85) == [1])
    assert read(81, 12)[:8] == [0, 3, *RUN, 1, 2, 2, 12]
    write(8, 0, 3)
    assert read(85) == [0], "the next read after the acknowledgement shows no result"
    assert plc.write_registers(BASE + 64, [9], device_id=UNIT).isError(), "the agent's registers cannot be written"
    assert plc.read_holding_registers(BASE + 93, count=1, device_id=UNIT).isError()
    assert plc.read_coils(BASE, count=1, device_id=UNIT).isError()
    assert plc.read_holding_registers(BASE, count=1, device_id=UNIT + 1).isError()
    with_input = plc.read_input_registers(BASE + 64, count=1, device_id=UNIT)
    assert with_input.registers == [1], "also to be read as input registers"
    assert station.sequences == [3]
    station.end()
    plc.close()


def test_who_only_looks_does_not_disturb_the_plc(lines: list[ModbusLine]) -> None:
    port = free_port()
    lines.append(line_at("server", port, fail_safe_ms=0))
    station = Station(lines[0])
    plc = ModbusTcpClient("127.0.0.1", port=port, timeout=2)
    assert until(plc.connect)
    plc.write_registers(0, [0, 0, *RUN, *([0] * 42)])
    for sequence in (1, 2, 3):
        looker = ModbusTcpClient("127.0.0.1", port=port, timeout=2)
        assert looker.connect()
        assert looker.read_holding_registers(64, count=29).registers[0] == 1
        looker.close()
        plc.write_registers(0, [0, sequence, *RUN, *([0] * 40), 0, sequence])
    assert until(lambda: station.sequences == [1, 2, 3])
    assert station.positions == [0]
    station.end()
    plc.close()


def test_a_plc_that_refuses_the_registers_is_named_with_what_is_needed(lines: list[ModbusLine]) -> None:
    plc = BarePlc(first=3000)
    lines.append(line_at("client", plc.port, unit=UNIT, base=BASE))
    assert until(lambda: "registers 1000 to 1092 of unit 7" in lines[0].account().trouble)
    assert "exception 2" in lines[0].account().trouble
    plc.stop()


def test_a_flood_of_connections_is_bounded(lines: list[ModbusLine]) -> None:
    port = free_port()
    lines.append(line_at("server", port, fail_safe_ms=0))
    plc = ModbusTcpClient("127.0.0.1", port=port, timeout=2, retries=0)
    assert until(plc.connect)
    crowd = [ModbusTcpClient("127.0.0.1", port=port, timeout=1, retries=0) for _ in range(30)]
    assert all(one.connect() for one in crowd)
    time.sleep(0.2)
    alive = 0
    for one in crowd:
        with contextlib.suppress(ModbusException):  # it was hung up on
            alive += not one.read_holding_registers(64, count=1).isError()
    assert alive == 15
    assert plc.read_holding_registers(64, count=1).registers == [1], "who came first stays"
    for one in (*crowd, plc):
        one.close()


def test_without_pymodbus_the_error_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['pymodbus'] = None\n"
        "from agent.clock import SystemClock\n"
        "from agent.line.modbus_client import ModbusClientLine\n"
        "from agent.line.modbus_server import ModbusServerLine\n"
        "from agent.line.settings import ModbusSettings\n"
        "from wire.errors import LinesideError\n"
        "for kind in (ModbusClientLine, ModbusServerLine):\n"
        "    try:\n"
        "        kind(ModbusSettings(address='127.0.0.1:5020'), SystemClock(), 'press')\n"
        "    except LinesideError as error:\n"
        "        print(error.code, error.next_step)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert ran.stdout == 'config.missing_extra Install it: pip install "lineside[modbus]".\n' * 2, ran.stderr
