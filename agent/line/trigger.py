"""A trigger: the event that says a part is there; and the seam between a station and its line."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from wire.inspection import Mode, Reason, Route, Verdict


class TriggerKind(enum.StrEnum):
    """How a trigger's moment stands to the part's frames."""

    PART = "part"  # a part is there at this very moment: its frame must be of this moment
    NEXT_FRAME = "next_frame"  # the next frame in its order, whenever it was taken: clips
    FRESH_FRAME = "fresh_frame"  # the first frame exposed after it: intervals


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One part has reached the station.

    Args:
        id: unique for ever: run of the line's controller and its sequence, what the line calls it, or made by the
            agent.
        run: the run of the controller the sequence belongs to; empty where the trigger has no sequence.
        sequence: the line's own count, from 1 in each run.
        at_ns: monotonic clock of this device at the trigger.
        seen_by: the view in whose frames the part was found; its next frame is the very one that shows it.
    """

    id: str
    run: str
    sequence: int | None
    at_ns: int
    at_utc: datetime
    part_id: str | None = None
    lot: str | None = None
    mode: Mode = Mode.PRODUCTION
    kind: TriggerKind = TriggerKind.PART
    seen_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinePosition:
    """The controller's own count when the agent connected: what it triggered up to here and we never saw was missed."""

    run: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCount:
    """The line's own count of parts that passed, to hold the part gate's count against; it only grows within a run."""

    run: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeRequest:
    """The line, a message or a person asks for a recipe: by its number, by a code (barcode, message text) or by its id.

    Args:
        number, code, recipe: exactly one of them is given.
        source: who asks, for the log: "plc", "mqtt", "http", "person".
    """

    number: int | None = None
    code: str | None = None
    recipe: str | None = None
    source: str


LineEvent = Trigger | LinePosition | LineCount | RecipeRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the line is told about one part; its record is with the kernel already.

    Args:
        inspection_id: of the record; empty where none could be kept (the verdict is then NO_VERDICT).
        recipe: the part was judged with.
        judged_ns: monotonic clock when the verdict was decided.
    """

    trigger: Trigger
    inspection_id: str
    verdict: Verdict
    reason: Reason
    route: Route
    recipe: str
    score: float = 0.0
    rule_fired: str = ""
    judged_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StationState:
    """What the line may know about the station.

    Args:
        ready: parts are judged.
        not_ready: why not, for people; empty when ready.
        recipe: in force.
        recipe_number: by which the PLC knows it, 0 where it has none.
    """

    ready: bool
    not_ready: str = ""
    recipe: str = "default"
    recipe_number: int = 0


class Line(Protocol):
    """Triggers in, verdicts out, for one station. Only `take` waits; everything else returns at once."""

    def take(self, timeout_s: float) -> LineEvent | None:
        """Return the next event; None when none came in time."""

    def answer(self, answer: Answer) -> None:
        """Send the verdict of one trigger; never blocks for longer than the line's own time-out."""

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        """Tell whoever asked for a recipe that it is in force (empty refusal), or why it is not."""

    def set_state(self, state: StationState) -> None:
        """Tell the line how the station is; called often, mostly with what was told before."""

    def close(self) -> None:
        """Leave the line in its fail-safe state."""


class Output(Protocol):
    """Somebody else who is told each verdict: a message, a call, a lamp, a gate. It has a thread and a bounded queue of
    its own, so that a slow or dead one never delays a verdict."""

    @property
    def name(self) -> str: ...

    def answer(self, answer: Answer) -> None:
        """Queue the verdict; what finds no room is dropped and counted."""

    def counts(self) -> OutputCounts: ...

    def set_state(self, state: StationState) -> None: ...

    def close(self) -> None:
        """Leave the output in its fail-safe state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCounts:
    """What became of the verdicts handed to one output.

    Args:
        trouble: why it does not get through now, empty where nothing is wrong.
    """

    sent: int
    dropped: int
    failed: int
    trouble: str = ""
