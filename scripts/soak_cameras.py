"""Cameras for the soak: the belt's own, as a plug-in in a process of its own, and the faults that befall cameras."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from agent.capture.frame import TimeClass
from agent.capture.simulated import SimulatedCamera

_ENTRY_POINTS: Final = "[lineside.sources]\nbelt = scripts.soak_cameras:BeltCamera\n"
_METADATA: Final = "Metadata-Version: 2.1\nName: lineside-soak-cameras\nVersion: 1.0\n"


class BeltCamera(SimulatedCamera):
    """A camera of the simulated belt as a plug-in: its frames come through a camera's process and its ring."""

    time_class = TimeClass.HARDWARE_TRIGGERED

    def __init__(self, options: Mapping[str, str | int | float | bool], camera: str) -> None:
        super().__init__("127.0.0.1", int(options["port"]), camera, camera)


def install(folder: Path) -> None:
    """Make a distribution that brings the plug-in, as pip would; `folder` belongs on the PYTHONPATH."""
    place = folder / "lineside_soak_cameras-1.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(_METADATA, encoding="utf-8")
    (place / "entry_points.txt").write_text(_ENTRY_POINTS, encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that happens to a camera or to the line.

    Args:
        strike: makes it happen, and undoes what does not mend itself.
    """

    name: str
    strike: Callable[[], None]


def kill_process(process_id: int | None) -> None:
    """End a camera's process as a crash would."""
    _signal(process_id, signal.SIGKILL)


def stop_process(process_id: int | None) -> None:
    """Stop a camera's process where it is: it must be noticed and killed, since it says nothing any more."""
    _signal(process_id, signal.SIGSTOP)


def tree_of(process_id: int) -> list[psutil.Process]:
    """Return a process and all below it."""
    root = psutil.Process(process_id)
    return [root, *root.children(recursive=True)]


def _signal(process_id: int | None, number: signal.Signals) -> None:
    if process_id is not None and psutil.pid_exists(process_id):
        os.kill(process_id, number)
