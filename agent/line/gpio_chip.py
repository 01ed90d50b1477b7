"""The narrow interface to GPIO lines: the kernel's character device through gpiod, and a chip in memory for tests.

Unproven on hardware: the gpiod side was written against its documentation and never met a real chip.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from wire.errors import LinesideError

EdgeName = Literal["rising", "falling"]
# Edges the kernel keeps for a line until they are read; at 1,000 parts a second that is a second.
EVENT_BUFFER: Final = 1024
CONSUMER: Final = "lineside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A line has changed.

    Args:
        at_ns: monotonic clock of this device, taken by the kernel.
        number: counts the line's edges from 1; a gap means that some were lost.
    """

    at_ns: int
    number: int


class InputLine(Protocol):
    """A line that is listened to. Its methods raise OSError where the chip is gone."""

    def wait(self, timeout_s: float) -> tuple[Edge, ...]:
        """Return the edges that came; empty when none came in time."""

    def close(self) -> None: ...


class OutputLine(Protocol):
    """A line that is driven. Its methods raise OSError where the chip is gone."""

    def set(self, *, active: bool) -> None: ...

    def close(self) -> None:
        """Release it; what its level is then is the hardware's affair."""


class GpioChip(Protocol):
    """A chip's lines; opening one raises LinesideError `source.unavailable`."""

    def open_input(self, line: int, edge: EdgeName) -> InputLine: ...

    def open_output(self, line: int, *, active: bool, active_low: bool) -> OutputLine: ...


ChipOpener = Callable[[str], GpioChip]


class GpiodChip:
    """Lines of a /dev/gpiochip device, through libgpiod 2."""

    def __init__(self, path: str) -> None:
        try:
            import gpiod
        except ImportError as error:
            raise LinesideError(
                "config.missing_extra", "GPIO needs the package gpiod.", 'Install it: pip install "lineside[gpio]".'
            ) from error
        self._gpiod: Any = gpiod
        self._path = path

    def open_input(self, line: int, edge: EdgeName) -> InputLine:
        """Listen to one edge of a line. Bounces are dealt with by agent/line/gpio_line.py: the kernel would report an
        edge only when it has been stable, which moves the trigger."""
        kinds = self._gpiod.line
        settings = self._gpiod.LineSettings(
            direction=kinds.Direction.INPUT,
            edge_detection=kinds.Edge.RISING if edge == "rising" else kinds.Edge.FALLING,
            event_clock=kinds.Clock.MONOTONIC,
        )
        return _GpiodInput(self._request(line, settings, event_buffer_size=EVENT_BUFFER))

    def open_output(self, line: int, *, active: bool, active_low: bool) -> OutputLine:
        """Drive a line, beginning with the level given."""
        kinds = self._gpiod.line
        values = (kinds.Value.INACTIVE, kinds.Value.ACTIVE)
        settings = self._gpiod.LineSettings(
            direction=kinds.Direction.OUTPUT, active_low=active_low, output_value=values[active]
        )
        return _GpiodOutput(self._request(line, settings), line, values)

    def _request(self, line: int, settings: object, **more: int) -> Any:
        try:
            return self._gpiod.request_lines(self._path, consumer=CONSUMER, config={line: settings}, **more)
        except (OSError, ValueError) as error:
            raise LinesideError(
                "source.unavailable",
                f"Line {line} of {self._path} cannot be had: {error}.",
                "See gpioinfo: does the line exist, and does another program hold it?",
            ) from error


class _GpiodInput:
    def __init__(self, request: Any) -> None:
        self._request = request

    def wait(self, timeout_s: float) -> tuple[Edge, ...]:
        if not self._request.wait_edge_events(timeout_s):
            return ()
        return tuple(
            Edge(at_ns=event.timestamp_ns, number=event.line_seqno) for event in self._request.read_edge_events()
        )

    def close(self) -> None:
        self._request.release()


class _GpiodOutput:
    def __init__(self, request: Any, line: int, values: tuple[Any, Any]) -> None:
        self._request = request
        self._line = line
        self._values = values

    def set(self, *, active: bool) -> None:
        self._request.set_value(self._line, self._values[active])

    def close(self) -> None:
        self._request.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What a line of the fake chip was driven to; `high` is the wire's level, None a line that was released."""

    line: int
    high: bool | None
    at_ns: int


class FakeChip:
    """A chip in memory: tests press its inputs and read what its outputs were driven to."""

    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.gone = False
        self._changed = threading.Condition()
        self._edges: dict[tuple[int, EdgeName], deque[Edge]] = {}
        self._numbers: dict[tuple[int, EdgeName], int] = {}

    def press(self, line: int, edge: EdgeName = "rising", *, at_ns: int | None = None, lost: bool = False) -> int:
        """Make an edge, maybe one that the kernel has no room for; return its time."""
        at_ns = time.monotonic_ns() if at_ns is None else at_ns
        with self._changed:
            key = (line, edge)
            if key in self._edges:
                self._numbers[key] += 1
                if not lost and len(self._edges[key]) < EVENT_BUFFER:
                    self._edges[key].append(Edge(at_ns=at_ns, number=self._numbers[key]))
                self._changed.notify_all()
        return at_ns

    def high(self, line: int) -> bool | None:
        """Return the present level of an output's wire, None where nobody drives it."""
        return next((level.high for level in reversed(self.levels) if level.line == line), None)

    def listened(self, line: int, edge: EdgeName = "rising") -> bool:
        """Tell whether somebody listens to a line."""
        return (line, edge) in self._edges

    def open_input(self, line: int, edge: EdgeName) -> InputLine:
        self._check()
        with self._changed:
            self._edges[line, edge] = deque()
            self._numbers[line, edge] = 0
        return _FakeInput(self, (line, edge))

    def open_output(self, line: int, *, active: bool, active_low: bool) -> OutputLine:
        self._check()
        driven = _FakeOutput(self, line, active_low=active_low)
        driven.set(active=active)
        return driven

    def wait(self, key: tuple[int, EdgeName], timeout_s: float) -> tuple[Edge, ...]:
        with self._changed:
            self._changed.wait_for(lambda: self._edges[key] or self.gone, timeout_s)
            if self.gone:
                raise OSError(19, "No such device")
            found = tuple(self._edges[key])
            self._edges[key].clear()
            return found

    def drive(self, line: int, *, high: bool | None) -> None:
        if self.gone:
            raise OSError(19, "No such device")
        self.levels.append(Level(line=line, high=high, at_ns=time.monotonic_ns()))

    def unlisten(self, key: tuple[int, EdgeName]) -> None:
        with self._changed:
            self._edges.pop(key, None)

    def unplug(self, *, gone: bool = True) -> None:
        """Take the chip away, or bring it back."""
        with self._changed:
            self.gone = gone
            self._changed.notify_all()

    def _check(self) -> None:
        if self.gone:
            raise LinesideError("source.unavailable", "The chip is not there.", "Plug it in.")


class _FakeInput:
    def __init__(self, chip: FakeChip, key: tuple[int, EdgeName]) -> None:
        self._chip = chip
        self._key = key

    def wait(self, timeout_s: float) -> tuple[Edge, ...]:
        return self._chip.wait(self._key, timeout_s)

    def close(self) -> None:
        self._chip.unlisten(self._key)


class _FakeOutput:
    def __init__(self, chip: FakeChip, line: int, *, active_low: bool) -> None:
        self._chip = chip
        self._line = line
        self._active_low = active_low

    def set(self, *, active: bool) -> None:
        self._chip.drive(self._line, high=active != self._active_low)

    def close(self) -> None:
        self._chip.drive(self._line, high=None)
