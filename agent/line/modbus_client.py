"""The line as Modbus/TCP client: the PLC holds the registers, the agent reads and writes them in a steady cycle.

A trigger's moment is when it was read, so it may be one cycle and one round trip late (unless TriggerAgeMs tells more).
"""

from __future__ import annotations

import random
import socket
import threading
from typing import TYPE_CHECKING, Final

from agent.clock import Clock
from agent.line import handshake_state, modbus_extra, register_map
from agent.line.handshake_state import Seen
from agent.line.modbus_line import ModbusLine
from agent.line.settings import ModbusSettings
from agent.threads import Worker

if TYPE_CHECKING:
    from pymodbus.client import ModbusTcpClient
    from pymodbus.pdu import ModbusPDU

_TRUST_MIN_MS: Final = 50.0
_TRUST_CYCLES: Final = 5
_BACKOFF_MIN_S: Final = 0.2
_BACKOFF_MAX_S: Final = 5.0
_ILLEGAL_FUNCTION: Final = 1


class _PlcAwayError(Exception):
    """The exchange failed; the message says why, for people."""


class ModbusClientLine(ModbusLine):
    """Keeps the exchange going for ever, with jittered reconnection."""

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
        trust_ms = trust_ms or max(_TRUST_MIN_MS, _TRUST_CYCLES * settings.cycle_ms)
        super().__init__(settings, clock, name, counter=counter, trust_ms=trust_ms)
        host, _, port = settings.address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._woken = threading.Event()
        self._combined = True  # function 23 does both in one exchange; not every PLC knows it
        self._has_exchanged = False
        self._written: list[int] = []
        self.worker.start()

    def _wake(self) -> None:
        self._woken.set()

    def _body(self, worker: Worker) -> None:
        from pymodbus.client import ModbusTcpClient
        from pymodbus.exceptions import ModbusException

        backoff_s = _BACKOFF_MIN_S
        while not worker.stop.is_set():
            worker.beat()
            client = ModbusTcpClient(
                self._address[0], port=self._address[1], timeout=self._settings.timeout_ms / 1e3, retries=0
            )
            self._has_exchanged = False
            try:
                self._connect(client)
                self._talk(client, worker)
            except (ModbusException, OSError, _PlcAwayError) as error:
                if not self._has_exchanged:
                    self._combined = not self._combined  # some PLCs hang up where they do not know a function
                self._went(f"The PLC at {self._settings.address} is away: {_sentence(error)}")
            finally:
                client.close()
            backoff_s = _BACKOFF_MIN_S if self._has_exchanged else min(_BACKOFF_MAX_S, backoff_s * 2)
            self._clock.wait(worker.stop, random.uniform(0.0, backoff_s))  # noqa: S311  (jitter, not a secret)

    def _connect(self, client: ModbusTcpClient) -> None:
        if not client.connect() or client.socket is None:
            raise _PlcAwayError("it does not accept a connection.")
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._written = []

    def _talk(self, client: ModbusTcpClient, worker: Worker) -> None:
        cycle_ns = int(self._settings.cycle_ms * 1e6)
        last_ns = next_ns = self._clock.monotonic_ns()
        while not worker.stop.is_set():
            worker.beat()
            self._drain()
            words = self._words()
            self._apply(handshake_state.Shown())
            sent_ns = self._clock.monotonic_ns()
            plc = register_map.decode_plc(self._exchange(client, register_map.encode_agent(words)))
            if not self._has_exchanged:
                self._has_exchanged = True
                self._came(self._settings.address)
            # A change seen now came after the former look was asked for.
            at_ns = self._clock.monotonic_ns()
            self._apply(
                Seen(
                    plc=plc,
                    at_utc=self._clock.now_utc(),
                    at_ns=at_ns,
                    uncertain_ns=at_ns - last_ns,
                    exchange_ns=at_ns - sent_ns,
                )
            )
            last_ns = sent_ns
            if sent_ns >= next_ns:  # else a result was shown in between, and the next look stays when it was due
                next_ns = max(next_ns + cycle_ns, sent_ns)
            self._await_cycle(worker, next_ns, words.result_seq)
        self._drain()
        self._apply(handshake_state.Stopping())
        self._exchange(client, register_map.encode_agent(register_map.FAIL_SAFE))
        self._went("The agent has left the line.")

    def _await_cycle(self, worker: Worker, next_ns: int, shown: int) -> None:
        """Wait for the next cycle, or for a result that the PLC can be shown at once."""
        while not worker.stop.is_set() and self._words().result_seq in (0, shown):
            left_ns = next_ns - self._clock.monotonic_ns()
            if left_ns <= 0 or not self._clock.wait(self._woken, left_ns / 1e9):
                return
            self._woken.clear()
            self._drain()

    def _exchange(self, client: ModbusTcpClient, block: list[int]) -> list[int]:
        """Write the agent's block, then read the PLC's.

        Raises:
            _PlcAwayError: the PLC refuses.
            ModbusException, OSError: it does not answer.
        """
        base, unit = self._settings.base, self._settings.unit
        if self._combined:
            found = client.readwrite_registers(
                read_address=base,
                read_count=register_map.PLC_REGISTERS,
                write_address=base + register_map.AGENT_OFFSET,
                values=block,
                device_id=unit,
            )
            if not (found.isError() and getattr(found, "exception_code", 0) == _ILLEGAL_FUNCTION):
                return self._registers(found)
            self._combined = False
        if block != self._written:
            self._accepted(client.write_registers(base + register_map.AGENT_OFFSET, block, device_id=unit))
            self._written = block
        return self._registers(client.read_holding_registers(base, count=register_map.PLC_REGISTERS, device_id=unit))

    def _registers(self, response: ModbusPDU) -> list[int]:
        self._accepted(response)
        if len(response.registers) != register_map.PLC_REGISTERS:
            raise _PlcAwayError(f"it answered {len(response.registers)} registers.")
        return list(response.registers)

    def _accepted(self, response: ModbusPDU) -> None:
        if response.isError():
            code = getattr(response, "exception_code", 0)
            first, last = self._settings.base, self._settings.base + register_map.ALL_REGISTERS - 1
            raise _PlcAwayError(
                f"it refuses with Modbus exception {code}; registers {first} to {last} of unit"
                f" {self._settings.unit} must be there and {first + register_map.AGENT_OFFSET} onwards writable."
            )


def _sentence(error: Exception) -> str:
    """Return why an exchange failed without the library's own object names, so that a repeat reads the same."""
    if isinstance(error, _PlcAwayError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}."
    return "it hung up or did not answer in time."
