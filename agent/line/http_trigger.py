"""HTTP triggers: a request to the agent's local address is a part, and its response is the verdict."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Final

from agent.clock import Clock
from agent.line.intake import Intake
from agent.line.messages import TriggerMessage, id_of, recipe_of, without_verdict
from agent.line.trigger import Answer, LineEvent, RecipeRequest, StationState, Trigger
from wire.errors import LinesideError
from wire.inspection import Reason
from wire.mint import Mint

log = logging.getLogger(__name__)

# A verdict decided just in time still has to be recorded and told; its sender waits that much longer for it.
GRACE_S: Final = 0.05
_REMEMBERED: Final = 4096


class HttpLine:
    """Carries requests to the station and verdicts back. Whoever waits beyond the deadline is told NO_VERDICT.

    Args:
        deadline_ms: of the station.
        name: of the station, for the log.
    """

    def __init__(self, clock: Clock, mint: Mint, *, deadline_ms: float, name: str) -> None:
        self._clock = clock
        self._mint = mint
        self._patience_s = deadline_ms / 1000 + GRACE_S
        self._name = name
        self._intake = Intake(self._refuse)
        self._lock = threading.Lock()
        self._pending: dict[str, tuple[Trigger, Future[Answer]]] = {}
        self._told: OrderedDict[str, Answer] = OrderedDict()
        self._closed = False
        self._state = StationState(ready=False)
        self.late_count = 0

    def submit(self, message: TriggerMessage) -> Answer:
        """Carry one part and wait for its verdict; called by the local server, one thread a request.

        The same id again is answered with the same verdict and makes no second part.

        Raises:
            LinesideError: `recipe.refused`; `request.too_many` where the station is too far behind. There is no part
                then, and no record.
        """
        known_id = id_of(message)
        with self._lock:
            if known_id is not None and known_id in self._told:
                return self._told[known_id]
            pending = self._pending.get(known_id) if known_id is not None else None
            if pending is None:
                trigger = self._trigger_of(message, known_id or self._mint.uuid7())
                if self._closed:
                    return without_verdict(trigger, Reason.AGENT_DOWN, self._state.recipe, trigger.at_ns)
                pending = (trigger, Future())
                if not self._intake.offer(trigger, recipe_of(message.recipe, message.code, "http")):
                    raise LinesideError(
                        "request.too_many", f"Station {self._name} is too far behind to take the part.", "Divert it."
                    )
                self._pending[trigger.id] = pending
        return self._await(*pending)

    def take(self, timeout_s: float) -> LineEvent | None:
        """Return the next event; None when none came in time."""
        return self._intake.take(timeout_s)

    def answer(self, answer: Answer) -> None:
        """Give the verdict to whoever waits for it; too late is counted, since they were told NO_VERDICT."""
        with self._lock:
            pending = self._pending.pop(answer.trigger.id, None)
            if pending is None:
                self.late_count += 1
                return
            self._remember(answer)
        pending[1].set_result(answer)

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        """Let the trigger that waits for the recipe go on, or tell its sender that it cannot be had."""
        self._intake.settle(request, refusal)

    def set_state(self, state: StationState) -> None:
        """Note it; the next answer tells."""
        self._state = state

    def close(self) -> None:
        """Tell everybody who waits that there will be no verdict, and everybody who comes later."""
        with self._lock:
            self._closed = True
            pending, self._pending = self._pending, {}
        for trigger, future in pending.values():
            future.set_result(
                without_verdict(trigger, Reason.AGENT_DOWN, self._state.recipe, self._clock.monotonic_ns())
            )

    def _await(self, trigger: Trigger, future: Future[Answer]) -> Answer:
        left_s = self._patience_s - (self._clock.monotonic_ns() - trigger.at_ns) / 1e9
        try:
            return future.result(max(0.0, left_s))
        except TimeoutError:
            pass
        with self._lock:
            if self._pending.pop(trigger.id, None) is not None:
                now_ns = self._clock.monotonic_ns()
                answer = without_verdict(trigger, Reason.DEADLINE, self._state.recipe, now_ns)
                self._remember(answer)
                future.set_result(answer)
        return future.result(1.0)  # somebody else tells it at this very moment

    def _trigger_of(self, message: TriggerMessage, trigger_id: str) -> Trigger:
        return Trigger(
            id=trigger_id,
            run=message.run,
            sequence=message.sequence,
            at_ns=self._clock.monotonic_ns(),
            at_utc=self._clock.now_utc(),
            part_id=message.part_id,
            lot=message.lot,
            mode=message.mode,
        )

    def _refuse(self, trigger: Trigger, refusal: str) -> None:
        with self._lock:
            pending = self._pending.pop(trigger.id, None)
        if pending is not None:
            pending[1].set_exception(
                LinesideError("recipe.refused", refusal, "The part was not judged. Ask for a recipe the station has.")
            )

    def _remember(self, answer: Answer) -> None:
        self._told[answer.trigger.id] = answer
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
