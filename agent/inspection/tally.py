"""What one station has done since the agent started, for health and for `lineside status`."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import fields
from typing import Final

from wire.histogram import Histogram
from wire.inspection import Timings, Verdict

STEPS: Final = tuple(field.name for field in fields(Timings))


class Tally:
    """Counts verdicts and times every step. Written by the station's threads, read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts: Counter[str] = Counter()
        self._total = Histogram()
        self._steps = {step: Histogram() for step in STEPS}
        self.received = 0
        self.repeats = 0
        self.unrecorded = 0

    def count(self, verdict: Verdict, latency_ms: float) -> None:
        """Count a verdict, and the time from its trigger to its record and answer."""
        with self._lock:
            self._verdicts[verdict.value] += 1
            self._total.add(latency_ms)

    def time(self, timings: Timings) -> None:
        """Add one view's steps."""
        with self._lock:
            for step, histogram in self._steps.items():
                histogram.add(getattr(timings, step))

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

    def step_percentiles_ms(self) -> dict[str, tuple[float, float]]:
        """p50 and p99 of each pipeline step since the start, in ms; a step is left out before its first part."""
        found = {}
        with self._lock:
            for step, histogram in self._steps.items():
                p50, p99 = histogram.quantile(0.5), histogram.quantile(0.99)
                if p50 is not None and p99 is not None:
                    found[step] = (p50, p99)
        return found
