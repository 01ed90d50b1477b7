"""A request of a connection that has ended, come to late, is no word of the PLC."""

from __future__ import annotations

import asyncio

from agent.line import modbus_listener
from agent.line.modbus_listener import Listener

WRITE_REGISTERS = 16


def test_a_request_that_is_come_to_after_its_connection_ended_changes_nothing() -> None:
    wrote: list[int] = []
    lost: list[int] = []
    registers = [0] * 10

    async def story() -> None:
        listener = Listener(
            address=("127.0.0.1", 0),
            unit=1,
            base=0,
            writable=5,
            total=10,
            read=lambda *_: None,
            wrote=lambda _block, _offset, _count, connection: wrote.append(connection),
            lost=lost.append,
        )
        assert listener.admit(7)
        modbus_listener._connection.set(7)
        assert await listener._access(WRITE_REGISTERS, 0, 0, 2, registers, [1, 2]) is None
        listener.connected_or_lost(7)(False)
        assert await listener._access(WRITE_REGISTERS, 0, 0, 2, registers, [3, 4]) is not None

    asyncio.run(story())
    assert (wrote, lost) == ([7], [7])
    assert registers[:2] == [1, 2]
