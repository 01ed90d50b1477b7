"""What one station has done since the agent started, for health and for `lineside status`."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import fields
from typing import Final

from wire.histogram import Histogram
from wire.inspection import Reason, Timings, Verdict

STEPS: Final = tuple(field.name for field in fields(Timings))
TURN: Final = "turn"  # how long a look waited for its turn at a core
Percentiles = dict[str, tuple[float, float]]


class Tally:
    """Counts verdicts and times every step. Written by the station's threads, read by others.

    Attributes:
        received: triggers that became parts; each of them has its verdict when no part is in work.
        repeats: triggers that came twice and were judged once.
        unrecorded: verdicts that found no room and became NO_VERDICT.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._total = Histogram()
        self._steps: dict[str, dict[str, Histogram]] = {}
        self.received = 0
        self.repeats = 0
        self.unrecorded = 0

    def count(self, verdict: Verdict, latency_ms: float, reason: Reason = Reason.NONE) -> None:
        """Count a verdict, and the time from its trigger to its record and answer."""
        with self._lock:
            self._verdicts[verdict.value] += 1
            if verdict is Verdict.NO_VERDICT:
                self._reasons[reason.value] += 1
            self._total.add(latency_ms)

    def time(self, view: str, timings: Timings, turn_ms: float) -> None:
        """Add one view's steps, and how long it waited for its turn."""
        with self._lock:
            steps = self._steps.get(view)
            if steps is None:
                steps = self._steps[view] = {step: Histogram() for step in (*STEPS, TURN)}
            for step in STEPS:
                steps[step].add(getattr(timings, step))
            steps[TURN].add(turn_ms)

    @property
    def verdicts(self) -> dict[str, int]:
        """Verdicts given, by kind."""
        with self._lock:
            return {verdict.value: self._verdicts[verdict.value] for verdict in Verdict}

    @property
    def answered(self) -> int:
        """Verdicts given, of all kinds; equal to `received` whenever no part is in work."""
        with self._lock:
            return sum(self._verdicts.values())

    def percentiles_ms(self) -> tuple[float, float] | None:
        """Trigger-to-verdict p50 and p99 since the start, in ms; None before the first part."""
        with self._lock:
            p50, p99 = self._total.quantile(0.5), self._total.quantile(0.99)
        return None if p50 is None or p99 is None else (p50, p99)

    @property
    def without_verdict(self) -> dict[str, int]:
        """Parts without verdict, by reason; only those that there are."""
        with self._lock:
            return dict(self._reasons)

    @property
    def deadline_misses(self) -> int:
        """Parts without verdict because it came too late."""
        with self._lock:
            return self._reasons[Reason.DEADLINE.value]

    def step_percentiles_ms(self, view: str | None = None) -> Percentiles:
        """p50 and p99 of each pipeline step since the start, in ms; a step is left out before its first part.

        Args:
            view: whose steps; None takes all views together.
        """
        found: Percentiles = {}
        with self._lock:
            chosen = [steps for name, steps in self._steps.items() if view in {None, name}]
            for step in (*STEPS, TURN):
                histogram = Histogram()
                for steps in chosen:
                    histogram.merge(steps[step])
                p50, p99 = histogram.quantile(0.5), histogram.quantile(0.99)
                if p50 is not None and p99 is not None:
                    found[step] = (p50, p99)
        return found
