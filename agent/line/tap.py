"""A line whose triggers are shown to outputs that must know of a part before its verdict (timed reject pulses)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from agent.line.trigger import Answer, Line, LineEvent, Output, RecipeRequest, StationState, Trigger


@runtime_checkable
class Expecting(Protocol):
    """An output that acts on a part unless a verdict calls it off."""

    def expect(self, trigger: Trigger) -> None: ...


def shown_to(line: Line, outputs: Iterable[Output]) -> Line:
    """Return a line that shows its triggers to the outputs that ask for them; the line itself where none does."""
    expecting = tuple(output for output in outputs if isinstance(output, Expecting))
    return TappedLine(line, expecting) if expecting else line


class TappedLine:
    """Passes everything through."""

    def __init__(self, line: Line, expecting: tuple[Expecting, ...]) -> None:
        self._line = line
        self._expecting = expecting

    def take(self, timeout_s: float) -> LineEvent | None:
        event = self._line.take(timeout_s)
        if isinstance(event, Trigger):
            for output in self._expecting:
                output.expect(event)
        return event

    def answer(self, answer: Answer) -> None:
        self._line.answer(answer)

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        self._line.answer_recipe(request, refusal)

    def set_state(self, state: StationState) -> None:
        self._line.set_state(state)

    def close(self) -> None:
        self._line.close()
