"""Where triggers that come as messages wait for their station, each with the recipe it needs."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from agent.line.trigger import LineEvent, LinePosition, RecipeRequest, Trigger

CAPACITY: Final = 256
RECIPE_TIMEOUT_S: Final = 10.0


class Intake:
    """A bounded queue between the threads that hear messages and the station that takes events.

    A trigger that names a recipe leaves only after the station has taken that recipe: another sender's request cannot
    come between the two. Where the recipe is refused, the trigger is handed back instead.

    Args:
        refused: called, on the station's thread, with a trigger whose recipe was refused, and why.
        capacity: triggers that may wait.
    """

    def __init__(self, refused: Callable[[Trigger, str], None], capacity: int = CAPACITY) -> None:
        self._refused = refused
        self._capacity = capacity
        self._changed = threading.Condition()
        self._waiting: deque[tuple[RecipeRequest | None, Trigger | None]] = deque()
        self._awaited: tuple[RecipeRequest, Trigger | None, float] | None = None
        self._next: Trigger | None = None
        self._position_wanted = True

    def offer(self, trigger: Trigger | None, recipe: RecipeRequest | None = None) -> bool:
        """Queue a trigger, a request for a recipe, or a trigger with its recipe; False where there is no room."""
        with self._changed:
            if len(self._waiting) >= self._capacity:
                return False
            self._waiting.append((recipe, trigger))
            self._changed.notify()
            return True

    def note_connected(self) -> None:
        """What the sender counted before its next trigger came to nobody: that trigger's predecessor is its position.

        It is so at the agent's start, and again after each time the sender could not reach us.
        """
        with self._changed:
            self._position_wanted = True

    def take(self, timeout_s: float) -> LineEvent | None:
        """Return the next event; None when none came in time."""
        until = time.monotonic() + timeout_s
        while True:
            with self._changed:
                expired = self._expired()
                event = None if expired is not None else self._ready()
                left_s = until - time.monotonic()
                if expired is None and event is None and left_s > 0:
                    self._changed.wait(left_s)
                    continue
            if expired is None:
                return event
            self._refused(expired, f"The station did not answer within {RECIPE_TIMEOUT_S:g} s.")

    def settle(self, request: RecipeRequest, refusal: str) -> None:
        """Note the station's word on a request for a recipe; empty is a yes."""
        refused = None
        with self._changed:
            if self._awaited is None or self._awaited[0] != request:
                return
            trigger = self._awaited[1]
            self._awaited = None
            if refusal:
                refused = trigger
            else:
                self._next = trigger
            self._changed.notify()
        if refused is not None:
            self._refused(refused, refusal)

    def _expired(self) -> Trigger | None:
        """The trigger whose recipe nobody has answered for too long."""
        if self._awaited is None or time.monotonic() < self._awaited[2]:
            return None
        _, trigger, _ = self._awaited
        self._awaited = None
        return trigger

    def _ready(self) -> LineEvent | None:
        """The next event that may leave now."""
        if self._awaited is not None:
            return None
        if self._next is None and self._waiting:
            request, trigger = self._waiting.popleft()
            self._next = trigger
            if request is not None:
                self._next = None
                self._awaited = (request, trigger, time.monotonic() + RECIPE_TIMEOUT_S)
                return request
        trigger = self._next
        if trigger is None:
            return None
        if self._position_wanted and trigger.sequence is not None:
            self._position_wanted = False
            return LinePosition(run=trigger.run, sequence=trigger.sequence - 1)
        self._next = None
        return trigger
