"""How many cores this process may really use: affinity and the container's quota, never the machine's count."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_CGROUP_V2: Final = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1: Final = Path("/sys/fs/cgroup/cpu")


def usable() -> int:
    """Return the number of cores, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _quota()
    return max(1, min(allowed, math.ceil(quota)) if quota is not None else allowed)


def _quota() -> float | None:
    """Return the container's share in cores; None where there is no limit."""
    try:
        limit, period = _CGROUP_V2.read_text(encoding="ascii").split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int((_CGROUP_V1 / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = int((_CGROUP_V1 / "cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return limit_us / period_us if limit_us > 0 and period_us > 0 else None
