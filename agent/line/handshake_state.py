"""What the handshake with a PLC remembers, and what may happen to it. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

from agent.line.register_map import PlcWords
from agent.line.trigger import Answer, LineEvent, StationState


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What stays the same for one line.

    Args:
        name: of the station; makes runs of two PLCs on one device differ.
        agent_run: 1 to 65535, another one at each start of the agent.
        max_results: parts taken and not yet acknowledged.
        trust_ns: a trigger whose moment is less certain than this is not taken.
        plc_silent_ns: a PLC whose heartbeat stands still for so long is gone; 0: it has no heartbeat.
        counter: only the PLC's count of parts is used.
    """

    name: str
    agent_run: int
    max_results: int
    trust_ns: int
    plc_silent_ns: int
    counter: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The PLC's block was read or written.

    Args:
        at_ns: when the answer had come, monotonic; None stands for now.
        uncertain_ns: a change may have stood there unseen for so long.
        exchange_ns: from asking to the answer: what the PLC tells of an age may be so old.
    """

    plc: PlcWords
    at_utc: datetime
    at_ns: int | None = None
    uncertain_ns: int
    exchange_ns: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """The agent's block is on its way to the PLC, or was read by it."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is gone, or came anew: nothing is known until the PLC's block is seen again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The station says how it is."""

    state: StationState


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The station has the verdict of one part."""

    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeAnswered:
    """The station has put the recipe of that number in force, or refuses it."""

    number: int
    refusal: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """The agent leaves the line."""


Happening = Seen | Shown | Lost | Told | Answered | RecipeAnswered | Stopping


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that is remembered between two steps.

    Args:
        run: the PLC's, 0 before the first.
        greeted: the PLC's position is known since it connected.
        last: TriggerSeq seen last in this run.
        ack: ResultAck seen last.
        in_flight: sequences taken without a result yet, oldest first.
        results: waiting for their acknowledgement, oldest first; the first one is shown.
        shown: the PLC may have seen the first result.
        asked, refused: recipe number asked of the station, or refused by it; 0 for none.
        taken, acknowledged: parts and results so far, for the account.
    """

    rules: Rules
    run: int = 0
    greeted: bool = False
    last: int = 0
    ack: int = 0
    early_ack: bool = False
    in_flight: tuple[int, ...] = ()
    results: tuple[Answer, ...] = ()
    shown: bool = False
    taken: int = 0
    acknowledged: int = 0
    missed: int = 0
    overrun: int = 0
    dropped: int = 0
    went_back: bool = False
    torn_since_ns: int | None = None
    heartbeat: int = -1
    heartbeat_ns: int = 0
    station: StationState = dataclasses.field(default_factory=lambda: StationState(ready=False))
    station_ns: int = 0
    request: int = 0
    asked: int = 0
    refused: int = 0
    refused_ns: int = 0
    count: int = -1
    count_ns: int = 0
    stopping: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where a step leads, and what the station is to be told."""

    state: State
    events: tuple[LineEvent, ...] = ()
