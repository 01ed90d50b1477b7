"""Measures the device: processor, memory, disk, temperature, throttling, and each process of the agent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from agent.health import time_quality
from agent.health.throttling import Throttling
from wire.messages import ProcessHealth

MAIN_PROCESS: Final = "agent"
_SMAPS: Final = "/proc/{pid}/smaps_rollup"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """One reading of the device; `cpu_fraction` is the main process's share of one core since the last reading."""

    cpu_fraction: float
    rss_bytes: int
    disk_free_bytes: int
    disk_free_fraction: float
    temperature_c: float | None
    throttled: bool | None
    clock_offset_ms: float | None
    processes: tuple[ProcessHealth, ...]


class Probes:
    """Reads the device, this process and its children, and the disk its data lies on. One thread uses it.

    Args:
        data_dir: whose disk is meant.
        throttling: where the kernel tells that the processor is slowed down.
    """

    def __init__(self, data_dir: Path, throttling: Throttling | None = None) -> None:
        self._data_dir = data_dir
        self._throttling = throttling or Throttling()
        self._known: dict[int, psutil.Process] = {}
        self._measure(MAIN_PROCESS, os.getpid())  # the first share of a core has nothing to be measured from

    def read(self, children: Mapping[str, int] | None = None) -> DeviceReading:
        """Take one reading; cheap enough for every few seconds.

        Args:
            children: process ids by name; one that has ended meanwhile is left out.
        """
        disk = psutil.disk_usage(str(self._data_dir))
        named = {MAIN_PROCESS: os.getpid()} | dict(children or {})
        measured = [self._measure(name, pid) for name, pid in named.items()]
        processes = tuple(process for process in measured if process is not None)
        self._known = {pid: known for pid, known in self._known.items() if pid in named.values()}
        return DeviceReading(
            cpu_fraction=processes[0].cpu_fraction,
            rss_bytes=processes[0].rss_bytes,
            disk_free_bytes=disk.free,
            disk_free_fraction=disk.free / disk.total if disk.total else 0.0,
            temperature_c=_hottest_c(),
            throttled=self._throttling.read(),
            clock_offset_ms=time_quality.clock_offset_ms(),
            processes=processes,
        )

    def _measure(self, name: str, pid: int) -> ProcessHealth | None:
        try:
            known = self._known.get(pid)
            if known is None or not known.is_running():  # a number that was given to another process since
                known = self._known[pid] = psutil.Process(pid)
            return ProcessHealth(
                name=name,
                rss_bytes=known.memory_info().rss,
                private_bytes=private_bytes(pid),
                cpu_fraction=known.cpu_percent() / 100,
            )
        except psutil.Error:
            return None


def private_bytes(pid: int) -> int | None:
    """Return the memory that would be free if a process ended; None where the kernel does not tell, or not us."""
    try:
        text = Path(_SMAPS.format(pid=pid)).read_text(encoding="ascii")
    except OSError:
        return None
    found = [line.split() for line in text.splitlines() if line.startswith(("Private_Clean:", "Private_Dirty:"))]
    return sum(int(words[1]) for words in found) * 1024


def _hottest_c() -> float | None:
    """Return the highest reading of any sensor; None on machines that show none."""
    read = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    readings = [sensor.current for sensors in read().values() for sensor in sensors if sensor.current]
    return float(max(readings)) if readings else None
