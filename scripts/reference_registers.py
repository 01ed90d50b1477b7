"""The page of the PLC's registers, made from the table in agent/line/register_map.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.line import register_map
from agent.line.register_map import Fault, Kind, Register

Table = Callable[[Iterable[str], Iterable[Iterable[object]]], str]
_KINDS = {Kind.U16: "16 bits", Kind.U32: "32 bits", Kind.TEXT: f"text, {2 * register_map.TEXT_REGISTERS} bytes"}


def page(made: str, table: Table) -> str:
    """Return the page in Markdown."""
    return f"""# The registers between a PLC and a station

{made}
Version {register_map.VERSION} of the map. The table is `agent/line/register_map.py`. How to use it:
[connect a PLC](../how-to/plc.md).

All are holding registers, counted from `base` in `[stations.line.modbus]` (0 unless set; the first register is 0, which
some tools call 40001). The two blocks are the same in both roles of the agent: as client it reads and writes them in
the PLC, as server it holds them for a PLC that connects. A value of 32 bits lies in two registers, the high one first.
A text holds two characters a register, the first in the high byte, and ends with a zero; it is UTF-8.

## The PLC writes

Registers 0 to {register_map.PLC_REGISTERS - 1}.

{_block(table, register_map.PLC_BLOCK)}
The agent takes the block only where `TriggerSeq` and `TriggerSeqEnd` agree. A PLC that writes it piece by piece writes
`TriggerSeqEnd` last.

## The agent writes

Registers {register_map.AGENT_OFFSET} to {register_map.ALL_REGISTERS - 1}.

{_block(table, register_map.AGENT_BLOCK)}
The agent writes this block in one request, or answers a read of it at one instant. The PLC takes a result only where
`ResultSeq` and `ResultSeqEnd` agree, `ResultRun` is its own `Run`, `ResultValid` is 1 and `HeartbeatCount` has moved
within its watchdog's time. All zeros is the fail-safe state: not ready, no result, divert.

## Fault

The first of them that applies, in this order. `TriggerReady` is 1 only with 0 and {int(Fault.ACK_EARLY)}.

{table(("Code", "Meaning"), _faults())}
## Reason

A code keeps its meaning for ever. [How a part travels](../explanation/how-a-part-travels.md) says where reasons come
from.

{table(("Code", "Reason"), ((code, f"`{reason.value}`") for reason, code in register_map.REASON_CODES.items()))}"""


def _faults() -> Iterable[tuple[int, str]]:
    return ((int(fault), f"{text[0].upper()}{text[1:]}.") for fault, text in register_map.FAULTS.items())


def _block(table: Table, block: Iterable[Register]) -> str:
    rows = ((one.offset, f"`{one.name}`", _KINDS[one.kind], one.meaning) for one in block)
    return table(("Register", "Name", "Kind", "Meaning"), rows)
