"""The line as Modbus/TCP server: the agent holds the registers, the PLC writes and reads them when it likes.

A trigger's moment is when the PLC's write arrived. All of it happens on one thread between two requests, so the PLC
never reads a result that is half written.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from agent.clock import Clock
from agent.line import handshake_state, modbus_extra, register_map
from agent.line.handshake_state import Seen
from agent.line.modbus_line import ModbusLine
from agent.line.settings import ModbusSettings
from agent.threads import Worker

if TYPE_CHECKING:
    from agent.line.modbus_listener import Listener

log = logging.getLogger(__name__)

_TICK_S: Final = 0.1
_RETRY_MAX_S: Final = 5.0


class ModbusServerLine(ModbusLine):
    """Listens for ever; the connection that wrote TriggerSeqEnd last is the PLC's, all others only look."""

    def __init__(
        self,
        settings: ModbusSettings,
        clock: Clock,
        name: str,
        *,
        counter: bool = False,
        trust_ms: float | None = None,
    ) -> None:
        modbus_extra.require()
        super().__init__(settings, clock, name, counter=counter, trust_ms=trust_ms or settings.timeout_ms)
        host, _, port = settings.address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._plc: int | None = None
        self._contact_ns = 0
        self.worker.start()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop has just ended; what is in the inbox is read by the next one
                log.debug("The line's loop has ended.", extra={"event": "line.loop_ended"})

    def _body(self, worker: Worker) -> None:
        while not worker.stop.is_set():
            worker.beat()
            try:
                asyncio.run(self._serve(worker))
            except (OSError, RuntimeError) as error:
                self._went(f"The PLC cannot connect: {self._settings.address} cannot be listened on: {error}")
            finally:
                self._loop = None
            self._clock.wait(worker.stop, random.uniform(0.0, _RETRY_MAX_S))  # noqa: S311  (jitter, not a secret)

    async def _serve(self, worker: Worker) -> None:
        from agent.line.modbus_listener import Listener

        self._loop = asyncio.get_running_loop()
        listener = Listener(
            address=self._address,
            unit=self._settings.unit,
            base=self._settings.base,
            writable=register_map.PLC_REGISTERS,
            total=register_map.ALL_REGISTERS,
            read=self._read,
            wrote=self._wrote,
            lost=self._lost,
        )
        await listener.serve_forever(background=True)
        self._away = f"The PLC has not connected to {self._settings.address} yet."
        log.info("%s", self._away, extra={"event": "line.listening"})
        try:
            await self._tick(worker)
        finally:
            await self._leave(listener)

    async def _tick(self, worker: Worker) -> None:
        while not worker.stop.is_set():
            worker.beat()
            self._drain()
            self._words()
            await asyncio.sleep(_TICK_S)

    async def _leave(self, listener: Listener) -> None:
        self._drain()
        self._apply(handshake_state.Stopping())
        self._plc = None
        await listener.shutdown()  # type: ignore[no-untyped-call]
        self._went("The agent has left the line.")

    # Called between two requests, on the loop

    def _read(self, registers: list[int], offset: int, count: int, connection: int) -> None:
        self._drain()
        if connection == self._plc:
            self._contact_ns = self._clock.monotonic_ns()
        words = self._words()
        if offset <= register_map.RESULT_END_OFFSET < offset + count:
            self._apply(handshake_state.Shown())
        registers[register_map.AGENT_OFFSET :] = register_map.encode_agent(words)

    def _wrote(self, block: list[int], offset: int, count: int, connection: int) -> None:
        self._drain()
        now_ns = self._clock.monotonic_ns()
        if connection != self._plc and offset <= register_map.TRIGGER_END_OFFSET < offset + count:
            self._apply(handshake_state.Lost())
            self._plc = connection
            self._contact_ns = now_ns
            self._came(f"it writes to {self._settings.address}")
        if self._plc is None:
            return  # until the PLC has written its block's end, what stands there may be of another day
        if connection == self._plc:
            uncertain_ns, self._contact_ns = now_ns - self._contact_ns, now_ns
        else:
            uncertain_ns = 0
        plc = register_map.decode_plc(block)
        self._apply(Seen(plc=plc, at_utc=self._clock.now_utc(), uncertain_ns=uncertain_ns))

    def _lost(self, connection: int) -> None:
        if connection == self._plc:
            self._plc = None
            self._went(f"The PLC has left {self._settings.address}.")
