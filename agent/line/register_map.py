"""The registers between a PLC and a station, version 1: the one table, its codes, and both sides' words. Pure.

Two blocks of holding registers: the PLC writes the first, the agent the second. Words of 32 bits take two registers,
the high one first. Each block begins and ends with the same sequence number: whoever reads a block takes what stands
between only where both agree, so that a half-copied block never counts (docs/reference/register-map.md).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from wire.inspection import Reason, Route, Verdict

VERSION: Final = 1
AGENT_OFFSET: Final = 64
HEARTBEAT_MS: Final = 50
TEXT_REGISTERS: Final = 16


class Kind(enum.Enum):
    """How a value lies in registers, and how many it takes."""

    U16 = 1
    U32 = 2
    TEXT = TEXT_REGISTERS


class Fault(enum.IntEnum):
    """Why the station takes no parts, or what is wrong with the handshake: the first that applies."""

    NONE = 0
    NO_RUN = 1
    NO_BLOCK = 2
    TORN_BLOCK = 3
    SEQUENCE_BACK = 4
    PLC_SILENT = 5
    STATION_SILENT = 6
    NOT_READY = 7
    RECIPE_REFUSED = 8
    RECIPE_SWITCH = 9
    NO_ROOM = 10
    ACK_EARLY = 11


FAULTS: Final = {
    Fault.NONE: "nothing is wrong",
    Fault.NO_RUN: "the PLC's Run is 0; it must be another number at each start of its count",
    Fault.NO_BLOCK: "the PLC has not written its block since it connected",
    Fault.TORN_BLOCK: "TriggerSeq and TriggerSeqEnd have differed for a second",
    Fault.SEQUENCE_BACK: "TriggerSeq went back within one Run",
    Fault.PLC_SILENT: "PlcHeartbeat has not changed within the time set",
    Fault.STATION_SILENT: "the station's own thread has said nothing for 10 seconds",
    Fault.NOT_READY: "the station cannot judge parts, for example without a model; `lineside status` says why",
    Fault.RECIPE_REFUSED: "the recipe asked for is not available; the agent's log says why",
    Fault.RECIPE_SWITCH: "the recipe asked for is being put in force",
    Fault.NO_ROOM: "as many results as may wait have not been acknowledged",
    Fault.ACK_EARLY: "ResultAck already had the number of the result before it was shown; write 0, then the number",
}

MODES: Final = {0: "production", 1: "setup", 2: "challenge"}
VERDICT_CODES: Final = {Verdict.OK: 1, Verdict.NG: 2, Verdict.UNSURE: 3, Verdict.NO_VERDICT: 4}
ROUTE_CODES: Final = {Route.DIVERT: 0, Route.ACCEPT: 1, Route.REJECT: 2}
# A code keeps its meaning for ever; a new reason gets the next free number.
REASON_CODES: Final = {
    Reason.NONE: 0,
    Reason.AGENT_DOWN: 1,
    Reason.NO_FRAME: 2,
    Reason.LATE_FRAME: 3,
    Reason.DEADLINE: 4,
    Reason.NO_MODEL: 5,
    Reason.UNUSABLE_OUTPUT: 6,
    Reason.RUNTIME_ERROR: 7,
    Reason.MISSING_VIEW: 8,
    Reason.NOT_RECORDED: 9,
    Reason.IN_UNSURE_BAND: 10,
    Reason.LOW_SCORE: 11,
    Reason.RULE_FIRED: 12,
    Reason.COUNT_UNSURE: 13,
    Reason.COUNT_WRONG: 14,
    Reason.NOT_CALIBRATED: 15,
    Reason.MISSED_TRIGGER: 16,
    Reason.NOT_GATED: 17,
    Reason.FRAME_FROZEN: 18,
    Reason.FRAME_BLACK: 19,
    Reason.FRAME_SATURATED: 20,
    Reason.FRAME_BLURRED: 21,
    Reason.FRAME_WRONG_SIZE: 22,
    Reason.FRAME_CORRUPT: 23,
    Reason.CAMERA_MOVED: 24,
    Reason.CAMERA_SETTINGS: 25,
    Reason.TIME_CLASS: 26,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """One value of a block.

    Args:
        field: its name in `PlcWords` or `AgentWords`.
        offset: of its first register from the base of the map.
    """

    name: str
    field: str
    kind: Kind
    offset: int
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlcWords:
    """What the PLC writes. Numbers are unsigned; texts hold no control characters."""

    trigger_seq: int = 0
    run: int = 0
    heartbeat: int = 0
    mode: int = 0
    trigger_age_ms: int = 0
    recipe_request: int = 0
    result_ack: int = 0
    part_count: int = 0
    part_id: str = ""
    lot: str = ""
    trigger_seq_end: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentWords:
    """What the agent writes; all zeros is its fail-safe state."""

    map_version: int = 0
    agent_run: int = 0
    heartbeat: int = 0
    trigger_ready: int = 0
    busy: int = 0
    fault: int = 0
    trigger_ack: int = 0
    missed_trigger: int = 0
    overrun: int = 0
    dropped_results: int = 0
    recipe_active: int = 0
    recipe_fault: int = 0
    results_waiting: int = 0
    result_seq: int = 0
    result_run: int = 0
    result_valid: int = 0
    verdict: int = 0
    route: int = 0
    reason: int = 0
    score: int = 0
    result_ms: int = 0
    result_seq_end: int = 0


FAIL_SAFE: Final = AgentWords()

_PLC_ROWS: Final = (
    ("TriggerSeq", "trigger_seq", Kind.U32, "Number of the newest part in this Run, from 1; 0 before the first."),
    ("Run", "run", Kind.U32, "Another number at each start of the count, never 0; TriggerSeq then begins at 0."),
    ("PlcHeartbeat", "heartbeat", Kind.U16, "Changes at least every 500 ms while the PLC's program runs."),
    ("Mode", "mode", Kind.U16, "Why the part is shown: 0 production, 1 setup, 2 challenge."),
    (
        "TriggerAgeMs",
        "trigger_age_ms",
        Kind.U16,
        "Age of the newest part at the photo-eye, kept current by the PLC; 0 where the PLC does not tell it.",
    ),
    (
        "RecipeRequest",
        "recipe_request",
        Kind.U16,
        "Number of the recipe the parts need; 0 leaves the choice to others. It stays while it is to be in force.",
    ),
    ("ResultAck", "result_ack", Kind.U32, "ResultSeq of the result the PLC has taken; 0 at the start of a Run."),
    ("PartCount", "part_count", Kind.U32, "The line's own count of parts in this Run; only read with a part gate."),
    ("PartId", "part_id", Kind.TEXT, "Serial number of the newest part, empty (zeros) where there is none."),
    ("Lot", "lot", Kind.TEXT, "Its lot, likewise."),
    ("TriggerSeqEnd", "trigger_seq_end", Kind.U32, "TriggerSeq again, written last."),
)
_AGENT_ROWS: Final = (
    ("MapVersion", "map_version", Kind.U16, "1. It is 0 while no agent serves the station."),
    ("AgentRun", "agent_run", Kind.U16, "Another number at each start of the agent, never 0."),
    ("HeartbeatCount", "heartbeat", Kind.U16, "Grows with time and wraps; stands still when the agent is dead."),
    ("TriggerReady", "trigger_ready", Kind.U16, "1: parts are taken and judged. 0: Fault says why not."),
    ("Busy", "busy", Kind.U16, "Parts taken that have no result yet."),
    ("Fault", "fault", Kind.U16, "See the codes below."),
    ("TriggerAck", "trigger_ack", Kind.U32, "TriggerSeq the agent has seen last, whether or not it took the part."),
    (
        "MissedTrigger",
        "missed_trigger",
        Kind.U32,
        "Parts in this AgentRun that were not taken: they came between two looks, while away, or during a switch.",
    ),
    ("Overrun", "overrun", Kind.U32, "Parts that were not taken since too many results were not acknowledged."),
    (
        "DroppedResults",
        "dropped_results",
        Kind.U32,
        "Parts taken whose result is never shown: a new Run began, or the part had its record already.",
    ),
    ("RecipeActive", "recipe_active", Kind.U16, "Number of the recipe in force, 0 where it has none."),
    ("RecipeFault", "recipe_fault", Kind.U16, "RecipeRequest that was refused, 0 where none was."),
    ("ResultsWaiting", "results_waiting", Kind.U16, "Results not yet acknowledged, the one shown included."),
    ("ResultSeq", "result_seq", Kind.U32, "TriggerSeq of the part the result is for."),
    (
        "ResultRun",
        "result_run",
        Kind.U32,
        "Run of that part. Where it is not the PLC's present one, the result is of parts it no longer knows.",
    ),
    ("ResultValid", "result_valid", Kind.U16, "1: a result is shown, until ResultAck has its number."),
    ("Verdict", "verdict", Kind.U16, "0 none, 1 OK, 2 NG, 3 UNSURE, 4 NO_VERDICT."),
    ("Route", "route", Kind.U16, "Where the part belongs: 0 divert, 1 accept, 2 reject."),
    ("Reason", "reason", Kind.U16, "See the codes below."),
    ("Score", "score", Kind.U16, "The score that decided, in ten-thousandths."),
    ("ResultMs", "result_ms", Kind.U16, "From the trigger to the verdict; 65535 is that or more."),
    ("ResultSeqEnd", "result_seq_end", Kind.U32, "ResultSeq again: the block's last register."),
)


def _laid_out(rows: Sequence[tuple[str, str, Kind, str]], offset: int) -> tuple[Register, ...]:
    found = []
    for name, field, kind, meaning in rows:
        found.append(Register(name=name, field=field, kind=kind, offset=offset, meaning=meaning))
        offset += kind.value
    return tuple(found)


PLC_BLOCK: Final = _laid_out(_PLC_ROWS, 0)
AGENT_BLOCK: Final = _laid_out(_AGENT_ROWS, AGENT_OFFSET)
PLC_REGISTERS: Final = PLC_BLOCK[-1].offset + PLC_BLOCK[-1].kind.value
AGENT_REGISTERS: Final = AGENT_BLOCK[-1].offset + AGENT_BLOCK[-1].kind.value - AGENT_OFFSET
ALL_REGISTERS: Final = AGENT_OFFSET + AGENT_REGISTERS
TRIGGER_END_OFFSET: Final = PLC_BLOCK[-1].offset
RESULT_END_OFFSET: Final = AGENT_BLOCK[-1].offset


def decode_plc(registers: Sequence[int]) -> PlcWords:
    """Return what stands in the PLC's block (`PLC_REGISTERS` values of 16 bits)."""
    return PlcWords(**_decode(PLC_BLOCK, registers))


def decode_agent(registers: Sequence[int]) -> AgentWords:
    """Return what stands in the agent's block (`AGENT_REGISTERS` values of 16 bits)."""
    return AgentWords(**_decode(AGENT_BLOCK, registers))


def encode_plc(words: PlcWords) -> list[int]:
    """Return the registers of the PLC's block."""
    return _encode(PLC_BLOCK, words)


def encode_agent(words: AgentWords) -> list[int]:
    """Return the registers of the agent's block; counters wrap, all else must fit."""
    return _encode(AGENT_BLOCK, words)


def _decode(block: tuple[Register, ...], registers: Sequence[int]) -> dict[str, Any]:
    start = block[0].offset
    values: dict[str, Any] = {}
    for one in block:
        at = one.offset - start
        if one.kind is Kind.U16:
            values[one.field] = registers[at]
        elif one.kind is Kind.U32:
            values[one.field] = registers[at] << 16 | registers[at + 1]
        else:
            values[one.field] = _text_of(registers[at : at + TEXT_REGISTERS])
    return values


def _encode(block: tuple[Register, ...], words: object) -> list[int]:
    registers: list[int] = []
    for one in block:
        value = getattr(words, one.field)
        if one.kind is Kind.U16:
            registers.append(value & 0xFFFF)
        elif one.kind is Kind.U32:
            registers += (value >> 16 & 0xFFFF, value & 0xFFFF)
        else:
            registers += _registers_of(value)
    return registers


def _text_of(registers: Sequence[int]) -> str:
    """Two characters a register, the first in the high byte, up to the first zero; what is no text is replaced."""
    if not registers[0]:
        return ""
    raw = b"".join(register.to_bytes(2, "big") for register in registers).split(b"\0")[0]
    text = raw.decode("utf-8", "replace")
    return "".join(one if one.isprintable() else " " for one in text).strip()


def _registers_of(text: str) -> list[int]:
    raw = text.encode("utf-8")[: 2 * TEXT_REGISTERS].ljust(2 * TEXT_REGISTERS, b"\0")
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]
