"""What a tree of processes holds of the machine (memory, threads, descriptors, shared memory), and whether it grows."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

DEV_SHM = Path("/dev/shm")  # noqa: S108  (it is looked at, not written to)
_SYSV = Path("/proc/sysvipc/shm")
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One look at a tree of processes.

    Args:
        rss_mb: of the root process.
        tree_mb: of all processes, what they share counted once (PSS).
        threads, descriptors: of the root process.
        tree_threads, tree_descriptors: of all.
        segments: pieces of shared memory that any of them has open or mapped (memfd, /dev/shm, unlinked files).
    """

    processes: int
    rss_mb: float
    tree_mb: float
    threads: int
    descriptors: int
    tree_threads: int
    tree_descriptors: int
    segments: int


def look(pid: int) -> Footprint:
    """Measure a process and all below it; raises psutil.NoSuchProcess where the root has gone."""
    root = psutil.Process(pid)
    tree = [root, *root.children(recursive=True)]
    pss = threads = descriptors = 0
    segments: set[tuple[int, int]] = set()
    alive = 0
    for process in tree:
        try:
            pss += process.memory_full_info().pss
            threads += process.num_threads()
            descriptors += process.num_fds()
            segments |= segments_of(process.pid)
            alive += 1
        except (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
            if process is root:
                raise
    return Footprint(
        processes=alive,
        rss_mb=round(root.memory_info().rss / _MIB, 2),
        tree_mb=round(pss / _MIB, 2),
        threads=root.num_threads(),
        descriptors=root.num_fds(),
        tree_threads=threads,
        tree_descriptors=descriptors,
        segments=len(segments),
    )


def segments_of(pid: int) -> set[tuple[int, int]]:
    """Return (device, inode) of each piece of shared memory that a process has open or mapped."""
    found: set[tuple[int, int]] = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
            if _is_segment(target):
                status = link.stat()
                found.add((status.st_dev, status.st_ino))
        except FileNotFoundError:
            continue
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and _is_segment(fields[5]):
            major, minor = (int(part, 16) for part in fields[3].split(":"))
            found.add((os.makedev(major, minor), int(fields[4])))
    return found


def _is_segment(target: str) -> bool:
    is_library = ".so" in target
    unlinked = target.endswith(" (deleted)") and target.startswith("/") and not is_library
    return target.startswith(("/memfd:", f"{DEV_SHM}/")) or unlinked


def named_segments() -> frozenset[str]:
    """Return what lies in /dev/shm and in System V's table: what could be left behind by processes that have gone."""
    # Shared memory objects are plain files; a folder there is somebody's scratch space.
    files = {f"{DEV_SHM}/{path.name}" for path in DEV_SHM.iterdir() if path.is_file()} if DEV_SHM.is_dir() else set()
    lines = _SYSV.read_text(encoding="ascii").splitlines()[1:] if _SYSV.is_file() else []
    return frozenset(files | {f"sysv {line.split()[1]}" for line in lines})


def growth(values: Sequence[float]) -> float:
    """Return how much higher the last third lies than the first: the least of the last above the greatest of the first.

    0 or less where the two overlap: something that comes and goes is no growth, something that only comes is.
    """
    third = max(1, len(values) // 3)
    return min(values[-third:]) - max(values[:third])


def slope_per_minute(minutes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope half of all pairs of samples lie above (Theil 1950, Sen 1968): single peaks do not count."""
    slopes = [
        (values[later] - values[earlier]) / (minutes[later] - minutes[earlier])
        for earlier in range(len(values))
        for later in range(earlier + 1, len(values))
        if minutes[later] > minutes[earlier]
    ]
    return statistics.median(slopes) if slopes else 0.0
