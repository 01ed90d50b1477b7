"""What one station has done since the agent started, for health and for `lineside status`."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Final

import numpy as np

from wire.inspection import Verdict

_LATENCIES: Final = 512


class Tally:
    """Counts verdicts; keeps the latest latencies for percentiles. Written by one thread, read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts: Counter[str] = Counter()
        self._latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self.received = 0
        self.missed = 0
        self.repeats = 0
        self.unrecorded = 0

    def count(self, verdict: Verdict, latency_ms: float) -> None:
        with self._lock:
            self._verdicts[verdict.value] += 1
            self._latencies_ms.append(latency_ms)

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
        """Trigger-to-verdict p50 and p99 of the latest parts, in ms; None before the first."""
        with self._lock:
            if not self._latencies_ms:
                return None
            low, high = np.percentile(np.fromiter(self._latencies_ms, np.float32), [50, 99])
        return float(low), float(high)
