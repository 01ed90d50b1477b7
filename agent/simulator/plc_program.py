"""The program of a simulated PLC: what it does in one scan, and its own account of each part.

It is the other half of the handshake (docs/reference/register-map.md), written as a PLC's program is: once per scan it
looks at the agent's block and makes its own. It never waits for the agent: a part without a result when its deadline is
over is diverted.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.line import register_map
from agent.line.register_map import AgentWords, PlcWords

_HEARTBEAT_NS: Final = 100_000_000
_RUNS: Final = 0xFFFF_FFFF
_VERDICTS: Final = {code: verdict.value for verdict, code in register_map.VERDICT_CODES.items()}
_ROUTES: Final = {code: route.value for route, code in register_map.ROUTE_CODES.items()}
_REASONS: Final = {code: reason.value for reason, code in register_map.REASON_CODES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A part that waits for its result."""

    at_ns: int
    was_ready: bool


class PlcProgram:
    """Counts parts, shows the newest, takes results, and watches the agent's heartbeat.

    Args:
        write: takes each line of the PLC's own account: `part`, `result`, `late_result`, `no_answer`, `agent_lost`,
            `agent_back`, `recipe`, `run`.
        run: number of the first run.
        deadline_ms: from the photo-eye to the gate; a later result is no use.
        watchdog_ms: an agent whose heartbeat stands still for so long is dead.
        tells_age: keep TriggerAgeMs current.
    """

    def __init__(
        self,
        write: Callable[..., None],
        *,
        run: int,
        deadline_ms: float = 500.0,
        watchdog_ms: float = 500.0,
        tells_age: bool = True,
    ) -> None:
        self._write = write
        self._deadline_ns = int(deadline_ms * 1e6)
        self._watchdog_ns = int(watchdog_ms * 1e6)
        self._tells_age = tells_age
        self._lock = threading.Lock()
        self._words = PlcWords(run=run)
        self._part_ns = 0
        self._open: dict[int, _Open] = {}
        self._agent = register_map.FAIL_SAFE
        self._beat = -1
        self._beat_ns = 0
        self._recipe_told: tuple[int, int] = (0, 0)
        self.is_agent_alive = False
        self.holds_acks = False
        self.is_frozen = False

    @property
    def run(self) -> int:
        return self._words.run

    @property
    def agent(self) -> AgentWords:
        """What the agent's block said at the last scan; the fail-safe state where the agent is dead."""
        return self._agent if self.is_agent_alive else register_map.FAIL_SAFE

    @property
    def open_count(self) -> int:
        """Parts whose deadline is not over and that have no result."""
        return len(self._open)

    def photo_eye(self, now_ns: int, part_id: str = "", lot: str = "", mode: int = 0) -> int:
        """A part has come: count it and show it; return its sequence."""
        with self._lock:
            sequence = self._words.trigger_seq + 1
            self._words = dataclasses.replace(
                self._words,
                trigger_seq=sequence,
                part_count=self._words.part_count + 1,
                part_id=part_id,
                lot=lot,
                mode=mode,
                trigger_seq_end=sequence,
            )
            self._part_ns = now_ns
            self._open[sequence] = _Open(at_ns=now_ns, was_ready=bool(self.agent.trigger_ready))
            self._write(event="part", run=self.run, sequence=sequence, part_id=part_id, lot=lot, at_ns=now_ns)
            return sequence

    def request_recipe(self, number: int) -> None:
        """The parts from here on need that recipe; 0 leaves the choice to others."""
        with self._lock:
            self._words = dataclasses.replace(self._words, recipe_request=number)

    def restart(self) -> None:
        """Begin a new run, as after a power cut: nothing is remembered of the parts."""
        with self._lock:
            run = self._words.run % _RUNS + 1
            self._words = PlcWords(run=run, recipe_request=self._words.recipe_request)
            for sequence in self._open:
                self._write(event="no_answer", run=self.run, sequence=sequence, route="divert", why="plc_restarted")
            self._open.clear()
            self._write(event="run", run=run)

    def scan(self, agent: AgentWords | None, now_ns: int) -> PlcWords:
        """Look at the agent's block (None: it could not be read) and return the PLC's own."""
        with self._lock:
            if self.is_frozen:
                return self._words
            if agent is not None:
                self._agent = agent
            self._watch(now_ns)
            if self.is_agent_alive:
                self._take_result(now_ns)
                self._note_recipe()
            self._divert_overdue(now_ns)
            self._words = dataclasses.replace(self._words, heartbeat=now_ns // _HEARTBEAT_NS & 0xFFFF)
            return self._aged(now_ns)

    def look(self, now_ns: int) -> PlcWords:
        """Return the PLC's block between two scans, the newest part's age as it is now.

        A scan of a real PLC is never late. Here it may be, by as long as this machine is busy with something else, and
        an age of then would make the part younger than it is.
        """
        with self._lock:
            return self._words if self.is_frozen else self._aged(now_ns)

    def _aged(self, now_ns: int) -> PlcWords:
        age_ms = max(1, min(65_535, (now_ns - self._part_ns) // 1_000_000))
        told_ms = age_ms if self._tells_age and self._words.trigger_seq else 0
        self._words = dataclasses.replace(self._words, trigger_age_ms=told_ms)
        return self._words

    def _watch(self, now_ns: int) -> None:
        if self._agent.heartbeat != self._beat and self._agent.map_version:
            self._beat, self._beat_ns = self._agent.heartbeat, now_ns
            if not self.is_agent_alive:
                self.is_agent_alive = True
                self._write(event="agent_back", agent_run=self._agent.agent_run, at_ns=now_ns)
        elif self.is_agent_alive and (not self._agent.map_version or now_ns - self._beat_ns > self._watchdog_ns):
            self.is_agent_alive = False
            self._write(event="agent_lost", at_ns=now_ns, said_goodbye=not self._agent.map_version)

    def _take_result(self, now_ns: int) -> None:
        shown = self._agent
        if not shown.result_valid or shown.result_seq != shown.result_seq_end or self.holds_acks:
            return
        if shown.result_run != self._words.run:
            return  # of parts before this program started
        if shown.result_seq == self._words.result_ack:
            return  # taken before; the agent has not seen the acknowledgement yet
        open_part = self._open.pop(shown.result_seq, None)
        fields = {
            "run": self.run,
            "sequence": shown.result_seq,
            "verdict": _VERDICTS.get(shown.verdict, "unknown"),
            "route": _ROUTES.get(shown.route, "divert"),
            "reason": _REASONS.get(shown.reason, "unknown"),
        }
        if open_part is None:
            self._write(event="late_result", **fields)
        else:
            self._write(event="result", after_ms=round((now_ns - open_part.at_ns) / 1e6, 2), **fields)
        self._words = dataclasses.replace(self._words, result_ack=shown.result_seq)

    def _note_recipe(self) -> None:
        told = (self._agent.recipe_active, self._agent.recipe_fault)
        if told != self._recipe_told:
            self._recipe_told = told
            self._write(event="recipe", requested=self._words.recipe_request, active=told[0], fault=told[1])

    def _divert_overdue(self, now_ns: int) -> None:
        overdue = [number for number, part in self._open.items() if now_ns - part.at_ns > self._deadline_ns]
        for sequence in overdue:
            part = self._open.pop(sequence)
            if not self.is_agent_alive:
                why = "agent_dead"
            elif not part.was_ready:
                why = "not_ready"
            elif self._agent.trigger_ack < sequence:
                why = "not_seen"
            else:
                why = "no_result_in_time"
            self._write(event="no_answer", run=self.run, sequence=sequence, route="divert", why=why)
