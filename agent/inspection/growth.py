"""How much the agent's memory has grown since a version settled in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

# The first looks reserve what a session keeps: memory is compared with what it is after them.
SETTLED_LOOKS: Final = 20


class Growth:
    """Used by one thread, again and again while a version is watched."""

    def __init__(self) -> None:
        self._settled_mb: dict[str, tuple[str, float]] = {}

    def restart(self) -> None:
        """Measure from now: a session is built or was closed, and memory is another for a good reason."""
        self._settled_mb.clear()

    def measure(self, model: str, digest: str, look_count: int, rss_mb: float) -> float:
        """Return by how much memory has grown since this version had settled in; 0 before that."""
        if look_count < SETTLED_LOOKS:
            return 0.0
        known = self._settled_mb.get(model)
        if known is None or known[0] != digest:
            known = self._settled_mb[model] = (digest, rss_mb)
        return max(0.0, rss_mb - known[1])


def rss_mb() -> float | None:
    """Return the resident memory of this process in 2**20 bytes; None where the kernel does not say."""
    try:
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found is not None else None
