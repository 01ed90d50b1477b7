"""Measures the device: processor, memory, disk, temperature."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """One reading of the device; `cpu_fraction` is this process's share of one core since the last reading."""

    cpu_fraction: float
    rss_bytes: int
    disk_free_bytes: int
    disk_free_fraction: float
    temperature_c: float | None


class Probes:
    """Reads the vitals of this process and of the disk its data lies on."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._process = psutil.Process()
        self._process.cpu_percent()

    def read(self) -> Vitals:
        """Take one reading; cheap enough for every few seconds."""
        disk = psutil.disk_usage(str(self._data_dir))
        return Vitals(
            cpu_fraction=self._process.cpu_percent() / 100,
            rss_bytes=self._process.memory_info().rss,
            disk_free_bytes=disk.free,
            disk_free_fraction=disk.free / disk.total if disk.total else 0.0,
            temperature_c=_hottest_c(),
        )


def _hottest_c() -> float | None:
    """Return the highest reading of any sensor; None on machines that show none."""
    read = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    readings = [sensor.current for sensors in read().values() for sensor in sensors if sensor.current]
    return float(max(readings)) if readings else None
