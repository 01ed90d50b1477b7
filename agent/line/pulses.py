"""When a timed reject pulse is due, and which parts get none. Pure.

A line of constant speed carries a part from the photo-eye to the ejector in a fixed time. The pulse of a part is
therefore set when its trigger is taken, and called off by a verdict that lets the part pass: a verdict that does not
come in time is a pulse (fail-safe).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pulse:
    """A pulse that is due at a moment of the monotonic clock."""

    due_ns: int
    trigger_id: str


class Pulses:
    """The pulses to come, the earliest first.

    Args:
        delay_ms: from the trigger to the beginning of the pulse.
        capacity: pulses that may be set at once.
        late_ms: a pulse that could only begin this much late would hit another part: it is not given.
    """

    def __init__(self, *, delay_ms: float, capacity: int, late_ms: float) -> None:
        self._delay_ns = int(delay_ms * 1e6)
        self._capacity = capacity
        self._late_ns = int(late_ms * 1e6)
        self._heap: list[Pulse] = []
        self._called_off: set[str] = set()
        self._known: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._heap)

    def expect(self, trigger_id: str, trigger_ns: int) -> bool:
        """Set the pulse of a part whose verdict is not known yet; False where there is no room. Twice is once."""
        if trigger_id in self._known:
            return True
        return self._set(trigger_id, trigger_ns)

    def decide(self, trigger_id: str, trigger_ns: int, now_ns: int, *, wanted: bool) -> bool:
        """Take a verdict in: keep or call off the part's pulse, or set it now.

        Returns:
            False where the part needs a pulse and can get none: no room, or too late.
        """
        if trigger_id in self._known:
            if not wanted:
                self._called_off.add(trigger_id)
            return True
        if not wanted:
            self._remember(trigger_id)
            return True
        if now_ns > trigger_ns + self._delay_ns + self._late_ns:
            self._remember(trigger_id)
            return False
        return self._set(trigger_id, trigger_ns)

    def next_ns(self) -> int | None:
        """Return when the next pulse is due; None where none is set."""
        self._drop_called_off()
        return self._heap[0].due_ns if self._heap else None

    def take(self, now_ns: int) -> tuple[list[Pulse], list[Pulse]]:
        """Return the pulses that begin now, and those for which it is too late."""
        due: list[Pulse] = []
        late: list[Pulse] = []
        while (next_ns := self.next_ns()) is not None and next_ns <= now_ns:
            pulse = heapq.heappop(self._heap)
            (late if now_ns - pulse.due_ns > self._late_ns else due).append(pulse)
        return due, late

    def _set(self, trigger_id: str, trigger_ns: int) -> bool:
        self._drop_called_off()
        if len(self._heap) >= self._capacity:
            return False
        self._remember(trigger_id)
        heapq.heappush(self._heap, Pulse(due_ns=trigger_ns + self._delay_ns, trigger_id=trigger_id))
        return True

    def _drop_called_off(self) -> None:
        while self._heap and self._heap[0].trigger_id in self._called_off:
            self._called_off.discard(heapq.heappop(self._heap).trigger_id)

    def _remember(self, trigger_id: str) -> None:
        self._known[trigger_id] = None
        while len(self._known) > _REMEMBERED + self._capacity:
            old, _ = self._known.popitem(last=False)
            self._called_off.discard(old)
