"""What became of the parts that were chosen for one candidate at one station: each is compared or skipped, once."""

from __future__ import annotations

import threading
from collections import Counter

from agent.inspection.shadow_pair import Skip
from wire.messages import ShadowHealth


class Account:
    """Counts; chosen = compared + skipped + those on their way at any moment. Safe for many threads."""

    def __init__(self, model: str, digest: str) -> None:
        self._model = model
        self._digest = digest
        self._lock = threading.Lock()
        self._chosen = self._compared = self._disagreed = 0
        self._skipped: Counter[str] = Counter()

    def choose(self) -> None:
        """Count a part that is meant for the candidate."""
        with self._lock:
            self._chosen += 1

    def compare(self, *, agreed: bool) -> None:
        """Count a part that both versions have judged."""
        with self._lock:
            self._compared += 1
            self._disagreed += not agreed

    def skip(self, why: Skip) -> None:
        """Count a part the candidate has not judged."""
        with self._lock:
            self._skipped[why.value] += 1

    def health(self) -> ShadowHealth:
        """Return the figures, all of one moment."""
        with self._lock:
            return ShadowHealth(
                model=self._model,
                digest=self._digest,
                chosen=self._chosen,
                compared=self._compared,
                disagreed=self._disagreed,
                skipped=dict(sorted(self._skipped.items())),
            )
