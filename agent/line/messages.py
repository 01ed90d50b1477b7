"""Triggers, recipe requests and verdicts as JSON: the same bodies over HTTP and MQTT. Pure."""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import msgspec

from agent.line.trigger import Answer, RecipeRequest, Trigger
from wire import codec
from wire.errors import LinesideError
from wire.ids import Name, ShortText
from wire.inspection import Mode, Reason, Route, Utc, Verdict

T = TypeVar("T")
VERDICT_SCHEMA: Final = "lineside.verdict/1"
STATE_SCHEMA: Final = "lineside.station-state/1"
RECIPE_SCHEMA: Final = "lineside.recipe-answer/1"
REFUSAL_SCHEMA: Final = "lineside.trigger-refused/1"
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
RunText = Annotated[str, msgspec.Meta(max_length=100)]
Sequence = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Number = Annotated[int, msgspec.Meta(ge=1, le=65535)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerMessage:
    """A part is there.

    Args:
        id: what the sender calls this trigger; the same id again is the same part. Without one it is made of run and
            sequence, or by the agent (a repetition is then a part of its own).
        run, sequence: the sender's own count, from 1 in each run; gaps in it become NO_VERDICT records.
        recipe: which recipe the part needs, by its id or its number.
        code: which recipe the part needs, by what its barcode says.
    """

    id: Text | None = None
    part_id: ShortText | None = None
    lot: ShortText | None = None
    run: RunText = ""
    sequence: Sequence | None = None
    mode: Mode = Mode.PRODUCTION
    recipe: Name | Number | None = None
    code: ShortText | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeMessage:
    """A recipe is asked for, by one of its id or number, and its code."""

    recipe: Name | Number | None = None
    code: ShortText | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictMessage:
    """What became of one part.

    Args:
        trigger_id: as the trigger named itself.
        inspection_id: of the record; empty where there is none.
        triggered_at: wall clock of the device.
        elapsed_ms: from the trigger to the decision.
    """

    schema: str = VERDICT_SCHEMA
    device: str
    station: str
    trigger_id: str
    run: str
    sequence: int | None
    part_id: str | None
    lot: str | None
    mode: Mode
    inspection_id: str
    verdict: Verdict
    reason: Reason
    route: Route
    recipe: str
    score: float
    rule_fired: str
    triggered_at: Utc
    elapsed_ms: float


def read_trigger(payload: bytes) -> TriggerMessage:
    """Return a trigger's body.

    Raises:
        LinesideError: `message.undecodable` or `message.invalid_value`, naming the place.
    """
    message = _read(payload, TriggerMessage)
    if (message.sequence is None) != (message.run == ""):
        raise LinesideError("message.invalid_value", "run and sequence go together.", "Send both or neither.")
    _one_of(message.recipe, message.code, needed=False)
    return message


def read_recipe(payload: bytes, source: str) -> RecipeRequest:
    """Return a request for a recipe; raises as `read_trigger` does."""
    message = _read(payload, RecipeMessage)
    _one_of(message.recipe, message.code, needed=True)
    request = recipe_of(message.recipe, message.code, source)
    assert request is not None  # noqa: S101  (one of the two was there)
    return request


def recipe_of(recipe: str | int | None, code: str | None, source: str) -> RecipeRequest | None:
    """Return the request that a recipe's id, its number or a code makes; None where there is none of them."""
    if isinstance(recipe, int):
        return RecipeRequest(number=recipe, source=source)
    if recipe is not None:
        return RecipeRequest(recipe=recipe, source=source)
    return RecipeRequest(code=code, source=source) if code is not None else None


def id_of(message: TriggerMessage) -> str | None:
    """Return by what a repetition of the trigger is known; None where nothing tells."""
    if message.id is not None:
        return message.id
    return f"{message.run}-{message.sequence}" if message.sequence is not None else None


def verdict_of(answer: Answer, device: str, station: str) -> VerdictMessage:
    """Return an answer as others are told it."""
    trigger = answer.trigger
    return VerdictMessage(
        device=device,
        station=station,
        trigger_id=trigger.id,
        run=trigger.run,
        sequence=trigger.sequence,
        part_id=trigger.part_id,
        lot=trigger.lot,
        mode=trigger.mode,
        inspection_id=answer.inspection_id,
        verdict=answer.verdict,
        reason=answer.reason,
        route=answer.route,
        recipe=answer.recipe,
        score=answer.score,
        rule_fired=answer.rule_fired,
        triggered_at=trigger.at_utc,
        elapsed_ms=round((answer.judged_ns - trigger.at_ns) / 1e6, 3),
    )


def without_verdict(trigger: Trigger, reason: Reason, recipe: str, now_ns: int) -> Answer:
    """Return what is told of a part that nobody judged in time: it is diverted."""
    return Answer(
        trigger=trigger,
        inspection_id="",
        verdict=Verdict.NO_VERDICT,
        reason=reason,
        route=Route.DIVERT,
        recipe=recipe,
        judged_ns=now_ns,
    )


def _read(payload: bytes, kind: type[T]) -> T:
    """Decode strictly: a misspelt key would otherwise be a part without its serial number."""
    message = codec.decode(payload, kind)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in codec.decode(payload, dict[str, Any]):
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise LinesideError(
                "message.invalid_value",
                f"{json.dumps(key[:50])} is no key of it.",
                f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}.",
            )
    return message


def _one_of(recipe: object, code: object, *, needed: bool) -> None:
    if recipe is not None and code is not None:
        raise LinesideError("message.invalid_value", "recipe and code exclude each other.", "Send one of them.")
    if needed and recipe is None and code is None:
        raise LinesideError("message.invalid_value", "No recipe is named.", "Send recipe or code.")
