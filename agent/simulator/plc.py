"""A simulated PLC on pymodbus, in both roles: it holds the registers, or it connects to an agent that does.

For trials and tests without a machine. Its program is `plc_program.py`; this file is its scan and its Modbus.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from agent.line import modbus_extra, register_map
from agent.line.register_map import AgentWords, PlcWords
from agent.simulator.line import CountFile
from agent.simulator.plc_program import PlcProgram
from wire.errors import LinesideError

if TYPE_CHECKING:
    from pymodbus.client import ModbusTcpClient
    from pymodbus.server import ModbusTcpServer

_START_TIMEOUT_S: Final = 10.0
_RECONNECT_S: Final = 0.1
_TIMEOUT_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlcSettings:
    """What one simulated PLC does.

    Args:
        role: `server` holds the registers, for an agent in the role of client; `client` connects to an agent.
        port: to listen on (0 picks a free one), or of the agent.
        scan_ms: the program runs so often.
        deadline_ms, watchdog_ms, tells_age: see `PlcProgram`.
    """

    role: Literal["server", "client"] = "server"
    host: str = "127.0.0.1"
    port: int = 0
    count_file: Path
    unit: int = 1
    base: int = 0
    scan_ms: float = 5.0
    deadline_ms: float = 500.0
    watchdog_ms: float = 500.0
    tells_age: bool = True


class SimulatedPlc:
    """Scans on a thread of its own from `start` to `stop`; everything else may be called from any thread."""

    def __init__(self, settings: PlcSettings) -> None:
        modbus_extra.require()
        if not settings.host.startswith("127."):
            raise LinesideError(
                "config.invalid_value",
                f"A simulated PLC serves this machine only, not {settings.host}.",
                "Use an address of 127.0.0.0/8.",
            )
        self._settings = settings
        self._count_file = CountFile(settings.count_file)
        self.program = PlcProgram(
            self._count_file.write,
            run=secrets.randbelow(2**31) + 1,
            deadline_ms=settings.deadline_ms,
            watchdog_ms=settings.watchdog_ms,
            tells_age=settings.tells_age,
        )
        self.port = settings.port
        self._stop = threading.Event()
        self._cut = threading.Event()
        self._listening = threading.Event()
        self._is_refused = False
        body = self._hold_registers if settings.role == "server" else self._connect_for_ever
        self._thread = threading.Thread(target=body, name="simulated-plc", daemon=True)

    def start(self) -> None:
        """Begin to scan; in the role of server the port is known afterwards.

        Raises:
            LinesideError: `storage.in_use` where the port cannot be had.
        """
        self._thread.start()
        if self._settings.role == "server" and (not self._listening.wait(_START_TIMEOUT_S) or self._is_refused):
            raise LinesideError(
                "storage.in_use", f"The simulated PLC cannot listen on port {self.port}.", "Choose another port."
            )

    def stop(self) -> None:
        """End the scan and close the count file."""
        self._stop.set()
        self._thread.join(_START_TIMEOUT_S)
        self._count_file.close()

    def photo_eye(self, part_id: str = "", lot: str = "", mode: int = 0) -> int:
        """A part passes the photo-eye now; return its sequence."""
        return self.program.photo_eye(time.monotonic_ns(), part_id, lot, mode)

    def wait_for(self, condition: Callable[[AgentWords], bool], timeout_s: float = 10.0) -> bool:
        """Wait until the agent's block is as asked."""
        until = time.monotonic() + timeout_s
        while not condition(self.program.agent):
            if time.monotonic() > until:
                return False
            time.sleep(self._settings.scan_ms / 1e3)
        return True

    def wait_until_ready(self, timeout_s: float = 10.0) -> bool:
        """Wait until the station takes parts."""
        return self.wait_for(lambda agent: bool(agent.trigger_ready), timeout_s)

    def wait_until_settled(self, timeout_s: float = 10.0) -> bool:
        """Wait until every part has a result, or its deadline is over, and no result waits."""
        return self.wait_for(lambda agent: not agent.results_waiting and not self.program.open_count, timeout_s)

    def cut(self) -> None:
        """Lose the connection once; it is made anew at once."""
        self._cut.set()

    # The registers are here

    def _hold_registers(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        base, unit = self._settings.base, self._settings.unit
        registers = SimData(base, count=register_map.ALL_REGISTERS, values=0, datatype=DataType.REGISTERS)
        device = SimDevice(id=unit, simdata=[registers], action=self._before_access)
        server = ModbusTcpServer(device, address=(self._settings.host, self.port))
        try:
            await server.serve_forever(background=True)
        except RuntimeError:  # the library's word for a port that is taken
            self._is_refused = True
            self._listening.set()
            return
        self.port = server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self._listening.set()
        next_s = time.monotonic()
        while not self._stop.is_set():
            if self._cut.is_set():
                self._cut.clear()
                self._hang_up(server)
            block = await server.async_getValues(
                unit, 3, base + register_map.AGENT_OFFSET, register_map.AGENT_REGISTERS
            )
            words = self.program.scan(register_map.decode_agent([int(value) for value in block]), time.monotonic_ns())
            await server.async_setValues(unit, 16, base, register_map.encode_plc(words))
            next_s = max(next_s + self._settings.scan_ms / 1e3, time.monotonic())
            await asyncio.sleep(next_s - time.monotonic())
        await server.shutdown()

    async def _before_access(
        self,
        function_code: int,  # noqa: ARG002  (the library's signature)
        start_address: int,
        address: int,  # noqa: ARG002
        count: int,  # noqa: ARG002
        current_registers: list[int],
        set_values: list[int] | list[bool] | None,
    ) -> None:
        """Whoever reads the block sees it as it is at that moment."""
        if set_values is None:
            at = self._settings.base - start_address
            block = register_map.encode_plc(self.program.look(time.monotonic_ns()))
            current_registers[at : at + len(block)] = block

    @staticmethod
    def _hang_up(server: ModbusTcpServer) -> None:
        for connection in list(server.active_connections.values()):
            connection.transport.close()

    # The registers are the agent's

    def _connect_for_ever(self) -> None:
        from pymodbus.client import ModbusTcpClient
        from pymodbus.exceptions import ModbusException

        while not self._stop.is_set():
            client = ModbusTcpClient(self._settings.host, port=self._settings.port, timeout=_TIMEOUT_S, retries=0)
            try:
                if client.connect():
                    self._exchange_for_ever(client)
            except (ModbusException, OSError):
                pass  # tried again; meanwhile the program goes on without the agent
            finally:
                client.close()
            until = time.monotonic() + _RECONNECT_S
            while time.monotonic() < until and not self._stop.is_set():
                self.program.scan(None, time.monotonic_ns())
                self._stop.wait(self._settings.scan_ms / 1e3)

    def _exchange_for_ever(self, client: ModbusTcpClient) -> None:
        base, unit = self._settings.base, self._settings.unit
        agent: AgentWords | None = None
        written: PlcWords | None = None
        while not self._stop.is_set():
            if self._cut.is_set():
                self._cut.clear()
                return
            words = self.program.scan(agent, time.monotonic_ns())
            if words != written:
                if client.write_registers(base, register_map.encode_plc(words), device_id=unit).isError():
                    return
                written = words
            found = client.read_holding_registers(
                base + register_map.AGENT_OFFSET, count=register_map.AGENT_REGISTERS, device_id=unit
            )
            if found.isError():
                return
            agent = register_map.decode_agent(found.registers)
            self._stop.wait(self._settings.scan_ms / 1e3)
