"""A Modbus/TCP server that knows which connection each request came from. Imported only where pymodbus is there."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.server.requesthandler import ServerRequestHandler
from pymodbus.simulator import DataType, SimData, SimDevice

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 16
_READS: Final = frozenset({3, 4})
_WRITES: Final = frozenset({6, 16, 22, 23})
_connection: ContextVar[int] = ContextVar("modbus_connection", default=0)


class _Handler(ServerRequestHandler):
    """One connection, by number."""

    def __init__(self, owner: Listener, number: int) -> None:
        super().__init__(owner, None, None, owner.connected_or_lost(number))  # type: ignore[no-untyped-call]
        self._owner = owner
        self._number = number

    def callback_connected(self) -> None:
        super().callback_connected()
        if not self._owner.admit(self._number):
            self.transport.close()

    async def handle_request(self) -> None:
        _connection.set(self._number)
        await super().handle_request()  # type: ignore[no-untyped-call]


class Listener(ModbusTcpServer):
    """Serves one unit's holding registers.

    Args:
        read: fills the registers that are about to be read: called with the live list (whole map), first offset, count
            and the number of the connection.
        wrote: called with the block the PLC may write as it stands after the write, first offset, count and the
            number of the connection.
        lost: called with the number of a connection that has ended.
    """

    def __init__(
        self,
        *,
        address: tuple[str, int],
        unit: int,
        base: int,
        writable: int,
        total: int,
        read: Callable[[list[int], int, int, int], None],
        wrote: Callable[[list[int], int, int, int], None],
        lost: Callable[[int], None],
    ) -> None:
        self._base = base
        self._writable = writable
        self._read = read
        self._wrote = wrote
        self._lost = lost
        self._numbers = itertools.count(1)
        self._admitted: set[int] = set()
        self._is_crowded = False
        device = SimDevice(
            id=unit,
            simdata=[
                SimData(base, count=writable, values=0, datatype=DataType.REGISTERS),
                SimData(base + writable, count=total - writable, values=0, datatype=DataType.REGISTERS, readonly=True),
            ],
            action=self._access,
        )
        super().__init__(device, address=address)

    @property
    def port(self) -> int:
        """Of the listening socket."""
        port: int = self.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        return port

    def callback_new_connection(self) -> _Handler:
        return _Handler(self, next(self._numbers))

    def connected_or_lost(self, number: int) -> Callable[[bool], None]:
        """Return what one connection reports itself with."""
        return lambda is_connected: None if is_connected else self._leave(number)

    def admit(self, number: int) -> bool:
        """Note a new connection; False where there are too many."""
        if len(self._admitted) >= MAX_CONNECTIONS:
            if not self._is_crowded:  # told once, until there is room again
                log.warning("More than %d Modbus connections.", MAX_CONNECTIONS, extra={"event": "line.refused"})
            self._is_crowded = True
            return False
        self._admitted.add(number)
        return True

    def _leave(self, number: int) -> None:
        if number in self._admitted:
            self._admitted.discard(number)
            self._is_crowded = False
            self._lost(number)

    async def _access(
        self, function: int, start: int, address: int, count: int, registers: list[int], values: Any
    ) -> ExcCodes | None:
        """Called by the library before a request reads (no values) or after it was checked and before it writes."""
        connection = _connection.get()
        if connection not in self._admitted:
            return ExcCodes.DEVICE_FAILURE  # its last words, come to after its end: nobody hears the answer
        offset = address - start
        if values is None:
            if function not in _READS | _WRITES:
                return ExcCodes.ILLEGAL_FUNCTION
            self._read(registers, offset, count, connection)
            return None
        if function not in _WRITES:
            return ExcCodes.ILLEGAL_FUNCTION
        registers[offset : offset + count] = values
        self._wrote(registers[: self._writable], offset, count, connection)
        return None
