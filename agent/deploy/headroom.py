"""How much memory this process may still take, and whether a second session fits into it beside the first.

Two things bound it: what the machine has left, and the control group (cgroup v2) that systemd or a container put the
agent into, with every group above it. The least of them counts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_MEMINFO: Final = Path("/proc/meminfo")
_OWN_GROUP: Final = Path("/proc/self/cgroup")
_GROUPS: Final = Path("/sys/fs/cgroup")
_KIB_PER_MIB: Final = 1024
_MIB: Final = 1024 * 1024
# Building a session takes more than the session: the graph as it is read, and the copies its optimisation makes. The
# self-test's peak holds them already; this is for what differs in the agent's own process.
_MARGIN: Final = 1.25


def fits(available_mb: float | None, needed_mb: float, keep_free_mb: float) -> bool:
    """Tell whether a new session may be built while the old one is still there.

    Args:
        available_mb: what may still be taken; None where nobody knows, which stops nothing.
        needed_mb: the peak that the self-test measured on this device.
        keep_free_mb: what must be left all the same, for pictures, records and the rest of the device.
    """
    return available_mb is None or available_mb - needed_mb * _MARGIN >= keep_free_mb


def available_mb(*, meminfo: Path = _MEMINFO, own_group: Path = _OWN_GROUP, groups: Path = _GROUPS) -> float | None:
    """Return how much memory may still be taken, in 2**20 bytes; None where the system does not say.

    Args:
        meminfo: the kernel's account of the machine.
        own_group: which control group this process is in.
        groups: where control groups are mounted.
    """
    known = [mb for mb in (_of_machine_mb(meminfo), *_of_groups_mb(own_group, groups)) if mb is not None]
    return min(known, default=None)


def _of_machine_mb(meminfo: Path) -> float | None:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / _KIB_PER_MIB if found is not None else None


def _of_groups_mb(own_group: Path, groups: Path) -> list[float | None]:
    """Return what is left in the process's own group and in each above it."""
    try:
        found = re.search(r"^0::/(.*)$", own_group.read_text(), re.MULTILINE)
    except OSError:
        return []
    if found is None:
        return []
    own = Path(found[1])
    # Inside a container the path may lead outside what is mounted: then the mount itself is the own group.
    chain = [groups / part for part in (own, *own.parents)] if ".." not in own.parts else [groups]
    return [_of_group_mb(group) for group in chain]


def _of_group_mb(group: Path) -> float | None:
    """Pages of files that were not used for long are given back before anything is refused: they count as free."""
    try:
        most = (group / "memory.max").read_text().strip()
        if most == "max":
            return None
        used = int((group / "memory.current").read_text())
        idle = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        return max(0.0, (int(most) - used + (int(idle[1]) if idle is not None else 0)) / _MIB)
    except (OSError, ValueError):
        return None
