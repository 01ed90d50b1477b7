"""Camera plug-ins for tests: their frames say their own number in every pixel, and they fail as their options say."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass
from wire.desired import CameraSettings
from wire.errors import LinesideError

REPO = Path(__file__).resolve().parent.parent.parent
ENTRY_POINTS = """[lineside.sources]
ticking = tests.support.fake_cameras:Ticking
triggered = tests.support.fake_cameras:Triggered
arriving = tests.support.fake_cameras:arriving
broken = tests.support.fake_cameras:nothing_of_this_name
"""


def install(folder: Path) -> None:
    """Make a distribution that registers these plug-ins, as pip would."""
    place = folder / "fake_cameras-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-cameras\nVersion: 1.0\n", encoding="utf-8")
    (place / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")


def python_path(folder: Path) -> str:
    """PYTHONPATH of a process that finds them."""
    return f"{folder}{os.pathsep}{REPO}"


class Ticking:
    """Stamps each frame, as a camera with a clock does.

    Options: fps, width, height; `after` frames do what `fault` says: die, crash, hang (holding the interpreter), sleep,
    freeze, lose (LinesideError), raise, end, grow (twice the size), skip (a frame number), mute. `once` names a file:
    the fault happens only where it is not there yet.
    """

    time_class = TimeClass.DEVICE_TIMESTAMPED

    def __init__(self, options: Mapping[str, str | int | float | bool], camera: str) -> None:
        self._options = dict(options)
        self._camera = camera
        self._number = 0
        self._shown = 0
        self._due = 0.0
        self._exposure_us = 100.0

    def open(self) -> SourceInfo:
        if self._fault("refuse"):
            raise LinesideError("source.unavailable", f"refused for {self._options.get('password')}.")
        self._due = time.monotonic()
        return SourceInfo(camera=self._camera, time_class=self.time_class, live=True)

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        special = self._misbehave()
        if special is not None:
            return special
        self._due += 1 / float(self._options.get("fps", 50))
        wait_s = self._due - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
        if wait_s > timeout_s:
            return NoFrame(reason="not due", expected=True)
        scale = 2 if self._fault("grow") else 1
        height, width = int(self._options.get("height", 24)) * scale, int(self._options.get("width", 32)) * scale
        level = 7 if self._fault("freeze") else self._shown % 251
        if self._options.get("say_settings"):
            level = int(self._exposure_us // 10)
        number, self._number, self._shown = self._number, self._number + 1, self._shown + 1
        if self._fault("skip") and self._shown == int(self._options["after"]) + 1:
            number, self._number = number + 3, self._number + 3
        return Frame(
            camera=self._camera,
            number=number,
            exposed_utc=datetime.now(UTC),
            exposed_ns=time.monotonic_ns(),
            image_bgr=np.full((height, width, 3), level, dtype=np.uint8),
        )

    def lock(self, camera: CameraSettings) -> str:
        if self._options.get("stubborn"):
            return f"exposure_us is {self._exposure_us:g} instead of {camera.exposure_us:g}"
        self._exposure_us = camera.exposure_us or self._exposure_us
        return ""

    def close(self) -> None:
        if "closed" in self._options:
            Path(str(self._options["closed"])).touch()

    def _fault(self, name: str) -> bool:
        if self._options.get("fault") != name or self._shown < int(self._options.get("after", 0)):
            return False
        once = self._options.get("once")
        if once is None or self._shown > int(self._options.get("after", 0)):
            return True
        if Path(str(once)).exists():
            return False
        Path(str(once)).touch()
        return True

    def _misbehave(self) -> NoFrame | Ended | None:
        if self._fault("die"):
            os._exit(3)
        if self._fault("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._fault("hang"):
            ctypes.PyDLL(None).pause()  # a C call that never returns and never lets the interpreter go
        if self._fault("sleep"):
            time.sleep(1000)
        if self._fault("raise"):
            raise ZeroDivisionError(f"no luck with {self._options.get('password')}")
        if self._fault("lose"):
            raise LinesideError("source.unavailable", "the cable is out")
        if self._fault("end"):
            return Ended()
        if self._fault("mute"):
            time.sleep(0.05)
            return NoFrame(reason="the lens cap is on")
        return None


class Triggered(Ticking):
    """The same, and silent between the line's triggers."""

    time_class = TimeClass.HARDWARE_TRIGGERED


def arriving(options: Mapping[str, str | int | float | bool], camera: str) -> Ticking:
    """A factory without any attribute: nothing is known of its exposures."""

    class Plain(Ticking):
        time_class = TimeClass.ARRIVAL_ONLY

    return Plain(options, camera)
